"""Relays that die, and relays that compete."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from app.broker import Broker
from app.db import connect, workers
from app.dispatch import Relay
from app.domain import catalog
from app.errors import BrokerDown
from tests.faults.brokers import BrokerServer
from tests.faults.house import QUEUE, House, relaying, work_off


@pytest.fixture(scope="module")
def broker_server(either_broker: BrokerServer) -> BrokerServer:
    return either_broker


@contextmanager
def empty_queue(house: House) -> Iterator[Broker]:
    """Give the broker with nothing in the queue, and a reason for relays to fill it: 500 slots."""
    house.broker.forget(QUEUE)
    with house.database.autocommit() as tx:
        workers.beat(
            tx,
            "nobody:1:1",
            queues=[QUEUE],
            slots=500,
            busy=0,
            warm_models=[],
            version="0",
            draining=False,
        )
    broker = Broker(house.settings)
    try:
        yield broker
    finally:
        broker.close()


BATCH = 3


def release_all(
    house: House, start: threading.Barrier, released: list[int], refused: list[BrokerDown]
) -> None:
    """Be a relay that releases three jobs at a time until none is left.

    RabbitMQ refuses a message now and then while a quorum queue is new; a relay then releases it again.
    """
    settings = house.settings.model_copy(
        update={"relay_batch": BATCH, "redispatch_after": timedelta(hours=1)}
    )
    database, broker = connect(settings, pool_size=1), Broker(settings)
    relay = Relay(settings, database, broker, catalog.load(settings.models_file))
    start.wait(timeout=10)
    while not released or released[-1]:
        try:
            released.append(relay.release_due().released)
        except BrokerDown as error:
            refused.append(error)
    broker.close()
    database.close()


def test_a_job_whose_relay_died_before_publishing_is_released_again(house: House) -> None:
    for _ in range(4):
        house.submit()
    with house.database.autocommit() as tx:
        tx.exec_driver_sql("UPDATE jobs SET dispatched_at = now()")
    with empty_queue(house) as broker, relaying(house):
        house.until(lambda: broker.depth(QUEUE) == 4, within=10)
    work_off(house)
    house.ends_well()


def test_two_relays_release_each_job_once(house: House) -> None:
    for _ in range(60):
        house.submit()
    start, refused = threading.Barrier(2), list[BrokerDown]()
    counts: list[list[int]] = [[], []]
    with empty_queue(house) as broker:
        relays = [
            threading.Thread(target=release_all, args=(house, start, released, refused))
            for released in counts
        ]
        for relay in relays:
            relay.start()
        for relay in relays:
            relay.join(timeout=20)
        assert 60 <= broker.depth(QUEUE) <= 60 + BATCH * len(refused)
    assert sum(map(sum, counts)) == 60
    work_off(house)
    house.ends_well()
