"""A broker that dies, forgets, repeats or was never told; and relays that do."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Literal

import pytest
import redis
from tests.faults.clients import submitting
from tests.faults.house import QUEUE, House, relaying

from app.broker import Broker
from app.db import connect, workers
from app.dispatch import Relay
from app.domain import catalog
from app.local.supervisor import Happened
from tests.waiting import eventually



@contextmanager
def broker_of(house: House) -> Iterator[Broker]:
    broker = Broker(house.settings)
    try:
        yield broker
    finally:
        broker.close()


def restarts(house: House, name: str) -> int:
    return sum(event.name == name and event.what is Happened.RESTARTED for event in house.stack.events)


def announce_slots(house: House, slots: int) -> None:
    """Have the relay believe in a worker with this many slots, so that it releases twice as many jobs."""
    with house.database.autocommit() as tx:
        workers.beat(
            tx,
            "nobody:1:1",
            queues=[QUEUE],
            slots=slots,
            busy=0,
            warm_models=[],
            version="0",
            draining=False,
        )


def test_a_broker_killed_under_load_loses_no_accepted_job(house: House) -> None:
    web, url = house.processes.web()
    relay, worker = house.processes.relay(), house.worker(slots=2)
    house.processes.await_workers(worker)
    pid, before = house.stack.supervisor.pid("valkey"), restarts(house, "valkey")
    assert pid
    with submitting(url, house.account.headers) as customers:
        house.until(lambda: len(customers.accepted) > 15)
        os.kill(pid, signal.SIGKILL)
        house.until(lambda: restarts(house, "valkey") > before)
        since = len(customers.accepted)
        house.until(lambda: len(customers.accepted) > since + 15)
    house.accepted += customers.accepted
    house.ends_well()
    assert house.all_completed()
    assert customers.refused == []
    assert customers.broken == []
    assert web.alive
    assert relay.alive
    assert worker.alive


@pytest.mark.usefixtures("relay")
def test_wake_ups_that_the_broker_forgot_are_sent_again(house: House) -> None:
    worker = house.worker(slots=2)
    house.processes.await_workers(worker)
    worker.freeze()
    for _ in range(8):
        house.submit()
    with broker_of(house) as broker:
        house.until(lambda: broker.depth(QUEUE) > 0)
        with redis.Redis.from_url(house.settings.broker_url.get_secret_value()) as valkey:
            valkey.flushall()
        worker.thaw()
    house.ends_well()
    assert house.all_completed()


def test_a_job_whose_relay_died_before_publishing_is_released_again(house: House) -> None:
    worker = house.worker(slots=2)
    house.processes.await_workers(worker)
    for _ in range(4):
        house.submit()
    with house.database.autocommit() as tx:
        tx.exec_driver_sql("UPDATE jobs SET dispatched_at = now()")
    with relaying(house):
        house.ends_well(within=10)
    assert house.all_completed()


def test_a_message_delivered_three_times_is_worked_on_once(house: House) -> None:
    house.processes.await_workers(house.worker(slots=2), house.worker(slots=2, pool="threads"))
    jobs = [house.submit(images=2) for _ in range(15)]
    with broker_of(house) as broker:
        broker.publish(QUEUE, [job_id for job_id in jobs for _ in range(3)])
        house.ends_well()
        house.until(lambda: broker.depth(QUEUE) == 0)
    house.ends_well()
    for job_id in jobs:
        assert house.reasons(job_id) == ["submitted", "claimed", "completed"]


def test_two_relays_release_each_job_once(house: House) -> None:
    announce_slots(house, 500)
    for _ in range(60):
        house.submit()
    start = threading.Barrier(2)
    released: list[int] = []

    def release() -> None:
        database, broker = connect(house.settings, pool_size=1), Broker(house.settings)
        slow = house.settings.model_copy(update={"relay_batch": 3, "redispatch_after": timedelta(hours=1)})
        relay = Relay(slow, database, broker, catalog.load(house.settings.models_file))
        start.wait(timeout=10)
        while done := relay.release_due().released:
            released.append(done)
        broker.close()
        database.close()

    with broker_of(house) as broker:
        before = broker.depth(QUEUE)
        relays = [threading.Thread(target=release) for _ in range(2)]
        for relay in relays:
            relay.start()
        for relay in relays:
            relay.join(timeout=20)
        assert broker.depth(QUEUE) == before + 60
    assert sum(released) == 60
    with house.database.autocommit() as tx:
        workers.leave(tx, "nobody:1:1")
    with relaying(house):
        house.worker(slots=2)
        house.ends_well()
    assert house.all_completed()


@pytest.mark.usefixtures("relay")
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_whose_jobs_end_while_the_broker_is_away_goes_on_when_it_is_back(
    house: House, pool: Literal["prefork", "threads"]
) -> None:
    worker = house.worker(slots=2, pool=pool)
    house.processes.await_workers(worker)
    jobs = [house.half_done()[0], house.half_done()[0]]
    pid = house.stack.supervisor.pid("valkey")
    assert pid
    os.kill(pid, signal.SIGKILL)
    house.open_gate()
    # Not `house.until`, which would have the broker restarted meanwhile.
    eventually(lambda: all(house.job(job_id).status == "completed" for job_id in jobs), within=20)
    house.submit()
    house.ends_well(within=20)
    assert house.all_completed()
    assert worker.alive
