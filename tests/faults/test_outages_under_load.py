"""Servers that crash or freeze while customers submit over HTTP; one crew of processes outlives them all."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.db import Database
from app.local.stack import Stack
from app.settings import Settings
from app.storage import Storage
from tests.conftest import Account
from tests.faults.brokers import BrokerServer, StackValkey
from tests.faults.clients import Customers, submitting
from tests.faults.house import WORKER_APP, House, opened
from tests.servers.processes import Process, Processes, signal_all
from tests.servers.rabbitmq import RabbitMQ
from tests.waiting import eventually

RECOVERS_WITHIN = 15.0
"""Seconds from the moment the server answers again until fresh jobs complete."""
FROZEN_SECONDS = 3.5
"""Longer than a lease."""


@dataclass
class Crew:
    """Web, relay and a worker of each pool: they stay for all tests of this file and may not die."""

    processes: Processes
    settings: Settings
    url: str
    members: list[Process]
    workers: list[Process]


@pytest.fixture(scope="module", params=["valkey", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def broker_server(request: pytest.FixtureRequest, stack: Stack) -> BrokerServer:
    if request.param == "valkey":
        return StackValkey(stack)
    node: RabbitMQ = request.getfixturevalue("rabbitmq")
    return node


@pytest.fixture(scope="module")
def crew(
    short_settings: Settings, broker_server: BrokerServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Crew]:
    settings = short_settings.model_copy(update={"broker_url": SecretStr(broker_server.url)})
    with Processes(settings, logs=tmp_path_factory.mktemp("crew")) as processes:
        web, url = processes.web()
        relay = processes.relay()
        workers = [processes.worker(app=WORKER_APP, pool=pool) for pool in ("prefork", "threads")]
        processes.await_web(url)
        yield Crew(processes, settings, url, [web, relay, *workers], workers)


@pytest.fixture
def house(
    stack: Stack,
    broker_server: BrokerServer,
    crew: Crew,
    database: Database,
    storage: Storage,
    account: Account,
    tmp_path: Path,
) -> Iterator[House]:
    with opened(
        stack,
        crew.settings,
        database,
        storage,
        account,
        broker=broker_server,
        processes=crew.processes,
        folder=tmp_path,
    ) as made:
        crew.processes.await_workers(*crew.workers)
        yield made
    assert all(member.alive for member in crew.members)


def server(house: House, name: str) -> int:
    pid = house.stack.supervisor.pid(name)
    assert pid
    return pid


@contextmanager
def load(house: House, crew: Crew) -> Iterator[Customers]:
    """Have customers submit; afterwards fresh jobs must complete soon, and all accepted ones in the end."""
    with submitting(crew.url, house.account.headers) as customers:
        house.until(lambda: len(customers.accepted) > 10)
        yield customers
        _completes_again(house, customers)
    house.accepted += customers.accepted
    assert {refusal.status for refusal in customers.refused} <= {503}
    assert all(refusal.retry_after for refusal in customers.refused)
    assert customers.broken == []
    house.ends_well()
    assert house.all_completed()


def _completes_again(house: House, customers: Customers) -> None:
    began, before = time.monotonic(), len(customers.accepted)
    house.until(lambda: len(customers.accepted) > before, within=RECOVERS_WITHIN)
    fresh = customers.accepted[before]
    left = RECOVERS_WITHIN - (time.monotonic() - began)
    house.until(lambda: house.job(fresh).status == "completed", within=left)


def frozen_for_a_while(freeze: Callable[[], None], thaw: Callable[[], None]) -> None:
    freeze()
    thaws = threading.Timer(FROZEN_SECONDS, thaw)
    thaws.start()
    thaws.join()


def test_a_broker_killed_under_load_is_noticed_by_no_customer(house: House, crew: Crew) -> None:
    with load(house, crew) as customers:
        house.broker.kill()
        house.broker.bring_back()
    assert customers.refused == []


def test_a_crash_of_postgres_costs_customers_a_503_and_no_accepted_job(house: House, crew: Crew) -> None:
    with load(house, crew) as customers:
        os.kill(server(house, "postgres"), signal.SIGQUIT)  # what `pg_ctl stop -m immediate` sends
        # Not `house.until`, which would start it again.
        eventually(lambda: len(customers.refused) > 80, within=30)
        house.until(customers.ready)
    assert {refusal.status for refusal in customers.refused} == {503}


def test_while_postgres_is_frozen_customers_wait_and_nothing_is_lost(house: House, crew: Crew) -> None:
    with load(house, crew):
        postgres = server(house, "postgres")
        frozen_for_a_while(
            lambda: signal_all(postgres, signal.SIGSTOP), lambda: signal_all(postgres, signal.SIGCONT)
        )
