"""A broker that dies, forgets, repeats or was never told; and relays that do."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from app.broker import Broker
from app.db import connect, workers
from app.dispatch import Relay
from app.domain import catalog
from app.local.stack import Stack
from tests.faults.brokers import BrokerServer, StackValkey
from tests.faults.house import QUEUE, House, relaying, work_off
from tests.servers.rabbitmq import RabbitMQ
from tests.waiting import eventually


@pytest.fixture(params=["valkey", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def broker_server(request: pytest.FixtureRequest, stack: Stack) -> BrokerServer:
    """Each test of this file runs on either broker."""
    if request.param == "valkey":
        return StackValkey(stack)
    node: RabbitMQ = request.getfixturevalue("rabbitmq")
    return node


@contextmanager
def broker_of(house: House) -> Iterator[Broker]:
    broker = Broker(house.settings)
    try:
        yield broker
    finally:
        broker.close()


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


@pytest.mark.usefixtures("relay")
def test_wake_ups_that_the_broker_forgot_are_sent_again(house: House) -> None:
    worker = house.worker(slots=2)
    house.processes.await_workers(worker)
    worker.freeze()
    for _ in range(8):
        house.submit()
    with broker_of(house) as broker:
        house.until(lambda: broker.depth(QUEUE) > 0)
        house.broker.forget(QUEUE)
        worker.thaw()
    house.ends_well()
    assert house.all_completed()


def test_a_job_whose_relay_died_before_publishing_is_released_again(house: House) -> None:
    announce_slots(house, 10)
    for _ in range(4):
        house.submit()
    with house.database.autocommit() as tx:
        tx.exec_driver_sql("UPDATE jobs SET dispatched_at = now()")
    with broker_of(house) as broker:
        before = broker.depth(QUEUE)
        with relaying(house):
            house.until(lambda: broker.depth(QUEUE) >= before + 4, within=10)
    work_off(house)
    house.ends_well()


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
    work_off(house)
    house.ends_well()


@pytest.mark.usefixtures("relay")
def test_workers_whose_jobs_all_end_while_the_broker_is_away_go_on_when_it_is_back(house: House) -> None:
    crew = [house.worker(slots=2), house.worker(slots=2, pool="threads")]
    house.processes.await_workers(*crew)
    jobs = [house.half_done()[0] for _ in range(4)]
    house.broker.kill()
    house.open_gate()
    # Not `house.until`, which would have Valkey restarted meanwhile.
    eventually(lambda: all(house.job(job_id).status == "completed" for job_id in jobs), within=20)
    house.broker.bring_back()
    announce_slots(house, 20)
    fresh = [house.submit() for _ in range(20)]
    house.ends_well(within=20)
    assert {house.processes.owner(house.worker_of(job_id)) for job_id in fresh} == set(crew)
