"""Workers of our own engine that are killed while they draw several jobs in one call."""

from pathlib import Path

import pytest
import yaml

from app.settings import Settings
from tests.faults.house import House

pytest.importorskip("torch", reason="the extra gpu is not installed")
pytestmark = [pytest.mark.usefixtures("relay"), pytest.mark.slow]

JOBS = 40
ROWS = 8
QUEUE = "gpu.0"


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
