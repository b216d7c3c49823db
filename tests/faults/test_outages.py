"""Servers that crash, freeze or forget, and a pool child that dies: one crew lives through it all."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.broker import Broker
from app.db import Database
from app.local.stack import Stack
from app.settings import Settings
from app.storage import Storage
from tests.conftest import Account
from tests.faults.brokers import BrokerServer
from tests.faults.clients import Customers, submitting
from tests.faults.house import QUEUE, WORKER_APP, House, opened
from tests.servers.processes import Process, Processes, pid_of, signal_all
from tests.waiting import eventually

RECOVERS_WITHIN = 15.0
"""Seconds from the moment the server answers again until fresh jobs complete."""
SLOTS = 4
"""Of both workers together."""
FROZEN_SECONDS = 2.5
"""Longer than a lease."""


@dataclass
class Crew:
    """Web, relay and a worker of each pool: they stay for all tests of this file and may not die."""

    processes: Processes
    settings: Settings
    url: str
    members: list[Process]
    workers: list[Process]


@pytest.fixture(scope="module")
def broker_server(either_broker: BrokerServer) -> BrokerServer:
    return either_broker


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
        eventually(lambda: len(customers.refused) > 40, within=30)
        house.until(customers.ready)
    assert {refusal.status for refusal in customers.refused} == {503}


def test_while_postgres_is_frozen_customers_wait_and_nothing_is_lost(house: House, crew: Crew) -> None:
    with load(house, crew):
        postgres = server(house, "postgres")
        frozen_for_a_while(
            lambda: signal_all(postgres, signal.SIGSTOP), lambda: signal_all(postgres, signal.SIGCONT)
        )


def test_wake_ups_that_the_broker_forgot_are_sent_again(house: House, crew: Crew) -> None:
    for worker in crew.workers:
        worker.freeze()
    for _ in range(8):
        house.submit()
    with closing(Broker(house.settings)) as broker:
        house.until(lambda: broker.depth(QUEUE) > 0)
    house.broker.forget(QUEUE)
    for worker in crew.workers:
        worker.thaw()
    house.ends_well()
    assert house.all_completed()


def test_workers_whose_jobs_all_end_while_the_broker_is_away_go_on_when_it_is_back(house: House) -> None:
    jobs = [house.half_done()[0] for _ in range(SLOTS)]
    house.broker.kill()
    house.open_gate()
    # Not `house.until`, which would have Valkey restarted meanwhile.
    eventually(lambda: all(house.job(job_id).status == "completed" for job_id in jobs), within=20)
    house.broker.bring_back()
    house.close_gate()
    for _ in range(SLOTS):
        house.half_done()
    house.open_gate()
    house.ends_well()
    assert house.all_completed()


def test_a_message_delivered_three_times_is_worked_on_once(house: House) -> None:
    jobs = [house.submit(images=2) for _ in range(15)]
    with closing(Broker(house.settings)) as broker:
        broker.publish(QUEUE, [job_id for job_id in jobs for _ in range(3)])
        house.ends_well()
        house.until(lambda: broker.depth(QUEUE) == 0)
    house.ends_well()
    for job_id in jobs:
        assert house.reasons(job_id) == ["submitted", "claimed", "completed"]


def test_a_job_that_ends_while_postgres_is_away_is_settled_once_it_is_back(house: House) -> None:
    job_id, _ = house.half_done()
    prefix = house.objects(job_id, attempt=1)[0].rpartition("/")[0] + "/"
    os.kill(server(house, "postgres"), signal.SIGQUIT)
    house.open_gate()
    eventually(lambda: len(list(house.storage.list(prefix))) == 2, within=10)
    house.ends_well()
    assert house.all_completed()


def test_jobs_wait_for_a_store_that_is_away_and_none_completes_without_its_object(house: House) -> None:
    jobs = [house.half_done()[0] for _ in range(2)]
    with house.database.autocommit() as tx:
        tx.exec_driver_sql("UPDATE jobs SET max_attempts = 2")
    os.kill(server(house, "s3"), signal.SIGKILL)
    house.open_gate()
    # Not `house.until`, which would start it again.
    eventually(lambda: all(house.reasons(job_id).count("retry") >= 2 for job_id in jobs), within=20)
    assert {house.job(job_id).error_code for job_id in jobs} == {"storage_unavailable"}
    house.ends_well()
    assert house.all_completed()


def test_jobs_wait_for_a_store_that_is_frozen(house: House) -> None:
    job_id, _ = house.half_done()
    store = server(house, "s3")
    house.open_gate()
    frozen_for_a_while(lambda: os.kill(store, signal.SIGSTOP), lambda: os.kill(store, signal.SIGCONT))
    house.ends_well()
    assert house.reasons(job_id) == ["submitted", "claimed", "completed"]


def test_a_killed_pool_child_costs_its_job_one_attempt_and_its_worker_nothing(
    house: House, crew: Crew
) -> None:
    prefork = crew.workers[0]
    jobs = [house.half_done() for _ in range(SLOTS)]
    job_id = next(job_id for job_id, worker in jobs if worker is prefork)
    os.kill(pid_of(house.job(job_id).lease_owner), signal.SIGKILL)
    house.open_gate()
    house.ends_well()
    assert house.reasons(job_id) == ["submitted", "claimed", "lease_lost", "claimed", "completed"]
