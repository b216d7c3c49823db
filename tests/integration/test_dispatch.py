"""The relay against a real broker: fairness, room, repair, and what happens when the broker is away."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import pytest

from app.broker import Broker
from app.db import Database, queues, workers
from app.dispatch import Relay
from app.domain import catalog
from app.errors import BrokerDown
from app.settings import Settings
from tests import rows
from tests.conftest import Account


@pytest.fixture
def broker(settings: Settings) -> Iterator[Broker]:
    opened = Broker(settings)
    opened.publish("cpu", [])
    opened._connection.default_channel.client.flushall()
    yield opened
    opened.close()


@pytest.fixture
def relay(settings: Settings, database: Database, broker: Broker) -> Relay:
    return Relay(settings, database, broker, catalog.load())


def announce(database: Database, *, slots: int, draining: bool = False, name: str = "w1") -> None:
    with database.autocommit() as tx:
        workers.beat(
            tx,
            name,
            queues=["cpu"],
            slots=slots,
            busy=0,
            warm_models=[],
            version="test",
            draining=draining,
        )


def dispatched(database: Database) -> list[UUID]:
    found = rows.query(database, "SELECT id FROM jobs WHERE dispatched_at IS NOT NULL ORDER BY id")
    return [row.id for row in found]


def test_due_jobs_are_released_as_one_message_each(
    database: Database, account: Account, relay: Relay, broker: Broker
) -> None:
    announce(database, slots=10)
    job_ids = [rows.insert_job(database, account.id) for _ in range(5)]

    assert relay.release_due().released == 5

    assert dispatched(database) == job_ids
    assert broker.depth("cpu") == 5
    assert relay.release_due().released == 0


def test_a_queue_gets_only_twice_as_many_messages_as_it_has_slots(
    database: Database, account: Account, relay: Relay, broker: Broker
) -> None:
    announce(database, slots=2)
    for _ in range(20):
        rows.insert_job(database, account.id)

    relay.release_due()

    assert broker.depth("cpu") == 4


@pytest.mark.parametrize("draining", [True, False])
def test_without_a_live_worker_the_backlog_stays_in_sql(
    database: Database, account: Account, relay: Relay, broker: Broker, *, draining: bool
) -> None:
    announce(database, slots=2, draining=draining)
    if not draining:
        rows.execute(database, "UPDATE workers SET seen_at = seen_at - %(age)s", age=timedelta(minutes=1))
    rows.insert_job(database, account.id)

    assert relay.release_due().released == 0
    assert broker.depth("cpu") == 0


def test_a_job_due_later_is_not_released(database: Database, account: Account, relay: Relay) -> None:
    announce(database, slots=2)
    rows.insert_job(database, account.id, run_at="now() + interval '1 hour'")

    assert relay.release_due().released == 0


def test_an_account_with_few_jobs_does_not_wait_behind_one_with_many(
    database: Database, account: Account, stranger: Account, relay: Relay
) -> None:
    announce(database, slots=5)
    for _ in range(500):
        rows.insert_job(database, account.id)
    late = [rows.insert_job(database, stranger.id) for _ in range(5)]

    relay.release_due()

    assert set(late) <= set(dispatched(database))


def test_an_account_that_occupies_the_workers_goes_behind_one_that_does_not(
    database: Database, account: Account, stranger: Account, relay: Relay
) -> None:
    announce(database, slots=2)
    for _ in range(3):
        rows.insert_job(
            database,
            account.id,
            status="processing",
            attempt=1,
            lease_owner="w1",
            lease_until="now() + interval '1 minute'",
            deadline_at="now() + interval '1 minute'",
        )
    for _ in range(4):
        rows.insert_job(database, account.id)
    waiting = [rows.insert_job(database, stranger.id) for _ in range(3)]

    relay.release_due()

    assert set(waiting) <= set(dispatched(database))


def test_of_one_account_higher_priority_goes_first_then_age(
    database: Database, account: Account, relay: Relay
) -> None:
    announce(database, slots=1)
    old, _newer, urgent = (
        rows.insert_job(database, account.id, priority=priority, run_at=f"now() - interval '{age} s'")
        for priority, age in ((0, 30), (0, 20), (1, 10))
    )

    relay.release_due()

    assert set(dispatched(database)) == {old, urgent}


def test_a_priority_puts_no_account_before_another(
    database: Database, account: Account, stranger: Account, relay: Relay
) -> None:
    announce(database, slots=1)
    patient = rows.insert_job(database, account.id, run_at="now() - interval '30 s'")
    loud = [rows.insert_job(database, stranger.id, priority=10) for _ in range(3)]

    relay.release_due()

    assert set(dispatched(database)) == {patient, loud[0]}


def test_relays_working_at_once_release_each_job_once(
    database: Database, account: Account, broker: Broker, settings: Settings
) -> None:
    announce(database, slots=200)
    for _ in range(200):
        rows.insert_job(database, account.id)

    def release() -> None:
        own = Broker(settings)
        relay = Relay(settings, database, own, catalog.load())
        while relay.release_due().released:
            continue
        own.close()

    threads = [threading.Thread(target=release) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(dispatched(database)) == 200
    assert broker.depth("cpu") == 200


def test_jobs_are_due_again_when_the_broker_refuses(
    database: Database, account: Account, settings: Settings
) -> None:
    announce(database, slots=2)
    rows.insert_job(database, account.id)
    away = settings.model_copy(update={"broker_url": type(settings.broker_url)("redis://127.0.0.1:1/0")})
    relay = Relay(settings, database, Broker(away), catalog.load())

    with pytest.raises(BrokerDown):
        relay.release_due()

    assert dispatched(database) == []


def test_a_wake_up_the_broker_lost_is_sent_again(
    database: Database, account: Account, relay: Relay, broker: Broker
) -> None:
    announce(database, slots=2)
    job_id = rows.insert_job(database, account.id, dispatched_at="now() - interval '1 minute'")

    assert relay.repair() == 1
    assert relay.release_due().released == 1

    assert dispatched(database) == [job_id]
    assert broker.depth("cpu") == 1


def test_a_wake_up_that_waits_long_behind_others_is_not_sent_again(
    database: Database, account: Account, relay: Relay, broker: Broker
) -> None:
    announce(database, slots=2)
    job_id = rows.insert_job(database, account.id, dispatched_at="now() - interval '1 minute'")
    broker.publish("cpu", [job_id])

    assert relay.repair() == 0
    assert broker.depth("cpu") == 1


def test_the_backlogs_depth_does_not_slow_a_release(database: Database, account: Account) -> None:
    """The plan must not read the whole backlog: 20,000 waiting jobs, and a handful of index entries read."""
    announce(database, slots=5)
    rows.insert_job(database, account.id)
    rows.execute(
        database,
        """INSERT INTO jobs (id, account_id, dialect, operation, model, provider, queue, status, spec,
                             output_prefix, max_attempts)
           SELECT gen_random_uuid(), account_id, dialect, operation, model, provider, queue, status, spec,
                  gen_random_uuid(), max_attempts
           FROM jobs, generate_series(1, 20000)""",
    )
    rows.execute(database, "ANALYZE jobs")

    with database.transaction() as tx:
        parameters = {
            "queue": "cpu",
            "batch": 10,
            "alive_within": queues.ALIVE_WITHIN,
            "cold_for": queues.COLD_FOR,
        }
        (plan,) = tx.exec_driver_sql(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + queues._RELEASE,
            parameters,
        ).scalars()

    blocks = plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]
    assert blocks < 500, f"{blocks} blocks were read"
