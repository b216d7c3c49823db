"""Which GPU a worker that `up` starts gets to see."""

import pytest

from app.local.up import _gpu


@pytest.mark.parametrize(
    ("seen", "queue", "gets"),
    [
        (None, "gpu.0", "0"),
        (None, "gpu.1", "1"),
        ("0,1", "gpu.1", "1"),
        ("2,3", "gpu.0", "2"),
        ("2,3", "gpu.1", "3"),
        ("GPU-8f3a,GPU-77c2", "gpu.1", "GPU-77c2"),
    ],
)
def test_a_worker_sees_the_gpu_of_its_queue_of_those_there_are(
    seen: str | None, queue: str, gets: str
) -> None:
    assert _gpu(queue, seen) == {"CUDA_VISIBLE_DEVICES": gets}


@pytest.mark.parametrize(
    ("seen", "queue"),
    [(None, "gpu.big"), (None, "cpu"), ("2,3", "cpu"), ("2,3", "gpu.2"), ("5", "gpu.1"), ("", "gpu.0")],
)
def test_otherwise_it_sees_what_everybody_sees(seen: str | None, queue: str) -> None:
    assert _gpu(queue, seen) == {}
