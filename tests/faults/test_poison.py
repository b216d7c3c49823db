"""A job that kills whoever works on it."""

from datetime import timedelta

import pytest

from app.domain.job import MAX_CRASHES
from app.settings import Settings
from tests.faults.house import House

pytestmark = pytest.mark.usefixtures("relay")


@pytest.fixture
def fault_settings(short_settings: Settings) -> Settings:
    """A lease shorter than elsewhere, as it has to run out three times."""
    return short_settings.model_copy(update={"lease": timedelta(seconds=1)})


def test_a_job_that_kills_its_worker_each_time_fails_and_its_neighbours_complete(house: House) -> None:
    worker = house.worker(slots=2)
    house.processes.await_workers(worker)
    poison = house.submit("poison")
    neighbours = [house.submit() for _ in range(12)]
    house.ends_well()
    job = house.job(poison)
    assert (job.status, job.error_code, job.attempt) == ("failed", "worker_crashed", MAX_CRASHES)
    assert {house.job(job_id).status for job_id in neighbours} == {"completed"}
    assert worker.alive
