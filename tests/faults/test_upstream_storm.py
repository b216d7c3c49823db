"""A vendor that answers 429: it is called hardly more often than it allows, and nobody's job pays for it.

What it allows is what its rate limit admits, and one call more for each period that a Retry-After opens: that
call is how one learns of the period. All others that fall into it are too many; a tenth may be. They are
those that were on their way when the first was refused.

The storm lies: each Retry-After says a second, and it goes on for longer. So after each the vendor is called
again, until five refusals in a row open the breaker. With `--long` an opening takes the time it takes and the
storm outlasts two of them; without, the test ends the storm and the opening when it has seen the breaker.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import health
from app.broker import Broker
from app.domain.breaker import BreakerState
from app.domain.upstreams import queue_of
from app.settings import Settings
from tests import rows, upstreams
from tests.faults.house import House
from tests.faults.purchases import dealing_with, order, paid
from tests.upstreams import Call, Kind, Upstream, moods

pytestmark = pytest.mark.usefixtures("relay")

ACCOUNT = "stormy"
WORKERS, SLOTS = 2, 3
CONCURRENCY = 4
"""Fewer than the slots: it is the account's limit that counts, not the workers'."""
JOBS, LONG_JOBS = 80, 400
LONG_LIMIT, LONG_WINDOW = 60, 2.0
"""With `--long`: calls that the vendor admits in so many seconds, of which Darkroom is told nothing."""
SAID = 1.0
"""Seconds: what the storm says in Retry-After."""
TOLERANCE = 1.1
OPENS_WITHIN = 5.0
OPENINGS = 3
"""Times that the breaker opens in a row with `--long`: the probes after 15 and 30 s are refused, too."""
PAUSE = 2.0


@pytest.fixture
def fake() -> Iterator[Upstream]:
    with upstreams.upstream("openai") as opened:
        yield opened


@pytest.fixture
def fault_settings(short_settings: Settings, fake: Upstream, tmp_path: Path) -> Settings:
    return dealing_with(
        fake, [ACCOUNT], short_settings, folder=tmp_path, timeout=5.0, concurrency=CONCURRENCY
    )


def asked(fake: Upstream) -> list[Call]:
    """Give the calls that the vendor counts: all but those for a picture's bytes."""
    return [call for call in fake.calls if call.kind is not Kind.DOWNLOAD]


def allowed(fake: Upstream) -> int:
    """Give how many of them it allowed, see the module."""
    admitted, periods, ends = 0, 0, 0.0
    for call in asked(fake):
        if call.status != 429:
            admitted += 1
        elif call.at >= ends:
            periods, ends = periods + 1, call.at + SAID
    return admitted + periods


def state(house: House) -> rows.Look:
    return rows.query(
        house.database,
        "SELECT *, opened_until IS NOT NULL AS opened, opened_until > now() AS open FROM provider_state",
    )[0]


def doctor_says(house: House) -> str:
    """Give the line about the account of `darkroom doctor`."""
    broker = Broker(house.settings)
    try:
        findings = health.examine(
            house.settings, database=house.database, storage=house.storage, broker=broker
        )
    finally:
        broker.close()
    (line,) = [finding.says for finding in findings if finding.name == f"upstream {ACCOUNT}"]
    return line


def let_it_storm(fake: Upstream) -> float:
    """Refuse everything from now on; gives since when."""
    fake.always(moods.RETRY_AFTER_SECONDS.lasting(SAID))
    return time.monotonic()


@pytest.fixture
def workers(house: House) -> None:
    started = [
        house.processes.worker(queue=queue_of(ACCOUNT), pool="threads", slots=SLOTS) for _ in range(WORKERS)
    ]
    house.processes.await_workers(*started)


def buy(house: House, jobs: int) -> None:
    for number in range(jobs):
        order(house, ACCOUNT, side=64, prompt=f"job {number}")


@pytest.mark.timeout(400)
@pytest.mark.usefixtures("workers")
def test_a_storm_of_429_costs_nobody_an_attempt_and_is_not_answered_with_a_storm(
    house: House, fake: Upstream, request: pytest.FixtureRequest
) -> None:
    is_long = request.config.getoption("--long")
    if is_long:
        fake.limit(LONG_LIMIT, LONG_WINDOW)
    jobs = LONG_JOBS if is_long else JOBS
    buy(house, jobs)
    house.until(lambda: len(fake.charged) > jobs // 4, within=60)

    since = let_it_storm(fake)
    house.until(lambda: state(house).opened, within=OPENS_WITHIN)
    assert time.monotonic() - since < OPENS_WITHIN
    assert doctor_says(house).startswith(f"breaker {BreakerState.OPEN}, nothing is sent for ")
    if is_long:
        house.until(lambda: state(house).openings >= OPENINGS, within=170)
        fake.calm()
        fake.limit(LONG_LIMIT, LONG_WINDOW)
    else:
        fake.calm()
        rows.execute(house.database, "UPDATE provider_state SET opened_until = now()")
    house.ends_well(within=170 if is_long else 60)

    told = f"{len(asked(fake))} calls, {allowed(fake)} allowed"
    print(told)  # noqa: T201 - the tally of a long run
    assert len(asked(fake)) <= TOLERANCE * allowed(fake), told
    assert doctor_says(house) == "breaker closed"
    assert set(paid(fake).values()) == {1}
    assert outcomes(house) == {("completed", 0)}


def outcomes(house: House) -> set[tuple[str, int]]:
    """Give how jobs ended, and how many attempts they were charged."""
    return {(job.status, job.failures) for job in map(house.job, house.accepted)}


@pytest.mark.usefixtures("workers")
def test_two_processes_wait_together_exactly_as_long_as_one_of_them_was_told(
    house: House, fake: Upstream
) -> None:
    fake.storm(time.monotonic() + PAUSE)
    buy(house, 2 * CONCURRENCY)
    house.ends_well(within=30)

    refused = [call for call in asked(fake) if call.status == 429]
    taken = [call for call in asked(fake) if call.status != 429]
    # Those that were on their way when the first was refused; nobody after them.
    assert 1 <= len(refused) <= CONCURRENCY
    assert min(call.at for call in taken) - refused[0].at > PAUSE - 0.1
    assert outcomes(house) == {("completed", 0)}
