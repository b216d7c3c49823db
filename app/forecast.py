"""How full it is: unfinished jobs per account, and when a job submitted now is likely to be done."""

import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from app.db import Database, door, queues
from app.errors import DatabaseDown, QueueFull
from app.log import get_logger

log = get_logger(__name__)

_LOADS_KEPT: Final = 2.0
"""Seconds for which the queues' loads are believed; counting them is linear in the backlog."""
_USUAL_RUN: Final = 5.0
"""Seconds a job is taken to run while a model has no history."""


class Quotas:
    """Unfinished jobs per account: counted at most once a second, in between added up.

    Several web processes may together overshoot by what they accept in a second, and never by more.
    """

    def __init__(self, database: Database, queues: Sequence[str], limit: int) -> None:
        self._database = database
        self._queues = queues
        self._limit = limit
        self._lock = threading.Lock()
        self._counts: dict[UUID, tuple[float, int]] = {}

    def take(self, account_id: UUID) -> None:
        """Count one more job of an account.

        Raises:
            QueueFull: it has as many as it may.
        """
        now = time.monotonic()
        with self._lock:
            until, count = self._counts.get(account_id, (0.0, 0))
            if is_old := until < now:
                # One thread counts, the others go on with the number there is.
                until = now + 1.0
                self._counts[account_id] = (until, count)
        if is_old:
            with self._database.autocommit() as tx:
                count = door.count_unfinished(tx, account_id, queues=self._queues, up_to=self._limit)
        if count >= self._limit:
            raise QueueFull(
                f"This account has {self._limit:,} unfinished jobs, the most allowed; wait for some to end.",
                retry_after=timedelta(seconds=5),
                limit=self._limit,
            )
        with self._lock:
            self._counts[account_id] = (until, count + 1)


class Forecast:
    """When a job submitted now is likely to be done; from numbers at most two seconds old."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._until = 0.0
        self._loads: dict[str, queues.QueueLoad] = {}
        self._seconds: dict[str, float] = {}

    def until_done(self, *, model: str, queue: str, ahead: int | None = None) -> timedelta:
        """Give how long a job takes that waits on this queue.

        Args:
            ahead: jobs that start before it; None takes all that the queue holds.
        """
        run = self.run(model)
        load = self._loads.get(queue)
        if ahead is None:
            ahead = load.queued if load else 0
        running = load.processing if load else 0
        slots = max(1, load.slots if load else 0)
        return run * (1 + (ahead + running) // slots)

    def is_served(self, queue: str) -> bool:
        """Whether a live worker takes jobs from this queue; without one nobody can say when they are done."""
        self._refresh()
        load = self._loads.get(queue)
        return load is not None and load.slots > 0

    def run(self, model: str) -> timedelta:
        """Give how long a job of this model runs, by its recent ones."""
        self._refresh()
        return timedelta(seconds=self._seconds.get(model, _USUAL_RUN))

    def waiting(self) -> tuple[int, float]:
        """Give how many jobs wait on all queues, and seconds until the last of them is likely to be done."""
        self._refresh()
        waiting = sum(load.queued for load in self._loads.values())
        mean = sum(self._seconds.values()) / len(self._seconds) if self._seconds else _USUAL_RUN
        longest = max((load.queued / max(1, load.slots) for load in self._loads.values()), default=0.0)
        return waiting, longest * mean

    def _refresh(self) -> None:
        # One thread counts; the others go on with the numbers there are.
        if time.monotonic() < self._until or not self._lock.acquire(blocking=False):
            return
        try:
            self._until = time.monotonic() + _LOADS_KEPT
            with self._database.autocommit() as tx:
                self._loads, self._seconds = queues.loads(tx), queues.run_seconds(tx)
        except DatabaseDown:
            # A forecast is no reason to refuse a job, least of all one that was just committed.
            log.warning("forecast_is_old")
        finally:
            self._lock.release()
