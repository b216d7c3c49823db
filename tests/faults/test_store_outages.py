"""A store that is away while jobs want to upload."""

import os
import signal
import threading

import pytest

from app.settings import Settings
from tests.faults.house import House
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("relay")


@pytest.fixture
def fault_settings(fault_settings: Settings) -> Settings:
    """A job may fail once; that its store is away is not its failure."""
    return fault_settings.model_copy(update={"max_attempts": 2})


def store(house: House) -> int:
    pid = house.stack.supervisor.pid("s3")
    assert pid
    return pid


def test_jobs_wait_for_a_store_that_is_away_and_none_completes_without_its_object(house: House) -> None:
    house.processes.await_workers(house.worker(slots=2))
    jobs = [house.half_done()[0], house.half_done()[0]]
    os.kill(store(house), signal.SIGKILL)
    house.open_gate()
    # Not `house.until`, which would start it again.
    eventually(lambda: all(house.reasons(job_id).count("retry") >= 2 for job_id in jobs), within=20)
    assert {house.job(job_id).error_code for job_id in jobs} == {"storage_unavailable"}
    house.ends_well()
    assert house.all_completed()


def test_jobs_wait_for_a_store_that_is_frozen(house: House) -> None:
    house.processes.await_workers(house.worker(slots=2))
    job_id, _ = house.half_done()
    server = store(house)
    os.kill(server, signal.SIGSTOP)
    house.open_gate()
    # Longer than the lease: the heartbeat goes on while the upload waits.
    thaws = threading.Timer(house.settings.lease.total_seconds() * 1.5, os.kill, (server, signal.SIGCONT))
    thaws.start()
    thaws.join()
    house.ends_well()
    assert house.reasons(job_id) == ["submitted", "claimed", "completed"]
