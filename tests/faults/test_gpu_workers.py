"""Workers of our own engine: they get ready, are killed in the middle of a batch, and their GPU breaks."""

from pathlib import Path

import pytest
import yaml

from app.db import workers
from app.settings import Settings
from tests.faults.house import House
from tests.servers.processes import Process

pytest.importorskip("torch", reason="the extra gpu is not installed")
pytestmark = [pytest.mark.usefixtures("relay"), pytest.mark.slow]

JOBS = 40
ROWS = 8
QUEUE = "gpu.0"
BREAKING_APP = "tests.faults.breaking_worker"


@pytest.fixture
def fault_settings(short_settings: Settings, weights: Path, tmp_path: Path) -> Settings:
    file = tmp_path / "models.yaml"
    file.write_text(yaml.safe_dump(_catalog()))
    return short_settings.model_copy(
        update={
            "models_file": file,
            "models_folder": weights,
            "gpu_device": "cpu",
            "gpu_warm": ("tiny",),
            "max_attempts": 2,
        }
    )


def _catalog() -> dict[str, object]:
    model = {
        "id": "tiny",
        "name": "Tiny",
        "created_at": "2026-11-29T00:00:00Z",
        "operations": ["text_to_image"],
        "width": 64,
        "height": 64,
        "size": {"min": 64, "max": 512, "multiple": 8, "max_pixels": 262144},
        "max_images": 4,
        "defaults": {"num_inference_steps": 12, "guidance_scale": 5.0, "strength": 0.7},
        "targets": [{"provider": "diffusers", "model": "tiny", "queue": QUEUE}],
    }
    profile = {"name": "tiny", "family": "sd15", "source": "sd15", "dtype": "float32", "max_batch": ROWS}
    return {"models": [model], "profiles": [profile]}


def test_jobs_of_one_shape_run_in_batches_each_once_though_their_worker_is_killed(house: House) -> None:
    jobs = [house.submit("tiny", size=128) for _ in range(JOBS)]
    victim = house.processes.worker(queue=QUEUE, pool="threads")
    house.until(lambda: _crew(house) == [(0, [])], within=60)  # it takes no job before its model is there
    house.until(lambda: _crew(house) == [(2, ["tiny"])], within=60)
    house.until(lambda: _drawing_together(house) > 1, within=60)
    caught = _drawing_together(house)
    victim.kill()
    house.processes.worker(queue=QUEUE, pool="threads")
    house.ends_well(within=90)

    assert house.tally() == {"completed": JOBS}
    assert all(len(house.outputs(job_id)) == 1 for job_id in jobs)
    ends = [house.reasons(job_id) for job_id in jobs]
    assert all(reasons.count("completed") == 1 for reasons in ends)
    assert sum("lease_lost" in reasons for reasons in ends) >= caught
    assert _calls(house) <= JOBS / ROWS + 3, "batches did not form"


def test_a_broken_gpu_ends_its_process_and_fails_only_the_job_that_breaks_it(
    house: House, request: pytest.FixtureRequest
) -> None:
    bad = house.submit("tiny", prompt="short-circuit")
    good = [house.submit("tiny") for _ in range(3)]

    first = _breaking_worker(house)
    house.until(lambda: not first.alive, within=90)
    assert first.exit_status() == 70, "in order, but so that whoever starts it does so again"
    assert house.job(bad).status == "queued"
    assert house.job(bad).failures == 1
    # Whoever had the first turn: those that were drawn before it broke stay drawn.
    assert {house.job(job_id).status for job_id in good} <= {"queued", "completed"}
    if not request.config.getoption("--long"):
        return

    second = _breaking_worker(house)
    house.until(lambda: not second.alive, within=90)
    house.processes.worker(queue=QUEUE, pool="threads", app=BREAKING_APP)
    house.ends_well(within=90)
    assert second.exit_status() == 70
    assert [house.job(job_id).status for job_id in good] == ["completed"] * 3
    assert (house.job(bad).status, house.job(bad).error_code) == ("failed", "device_broken")
    assert house.job(bad).failures == 2, "as many as it has attempts, the last of them alone"


def _breaking_worker(house: House) -> Process:
    return house.processes.worker(queue=QUEUE, pool="threads", app=BREAKING_APP)


def _crew(house: House) -> list[tuple[int, list[str]]]:
    """Give slots and loaded models of the workers there are."""
    with house.database.autocommit() as tx:
        return [(row.slots, row.warm_models) for row in workers.list_workers(tx)]


def _drawing_together(house: House) -> int:
    """Give how many jobs are being drawn in one call now, and are not at its end."""
    with house.database.autocommit() as tx:
        found: int = tx.exec_driver_sql(
            "SELECT count(*) FROM jobs WHERE status = 'processing' AND step BETWEEN 1 AND steps - 3"
        ).scalar_one()
    return found


def _calls(house: House) -> float:
    """Give in how many calls the pictures were drawn that are there now: each is its share of a call."""
    with house.database.autocommit() as tx:
        found: float = tx.exec_driver_sql(
            "SELECT sum(1.0 / (detail->'batch_sizes'->>0)::int)::float FROM job_events "
            "WHERE reason = 'completed'"
        ).scalar_one()
    return found
