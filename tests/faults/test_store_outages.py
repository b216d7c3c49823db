"""A store that is away while jobs want to upload."""

import os
import signal
import threading

import pytest

from tests.faults.house import House
from tests.waiting import eventually


@pytest.mark.usefixtures("relay")
def test_jobs_whose_store_is_away_wait_for_it_and_none_completes_without_its_object(house: House) -> None:
    house.processes.await_workers(house.worker(slots=2))
    jobs = [house.half_done()[0], house.half_done()[0]]
    server = house.stack.supervisor.pid("s3")
    assert server
    os.kill(server, signal.SIGKILL)
    house.open_gate()
    # Not `house.until`, which would start it again.
    eventually(lambda: all("retry" in house.reasons(job_id) for job_id in jobs), within=20)
    assert {house.job(job_id).error_code for job_id in jobs} == {"storage_unavailable"}
    house.ends_well()
    assert house.all_completed()


@pytest.mark.usefixtures("relay")
def test_jobs_whose_store_is_frozen_wait_for_it(house: House) -> None:
    house.processes.await_workers(house.worker(slots=2))
    job_id, _ = house.half_done()
    server = house.stack.supervisor.pid("s3")
    assert server
    os.kill(server, signal.SIGSTOP)
    house.open_gate()
    # Longer than the lease: the heartbeat goes on while the upload waits.
    thaws = threading.Timer(house.settings.lease.total_seconds() * 1.5, os.kill, (server, signal.SIGCONT))
    thaws.start()
    thaws.join()
    house.ends_well()
    assert house.reasons(job_id) == ["submitted", "claimed", "completed"]
