"""How full it is: unfinished jobs per account, when a job is likely to be done, and whether somebody can."""

import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from app.db import Database, door, queues
from app.domain.catalog import Catalog, Model
from app.domain.routing import USUAL_RUN, Option, Scene, unservable
from app.domain.spec import JobSpec
from app.errors import DatabaseDown, QueueFull
from app.log import get_logger
from app.lookout import Lookout
from app.settings import Settings

log = get_logger(__name__)

_LOADS_KEPT: Final = 2.0
"""Seconds for which the queues' loads are believed; counting them is linear in the backlog."""


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
    """When a job submitted now is likely to be done, and by whom; from numbers at most two seconds old."""

    def __init__(self, settings: Settings, database: Database, catalog: Catalog) -> None:
        self._database = database
        self._lookout = Lookout(settings, catalog)
        self._beat = settings.lease.total_seconds()
        self._lock = threading.Lock()
        self._until = 0.0
        self._loads: dict[str, queues.QueueLoad] = {}
        self._scene: Scene | None = None
        self._judges_from = 0.0

    def until_done(self, *, model: str, queue: str, ahead: int | None = None) -> timedelta:
        """Give how long a job takes that waits on this queue.

        Args:
            ahead: jobs that start before it; None takes all that the queue holds.
        """
        run = self.run(model, queue)
        load = self._loads.get(queue)
        if ahead is None:
            ahead = load.queued if load else 0
        running = load.processing if load else 0
        slots = max(1, load.slots if load else 0)
        return run * (1 + (ahead + running) // slots)

    def is_served(self, queue: str) -> bool:
        """Whether somebody takes jobs from this queue; without that nobody can say when they are done."""
        return self.scene().state(queue).away is None

    def run(self, model: str, queue: str) -> timedelta:
        """Give how long a job of this model runs on this queue, by its recent ones."""
        return timedelta(seconds=self.scene().run(model, queue))

    def scene(self) -> Scene:
        """Give how all queues are doing; while nothing was ever read, as if nobody were anywhere."""
        self._refresh()
        return self._scene or Scene()

    def options(self, model: Model, spec: JobSpec | None = None) -> list[Option]:
        """Give a model's targets as a job with this spec sees them; without a spec none is unable."""
        return self._lookout.options(model, self.scene(), spec)

    def unservable_reason(self, model: Model, spec: JobSpec | None = None) -> str | None:
        """Give why nobody can draw this model now, for a customer to read; None: somebody can, or may.

        Nothing is said of workers while their heartbeats cannot have arrived: before the first look, and for
        a lease after Postgres was away.
        """
        given = self.options(model, spec)
        return unservable(given) if self.may_judge() else None

    def away_reason(self, queue: str) -> str | None:
        """Give why nobody takes jobs from this queue now; see `unservable_reason`."""
        away = self.scene().state(queue).away
        return away if self.may_judge() else None

    def may_judge(self) -> bool:
        """Whether a worker that is not seen may be taken for gone."""
        return self._scene is not None and time.monotonic() >= self._judges_from

    def waiting(self) -> tuple[int, float]:
        """Give how many jobs wait on all queues, and seconds until the last of them is likely to be done."""
        runs = self.scene().runs.values()
        waiting = sum(load.queued for load in self._loads.values())
        mean = sum(runs) / len(runs) if runs else USUAL_RUN
        longest = max((load.queued / max(1, load.slots) for load in self._loads.values()), default=0.0)
        return waiting, longest * mean

    def _refresh(self) -> None:
        # One thread counts; the others go on with the numbers there are.
        if time.monotonic() < self._until or not self._lock.acquire(blocking=False):
            return
        try:
            self._until = time.monotonic() + _LOADS_KEPT
            with self._database.autocommit() as tx:
                loads = queues.loads(tx)
                depths = {queue: load.queued + load.processing for queue, load in loads.items()}
                scene = self._lookout.look(tx, depths=depths, runs=queues.run_seconds(tx))
            self._loads, self._scene = loads, scene
        except DatabaseDown:
            # A forecast is no reason to refuse a job, least of all one that was just committed.
            log.warning("forecast_is_old")
            # The workers could not renew their heartbeats either; they get the time of one lease to do so.
            self._judges_from = time.monotonic() + self._beat
        finally:
            self._lock.release()
