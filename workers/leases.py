"""Keeps the leases of the jobs this process runs, and tells each when it must stop.

One thread per process renews all leases in one statement, says that the process lives, and hands jobs back
when it is drained. It never waits for a job: a job that does not listen loses its row all the same.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from app import __version__
from app.db import Database, bell, jobs, workers
from app.db.jobs import Beat, Claim
from app.domain.job import Reason, Status
from app.errors import AttemptEnded, CancelRequested, DatabaseDown, DeadlineExceeded, Draining, Lost
from app.log import get_logger
from app.settings import Settings

_TICK: Final = 0.25
"""Seconds between two looks at the drain flag."""
_OVERRUN: Final = 30.0
"""Seconds a job may ignore its deadline before the whole process ends; its lease has run out by then."""
_STUCK: Final = 300.0
"""Seconds after which it ends also for a job that was cancelled, given back or lost, and does not listen: one
that brings a large model into memory cannot for a minute, one that hangs in a driver never will."""
EXIT_BROKEN: Final = 70
"""EX_SOFTWARE of <sysexits.h>."""

log = get_logger(__name__)


def worker_name() -> str:
    """Give this process's unique name: host, process id and start, as a pid comes back after a restart."""
    return f"{socket.gethostname()}:{os.getpid()}:{time.time_ns() // 1_000_000:x}"


@dataclass
class Held:
    """A job this process runs."""

    claim: Claim
    share: float = 0.0
    stage: str | None = None
    step: int | None = None
    steps: int | None = None
    ended: AttemptEnded | None = None
    ended_at: float | None = None
    pays: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self) -> None:
        """Return while the attempt may go on.

        Raises:
            AttemptEnded: it must stop now: Lost, CancelRequested, DeadlineExceeded or Draining.
        """
        if self.ended is not None:
            raise self.ended

    def progress(self, share: float) -> None:
        """Note the finished share, 0 to 1; written within `progress_every`."""
        self.share = min(1.0, max(0.0, share))

    def at_step(self, step: int, steps: int) -> None:
        """Note the step that is done, of how many over all images; written within `progress_every`."""
        self.step, self.steps = step, steps

    def at(self, stage: str) -> None:
        """Note what the attempt is at: loading, generating or storing."""
        self.stage = stage

    @contextmanager
    def paying(self) -> Iterator[None]:
        """Keep the job through a drain until the context ends: whoever got it would pay again."""
        self.pays = True
        try:
            yield
        finally:
            self.pays = False

    @property
    def row(self) -> jobs.Held:
        """The job as a heartbeat writes it."""
        return jobs.Held(
            job_id=self.claim.job_id,
            attempt=self.claim.attempt,
            progress=self.share,
            stage=self.stage,
            step=self.step,
            steps=self.steps,
        )

    def end(self, why: AttemptEnded) -> None:
        """Make `check` raise `why` from now on; the first reason stays."""
        with self._lock:
            if self.ended is None:
                self.ended, self.ended_at = why, time.monotonic()


