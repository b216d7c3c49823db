"""Workers that are killed, frozen or drained in the middle of a job."""

import signal

import pytest

from app.db import workers
from tests.faults.house import House

pytestmark = pytest.mark.usefixtures("relay")


def test_a_killed_workers_job_is_done_by_another_and_only_its_outputs_show(house: House) -> None:
    house.processes.await_workers(house.worker(slots=1), house.worker(slots=1))
    job_id, victim = house.half_done()
    victim.kill()
    house.open_gate()
    house.ends_well()
    assert house.reasons(job_id) == ["submitted", "claimed", "lease_lost", "claimed", "completed"]
    left_behind = set(house.objects(job_id, attempt=1))
    assert left_behind.isdisjoint(output.key for output in house.outputs(job_id))
    assert (house.job(job_id).crashes, house.job(job_id).failures) == (1, 1)


def test_a_worker_frozen_longer_than_its_lease_changes_nothing_when_it_wakes(house: House) -> None:
    house.processes.await_workers(house.worker(slots=1), house.worker(slots=1, pool="threads"))
    job_id, zombie = house.half_done()
    zombie.freeze()
    house.open_gate()
    house.ends_well()
    before = (house.job(job_id), house.outputs(job_id))
    assert house.objects(job_id, attempt=1)
    zombie.thaw()
    house.until(lambda: not house.objects(job_id, attempt=1))
    assert (house.job(job_id), house.outputs(job_id)) == before
    assert zombie.alive
    house.ends_well()


def test_drained_workers_give_their_jobs_back_uncharged_and_end_by_themselves(house: House) -> None:
    drained = [house.worker(slots=2), house.worker(slots=2, pool="threads")]
    house.processes.await_workers(*drained)
    jobs = [house.half_done()[0] for _ in range(4)]
    for worker in drained:
        worker.send(signal.SIGTERM)
    successor = house.worker(slots=2)
    grace = house.settings.drain_grace.total_seconds()
    house.until(lambda: not any(worker.alive for worker in drained), within=grace + 5)
    assert [worker.exit_status() for worker in drained] == [0, 0]
    house.open_gate()
    house.ends_well()
    for job_id in jobs:
        job = house.job(job_id)
        assert house.reasons(job_id) == ["submitted", "claimed", "drained", "claimed", "completed"]
        assert (job.status, job.attempt, job.failures, job.crashes) == ("completed", 2, 0, 0)
        assert house.objects(job_id, attempt=1) == []
    with house.database.autocommit() as tx:
        left = {row.id for row in workers.list_workers(tx)}
    assert left == set(house.processes.announced(successor))
