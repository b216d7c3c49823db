"""Webhooks of a whole house in real processes: a receiver that is down, and workers that are killed.

With `--long` the receiver is down for a minute.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from statistics import median
from typing import Any

import pytest

from app import webhooks
from app.broker import WEBHOOKS
from app.domain.webhook import ENDS, FAILURES_TO_OPEN, Form
from app.settings import Settings
from app.vault import Vault
from tests.faults.house import House
from tests.servers.receiver import Received, Receiver, Reply, receiving
from tests.waiting import eventually

pytestmark = pytest.mark.slow

SHORT_OUTAGE, LONG_OUTAGE = 5.0, 60.0
"""Seconds that the receiver is down."""
PAUSE = 0.25
"""Seconds between two jobs that end."""
SLOWER = 5.0
"""How many times as long as before a delivery to the healthy endpoint may take while the other is down: at
milliseconds each this is the noise of a shared machine."""
USUAL = 0.25
"""Seconds that half of the deliveries to it may take at most, however fast they were before."""
LONGEST = 1.5
"""Seconds that a delivery to the healthy endpoint may take at most: relay's poll and a slow machine."""


@pytest.fixture
def fault_settings(short_settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """Settings of the house; a test may name another timeout, which the lease of a delivery follows."""
    timeout: timedelta = getattr(request, "param", timedelta(seconds=2))
    return short_settings.model_copy(update={"webhook_allow": ("127.0.0.1",), "webhook_timeout": timeout})


@pytest.fixture
def healthy() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def troubled() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def register(house: House, receiver: Receiver) -> str:
    """Have the account told of its jobs there; gives the URL."""
    webhooks.register(
        house.database,
        Vault(house.settings),
        account_id=house.account.id,
        url=receiver.url(),
        form=Form.JOBS,
        events=ENDS,
    )
    return receiver.url()


def start(house: House, *, slots: int = 8) -> Any:
    """Start a relay and a worker that posts; returns when it is known to the relay."""
    house.processes.relay()
    worker = house.processes.worker(queue=WEBHOOKS, pool="threads", slots=slots)
    house.processes.await_workers(worker)
    return worker


def end_a_job(house: House) -> None:
    """Submit a job and cancel it, which ends it at once."""
    job_id = house.submit()
    house.intake.cancel(job_id, account_id=house.account.id)


def end_jobs(house: House, *, for_seconds: float) -> int:
    """End a job now and then for so long; gives how many."""
    never, until, ended = threading.Event(), time.monotonic() + for_seconds, 0
    while time.monotonic() < until:
        end_a_job(house)
        ended += 1
        never.wait(PAUSE)
    return ended


def all_delivered(house: House) -> bool:
    with house.database.autocommit() as tx:
        return not tx.exec_driver_sql("SELECT 1 FROM deliveries WHERE status <> 'delivered' LIMIT 1").first()


def delays(house: House, url: str) -> list[float]:
    """Seconds from each event to its delivery at a URL, in the order of the events."""
    with house.database.autocommit() as tx:
        rows = tx.exec_driver_sql(
            "SELECT extract(epoch FROM d.finished_at - d.created_at)::float AS seconds "
            "FROM deliveries d JOIN webhook_endpoints e ON e.id = d.endpoint_id "
            "WHERE e.url = %(url)s ORDER BY d.created_at",
            {"url": url},
        )
        return [row.seconds for row in rows]


def in_short(times: list[float]) -> str:
    return f"median {median(times) * 1000:.0f} ms, longest {max(times) * 1000:.0f} ms of {len(times)}"


def ids(receiver: Receiver) -> dict[str, str]:
    """The job that each webhook-id told of; fails when one told of two."""
    found: dict[str, str] = {}
    for one in receiver.received:
        job_id = json.loads(one.body)["data"]["id"]
        assert found.setdefault(one.id, job_id) == job_id
    return found


def test_while_a_receiver_is_down_others_are_told_as_fast_and_then_it_is_told_everything(
    house: House, healthy: Receiver, troubled: Receiver, request: pytest.FixtureRequest
) -> None:
    seconds = LONG_OUTAGE if request.config.getoption("--long") else SHORT_OUTAGE
    well, ill = register(house, healthy), register(house, troubled)
    start(house)
    before = end_jobs(house, for_seconds=3)
    house.until(lambda: all_delivered(house))

    troubled.down()
    meanwhile = end_jobs(house, for_seconds=seconds)
    house.until(lambda: len(delays(house, well)) == before + meanwhile)
    troubled.up()
    back = time.monotonic()
    house.until(lambda: all_delivered(house), within=90)
    recovered = time.monotonic() - back

    told = delays(house, well)
    print(f"before: {in_short(told[:before])}; meanwhile: {in_short(told[before:])}; ")  # noqa: T201 - shown when it fails
    print(f"everything delivered {recovered:.1f} s after the receiver was back")  # noqa: T201 - as above
    assert max(told[before:]) < max(LONGEST, max(told[:before]) * SLOWER)
    assert median(told[before:]) < max(USUAL, median(told[:before]) * SLOWER)
    assert set(ids(troubled)) == delivery_ids(house, ill)
    assert sorted(ids(troubled).values()) == sorted(ids(healthy).values())
    assert len(troubled.received) == before + meanwhile
    assert tries_of(house, ill) < before + meanwhile + meanwhile  # the breaker spared it most of them


def delivery_ids(house: House, url: str) -> set[str]:
    with house.database.autocommit() as tx:
        rows = tx.exec_driver_sql(
            "SELECT d.id FROM deliveries d JOIN webhook_endpoints e ON e.id = d.endpoint_id "
            "WHERE e.url = %(url)s",
            {"url": url},
        )
        return {f"msg_{row.id.hex}" for row in rows}


def tries_of(house: House, url: str) -> int:
    with house.database.autocommit() as tx:
        return int(
            tx.exec_driver_sql(
                "SELECT count(*) FROM delivery_attempts a JOIN deliveries d ON d.id = a.delivery_id "
                "JOIN webhook_endpoints e ON e.id = d.endpoint_id WHERE e.url = %(url)s",
                {"url": url},
            ).scalar_one()
        )


def test_a_worker_killed_while_it_posts_leads_to_the_same_delivery_once_more(
    house: House, healthy: Receiver
) -> None:
    register(house, healthy)
    first = start(house)
    arrived = threading.Event()

    def keep_it_waiting(_: Received) -> Reply:
        arrived.set()
        threading.Event().wait(3)
        return Reply()

    healthy.answer = keep_it_waiting
    end_a_job(house)
    house.until(arrived.is_set)
    first.send(signal.SIGKILL)
    healthy.answer = lambda _: Reply()
    house.processes.worker(queue=WEBHOOKS, pool="threads", slots=2)
    house.until(lambda: all_delivered(house), within=40)

    assert len(healthy.received) == 2
    assert len(ids(healthy)) == 1
    assert len({one.body for one in healthy.received}) == 1


# The lease outlasts the outage: the supervisor waits up to 30 s with a server that others killed before.
@pytest.mark.parametrize("fault_settings", [timedelta(seconds=45)], indirect=True)
def test_an_answer_that_comes_while_postgres_is_away_counts_once_it_is_back(
    house: House, healthy: Receiver
) -> None:
    register(house, healthy)
    start(house)
    postgres = house.stack.supervisor.pid("postgres")
    assert postgres

    def answer_without_a_database(_: Received) -> Reply:
        os.kill(postgres, signal.SIGQUIT)  # what `pg_ctl stop -m immediate` sends
        return Reply()

    healthy.answer = answer_without_a_database
    end_a_job(house)
    # Not `house.until`, which would start it again before anybody noticed.
    eventually(lambda: healthy.received, within=20)
    house.until(lambda: all_delivered(house), within=60)

    assert len(healthy.received) == 1


def test_deliveries_wait_for_a_broker_that_is_away_and_for_workers_that_are_not_there(
    house: House, healthy: Receiver
) -> None:
    register(house, healthy)
    house.processes.relay()
    for _ in range(FAILURES_TO_OPEN):
        end_a_job(house)
    house.broker.kill()
    house.broker.bring_back()
    end_a_job(house)
    house.processes.worker(queue=WEBHOOKS, pool="threads", slots=2)
    house.until(lambda: all_delivered(house), within=40)

    assert len(ids(healthy)) == FAILURES_TO_OPEN + 1