class Leases:
    """The jobs of one worker process, and its heartbeat.

    Args:
        is_draining: asked four times a second; once True, the process claims nothing more, and what runs
            longer than `drain_grace` is given back, uncharged.
        slots: jobs this process can run at a time; may be changed, and the next heartbeat tells.
        warm_models: models it has in memory, as targets name them; relay and others read it in its row.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        *,
        queues: Sequence[str],
        slots: int,
        is_draining: Callable[[], bool],
        doorbell: bell.Doorbell,
        warm_models: Callable[[], Sequence[str]] = list,
    ) -> None:
        self.worker = worker_name()
        self.warm_models = warm_models
        self._doorbell = doorbell
        self._written: list[jobs.Held] = []
        self._next_write = 0.0
        self._beat_at = 0.0
        self._settings = settings
        self._database = database
        self.queues = queues
        self.slots = slots
        self._is_draining = is_draining
        self._held: list[Held] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._draining_since: float | None = None
        self._thread = threading.Thread(target=self._run_or_end_process, name="leases", daemon=True)

    def start(self) -> None:
        """Start the heartbeat, which announces the process at once; returns before it did.

        Celery kills a child that is not up within 4 s, and Postgres may be away for longer.
        """
        self._thread.start()

    def stop(self) -> None:
        """End the heartbeat and sign off."""
        self._stop.set()
        self._thread.join(timeout=5)
        try:
            with self._database.autocommit() as tx:
                workers.leave(tx, self.worker)
        except DatabaseDown:
            log.warning("worker_row_left_behind", worker=self.worker)

    @property
    def draining(self) -> bool:
        """Whether this process claims nothing more."""
        return self._draining_since is not None or self._is_draining()

    def beat_now(self) -> None:
        """Have the next heartbeat follow within a quarter of a second."""
        self._beat_at = 0.0

    def hold(self, claim: Claim) -> Held:
        """Keep this job's lease from now on."""
        held = Held(claim)
        with self._lock:
            self._held.append(held)
        return held

    def drop(self, held: Held) -> None:
        """Stop keeping this lease; a later attempt of the same job may be held by then and stays."""
        with self._lock:
            self._held = [other for other in self._held if other is not held]

    def _run_or_end_process(self) -> None:
        """A process that keeps no leases must not go on claiming; whoever started it starts a new one."""
        try:
            self._run()
        finally:
            if not self._stop.is_set():
                log.error("process_ends", reason="the heartbeat broke")
                os._exit(EXIT_BROKEN)

    def _run(self) -> None:
        rung = False
        ear = _Ear(self._database, self._stop)
        while not self._stop.is_set():
            now = time.monotonic()
            try:
                self._drain_if_asked(now)
                if now >= self._beat_at:
                    # Before it is sent, so that who asks for another meanwhile gets one.
                    self._beat_at = now + self._settings.heartbeat.total_seconds()
                    self._beat()
                elif rung or now >= self._next_write:
                    self._write_progress(now, anyway=rung)
            except DatabaseDown as error:
                log.warning("heartbeat_lost", error=error.code)
                self.beat_now()
            self._end_process_if_stuck(now)
            rung = ear.wait(_TICK)
        ear.close()

    def _beat(self) -> None:
        held = self._snapshot()
        with self._database.autocommit() as tx:
            workers.beat(
                tx,
                self.worker,
                queues=self.queues,
                slots=self.slots,
                busy=len(held),
                warm_models=self.warm_models(),
                version=__version__,
                draining=self.draining,
            )
        self._renew(held)

    def _write_progress(self, now: float, *, anyway: bool) -> None:
        """Write down how far the jobs are, if that is news or if somebody asked to cancel one of them."""
        self._next_write = now + self._settings.progress_every.total_seconds()
        held = self._snapshot()
        if held and (anyway or [one.row for one in held] != self._written):
            self._renew(held)

    def _renew(self, held: Sequence[Held]) -> None:
        if not held:
            return
        rows = [one.row for one in held]
        with self._database.autocommit() as tx:
            renewed = jobs.heartbeat(tx, rows, lease=self._settings.lease)
        for one in held:
            self._judge(one, renewed.get(one.claim.job_id))
        if rows != self._written:
            self._written = rows
            self._doorbell.ring(bell.PROGRESS)

    def _judge(self, held: Held, beat: Beat | None) -> None:
        if beat is None:
            held.end(Lost())
        elif beat.overdue:
            held.end(DeadlineExceeded())
        elif beat.cancel_requested:
            held.end(CancelRequested())

    def _drain_if_asked(self, now: float) -> None:
        if self._draining_since is None:
            if not self._is_draining():
                return
            self._draining_since = now
            log.info("draining", worker=self.worker, jobs=len(self._held))
            self._beat()
        if now - self._draining_since >= self._settings.drain_grace.total_seconds():
            for held in self._snapshot():
                self._give_back(held)

    def _give_back(self, held: Held) -> None:
        if held.ended is not None or held.pays:
            return
        with self._database.autocommit() as tx:
            given = jobs.end_attempt(
                tx,
                held.claim.job_id,
                attempt=held.claim.attempt,
                worker=self.worker,
                to_status=Status.QUEUED,
                reason=Reason.DRAINED,
                charge=False,
            )
        held.end(Draining())
        log.info("job_given_back", job_id=str(held.claim.job_id), given=given)

    def _end_process_if_stuck(self, now: float) -> None:
        for held in self._snapshot():
            patience = _OVERRUN if isinstance(held.ended, DeadlineExceeded) else _STUCK
            if held.ended_at is not None and now - held.ended_at > patience:
                log.error("process_ends", reason="a job does not end", job_id=str(held.claim.job_id))
                os._exit(EXIT_BROKEN)

    def _snapshot(self) -> list[Held]:
        with self._lock:
            return list(self._held)


class _Ear:
    """Hears CANCELS on a connection of its own; while Postgres is away it just waits."""

    def __init__(self, database: Database, stop: threading.Event) -> None:
        self._database = database
        self._stop = stop
        self._calls: bell.wake_up_calls | None = None

    def wait(self, seconds: float) -> bool:
        """Give whether somebody rang within so many seconds; returns at once when somebody does."""
        try:
            if self._calls is None:
                calls = bell.wake_up_calls(self._database, bell.CANCELS)
                self._wait = calls.__enter__()
                self._calls = calls
            return bool(self._wait(timedelta(seconds=seconds)))
        except DatabaseDown:
            self.close()
            self._stop.wait(seconds)
            return False

    def close(self) -> None:
        """Close the connection; the next `wait` opens a new one."""
        if self._calls is not None:
            self._calls.__exit__()
            self._calls = None


def wait_between(failures: int) -> timedelta:
    """Give the pause before a statement is tried again while Postgres is away: 0.1 s doubling to 3.2 s."""
    return timedelta(seconds=0.1 * (1 << min(failures, 5)))
