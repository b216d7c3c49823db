"""A worker that dies at any point of a paid call: the next goes on with it, and pays again only if it must.

For each failpoint there is an account with a queue of its own and a worker that dies there; afterwards one
worker without failpoints does what they left behind. Every account buys of the same fake vendor, which tells
the orders apart by their prompts.

Without `--long` this is ModelsLab's, the strictest case: it can neither be asked for a call by our reference
nor does it know Idempotency-Key.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest

from app.domain.upstreams import queue_of
from app.settings import Settings
from tests import upstreams
from tests.faults.house import House
from tests.faults.purchases import COST, calls, dealing_with, order, paid, queues, side_of
from tests.servers.processes import Process, Processes
from tests.upstreams import Upstream

pytestmark = pytest.mark.usefixtures("relay")

SENDING = "upstream.before_submit"
SENT = "upstream.after_submit"
POINTS = {
    "before-submit": SENDING,
    "after-submit": SENT,
    "after-id": "upstream.after_id",
    "before-yield": "upstream.before_yield",
    "before-settle": "runner.before_settle",
}
"""Each account's name with the point at which its worker dies."""


@dataclass(frozen=True, kw_only=True)
class Vendor:
    """A vendor, as far as it matters to who pays for a death."""

    api: str
    can_find: bool = False
    """Whether it can be asked for a call by our reference."""
    has_ids: bool = True
    """Whether it names what it took, so that it can be asked for."""
    idempotent: bool = False
    """Whether a call that is sent again under its key is the same one."""

    def __str__(self) -> str:
        return self.api + "-idempotent" * self.idempotent

    def pays(self, point: str) -> int:
        """How often a job is paid for whose first worker died there."""
        if point == SENDING or self.can_find or self.idempotent:
            return 1
        is_asked_for = self.has_ids and point != SENT
        return 1 if is_asked_for else 2

    def hides(self, point: str) -> int:
        """How many of these calls nobody can know the price of, as their answer died with the worker."""
        if self.can_find or self.idempotent:
            return 0
        return int(point == SENT or (point == POINTS["after-id"] and not self.has_ids))

    def happens(self, point: str) -> list[str]:
        """The reasons in the job's timeline."""
        # What is not found may still be in the making for as long as two exchanges.
        waits = self.can_find and point == SENDING
        again = ["claimed", "deferred", "claimed"] if waits else ["claimed"]
        return ["submitted", "claimed", "lease_lost", *again, "completed"]

    def tells(self, point: str) -> list[str]:
        """The states of the calls that were written down for it, in order."""
        if point in {SENDING, SENT}:
            if self.can_find:
                return ["refused", "completed"] if point == SENDING else ["completed"]
            return ["unknown", "completed"]
        if self.has_ids:
            return ["completed"]
        # Its images came with the answer: it is ambiguous until they are here, and repeated after that.
        return ["unknown" if point == POINTS["after-id"] else "completed", "completed"]


STRICTEST = Vendor(api="modelslab")
VENDORS = (
    STRICTEST,
    Vendor(api="imgprocessing", can_find=True),
    Vendor(api="realm"),
    Vendor(api="realm", idempotent=True),
    Vendor(api="openai", has_ids=False),
    Vendor(api="openai", has_ids=False, idempotent=True),
)


@pytest.fixture(params=VENDORS, ids=str)
def vendor(request: pytest.FixtureRequest) -> Vendor:
    chosen: Vendor = request.param
    if chosen is not STRICTEST and not request.config.getoption("--long"):
        pytest.skip("run it with `make faults` or `pytest tests/faults --long`")
    return chosen


@pytest.fixture
def fake(vendor: Vendor) -> Iterator[Upstream]:
    with upstreams.upstream(vendor.api) as opened:
        opened.honours_idempotency = vendor.idempotent
        yield opened


@pytest.fixture
def fault_settings(short_settings: Settings, fake: Upstream, vendor: Vendor, tmp_path: Path) -> Settings:
    return dealing_with(
        fake, list(POINTS), short_settings, folder=tmp_path, timeout=5.0, idempotent=vendor.idempotent
    )


@pytest.fixture
def doomed(house: House, tmp_path: Path) -> Iterator[list[Process]]:
    """A worker for each point, which dies there."""
    opened = []
    try:
        for name, point in POINTS.items():
            settings = house.settings.model_copy(update={"failpoints": (point,)})
            logs = tmp_path / name
            logs.mkdir()
            opened.append(Processes(settings, logs=logs))
        yield [
            processes.worker(queue=queue_of(name), pool="threads", slots=1)
            for name, processes in zip(POINTS, opened, strict=True)
        ]
    finally:
        for processes in opened:
            processes.__exit__()


def buy(house: House, vendor: Vendor) -> dict[str, UUID]:
    """Order one image of each account; gives the jobs by the account's name, which is the prompt, too."""
    side = side_of(vendor.api)
    return {name: order(house, name, side=side, prompt=name) for name in POINTS}


def test_a_death_is_paid_for_twice_only_where_nobody_can_know_what_was_bought(
    house: House, fake: Upstream, vendor: Vendor, doomed: list[Process]
) -> None:
    house.processes.await_workers(*doomed)
    jobs = buy(house, vendor)
    house.until(lambda: not any(worker.alive for worker in doomed), within=30)
    house.processes.worker(queue=queues(list(POINTS)), pool="threads", slots=2)
    house.ends_well(within=60)

    bills = paid(fake)
    for name, point in POINTS.items():
        job, bought = house.job(jobs[name]), calls(house, jobs[name])
        story = f"{point}: paid {bills[name]}, {[call.state for call in bought]}"
        expected = vendor.happens(point)
        assert house.reasons(jobs[name]) == expected, story
        assert (job.status, job.attempt) == ("completed", expected.count("claimed")), story
        assert job.crashes == 1, story
        assert bills[name] == vendor.pays(point) <= job.attempt, story
        assert [call.state for call in bought] == vendor.tells(point), story
        assert len({call.reference for call in bought}) == 1
        assert job.cost == Decimal(COST) * (bills[name] - vendor.hides(point)), story
