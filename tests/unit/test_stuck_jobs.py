"""A job that does not listen ends its process, each kind after its own patience, seen in a child process."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.db.jobs import Beat
from workers.leases import EXIT_BROKEN, Held, Leases

BEATS: dict[str, Beat | None] = {
    "lost": None,
    "overdue": Beat(overdue=True, cancel_requested=False),
    "cancelled": Beat(overdue=False, cancel_requested=True),
    "well": Beat(overdue=False, cancel_requested=False),
}
ROOT = Path(__file__).parents[2]
LOOKS = (1, 29, 31, 299, 301, 9999)
"""Seconds after the heartbeat at which a process looks for jobs that are stuck."""


def look(*kinds: str) -> None:
    """Hold a job of each kind that does not listen, and print each look that the process outlives."""
    settings: Any = SimpleNamespace(heartbeat=None)
    database: Any = None
    doorbell: Any = None
    leases = Leases(
        settings, database, queues=["gpu.test"], slots=2, is_draining=lambda: False, doorbell=doorbell
    )
    for kind in kinds:
        claim: Any = SimpleNamespace(job_id=kind)
        held = leases.hold(claim)
        leases._judge(held, BEATS[kind])
        leases._judge(held, BEATS[kind])  # each heartbeat says it again, which begins nothing anew
    for seconds in LOOKS:
        leases._end_process_if_stuck(_ended_at(leases._held) + seconds)
        sys.stdout.write(f"{seconds}\n")
        sys.stdout.flush()


def _ended_at(jobs: list[Held]) -> float:
    return next((one.ended_at for one in jobs if one.ended_at is not None), 0.0)


def outlived(kinds: str) -> tuple[list[int], int]:
    """Give the looks that a process outlives which holds jobs of these kinds, and its exit status."""
    code = f"from tests.unit.test_stuck_jobs import look; look(*{kinds.split()!r})"
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    return [int(line) for line in child.stdout.splitlines() if line.isdigit()], child.returncode


@pytest.mark.parametrize(
    ("kinds", "looks", "status"),
    [
        ("lost", [1, 29, 31, 299], EXIT_BROKEN),
        ("cancelled", [1, 29, 31, 299], EXIT_BROKEN),
        ("overdue", [1, 29], EXIT_BROKEN),
        ("well", list(LOOKS), 0),
        ("cancelled overdue", [1, 29], EXIT_BROKEN),
    ],
)
def test_a_process_waits_for_a_job_that_ended_and_not_for_ever(
    kinds: str, looks: list[int], status: int
) -> None:
    assert outlived(kinds) == (looks, status)
