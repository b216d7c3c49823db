"""Postgres that crashes or freezes while customers submit and workers work."""

import os
import signal
import threading
import time

import pytest

from tests.faults.clients import Customers, submitting
from tests.faults.house import House
from tests.servers.processes import signal_all
from tests.waiting import eventually

RECOVERS_WITHIN = 15.0
"""Seconds from the moment Postgres answers again until fresh jobs complete."""
FROZEN_SECONDS = 5.0


def postgres(house: House) -> int:
    pid = house.stack.supervisor.pid("postgres")
    assert pid
    return pid


def completes_again(house: House, customers: Customers) -> None:
    """Wait until a job that was accepted from now on is completed; it may not take long."""
    began, before = time.monotonic(), len(customers.accepted)
    house.until(lambda: len(customers.accepted) > before, within=RECOVERS_WITHIN)
    fresh = customers.accepted[before]
    left = RECOVERS_WITHIN - (time.monotonic() - began)
    house.until(lambda: house.job(fresh).status == "completed", within=left)


def test_a_crash_of_postgres_costs_customers_a_503_and_no_accepted_job(house: House) -> None:
    _, url = house.processes.web()
    relay, worker = house.processes.relay(), house.worker(slots=2)
    house.processes.await_workers(worker)
    with submitting(url, house.account.headers) as customers:
        house.until(lambda: len(customers.accepted) > 10)
        os.kill(postgres(house), signal.SIGQUIT)  # what `pg_ctl stop -m immediate` sends
        # Not `house.until`, which would start it again.
        eventually(lambda: len(customers.refused) > 80, within=30)
        house.until(customers.ready)
        completes_again(house, customers)
    house.accepted += customers.accepted
    assert {refusal.status for refusal in customers.refused} == {503}
    assert all(refusal.retry_after for refusal in customers.refused)
    assert customers.broken == []
    house.ends_well()
    assert house.all_completed()
    assert relay.alive
    assert worker.alive


def test_while_postgres_is_frozen_customers_wait_and_nothing_is_lost(house: House) -> None:
    _, url = house.processes.web()
    relay, worker = house.processes.relay(), house.worker(slots=2, pool="threads")
    house.processes.await_workers(worker)
    server = postgres(house)
    with submitting(url, house.account.headers) as customers:
        house.until(lambda: len(customers.accepted) > 10)
        signal_all(server, signal.SIGSTOP)
        thaws = threading.Timer(FROZEN_SECONDS, signal_all, (server, signal.SIGCONT))
        thaws.start()
        thaws.join()
        completes_again(house, customers)
    house.accepted += customers.accepted
    assert {refusal.status for refusal in customers.refused} <= {503}
    assert customers.broken == []
    house.ends_well()
    assert house.all_completed()
    assert relay.alive
    assert worker.alive


@pytest.mark.usefixtures("relay")
def test_a_job_that_ends_while_postgres_is_away_is_settled_once_it_is_back(house: House) -> None:
    worker = house.worker(slots=1)
    house.processes.await_workers(worker)
    job_id, _ = house.half_done()
    prefix = house.objects(job_id, attempt=1)[0].rpartition("/")[0] + "/"
    os.kill(postgres(house), signal.SIGQUIT)
    house.open_gate()
    eventually(lambda: len(list(house.storage.list(prefix))) == 2, within=10)
    house.ends_well()
    assert house.all_completed()
    assert worker.alive
