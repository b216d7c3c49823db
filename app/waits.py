"""Waiting for jobs: however many requests wait in a process, one thread asks Postgres for all of them.

It asks when the PROGRESS bell rings, and once a second in case a ring got lost. Whoever waits holds a thread
of the web server, so there are fewer places than threads, and beyond them a request is told to come back. No
account gets more than half of them, so that one that waits a lot leaves others their place.
"""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final
from uuid import UUID

from app.db import Database, history
from app.db.history import Standing
from app.domain.job import TERMINAL
from app.errors import Busy, DatabaseDown
from app.log import get_logger

log = get_logger(__name__)

_POLL: Final = 1.0
"""Seconds after which we look without having been rung."""
_SHORTEST_PAUSE: Final = 0.010
"""Seconds between two looks, so that a storm of rings costs at most a hundred statements a second."""
_LAST_CHANCE: Final = timedelta(seconds=20)
"""How long waits go on once the process is asked to end: less than the server's grace of 25 s, which cuts off
whoever has no answer by then."""


class Waiter:
    """One request's view of one job: `standing` is the newest known, `wait` returns when it changes."""

    def __init__(
        self, job_id: UUID, changed: threading.Condition, is_over: Callable[[], bool] = lambda: False
    ) -> None:
        self.job_id = job_id
        self.standing: Standing | None = None
        self._changed = changed
        self._is_over = is_over

    @property
    def ended(self) -> bool:
        """Whether the job is known to have ended."""
        return self.standing is not None and self.standing.status in TERMINAL

    def wait(self, seen: Standing | None, *, timeout: timedelta) -> Standing | None:
        """Give the job's standing as soon as it differs from `seen`, or the same after the timeout.

        None as long as nobody has looked, which a Postgres that is away can make long.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.standing != seen or self._is_over(), timeout.total_seconds())
            return self.standing


class Waits:
    """All that wait in a process; thread-safe. `start` it, and have the PROGRESS bell call `ring`.

    Args:
        most: requests that may wait at a time; those of one account are `most_of_one`.
    """

    def __init__(self, database: Database, *, most: int) -> None:
        self.most = most
        self.most_of_one = max(1, most // 2)
        self.letting_go = False
        """Whether event streams end."""
        self._is_over = False
        """Whether waits end too."""
        self._database = database
        self._door = threading.Lock()
        self._waiting: Counter[UUID] = Counter()
        """Places taken, by account."""
        self._changed = threading.Condition()
        self._waiters: defaultdict[UUID, list[Waiter]] = defaultdict(list)
        self._rung = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="waits", daemon=True)

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; whoever still waits does so until its own timeout."""
        self._stopping = True
        self._rung.set()
        self._thread.join(timeout=2)

    def ring(self) -> None:
        """Have everybody's job looked at soon; returns at once."""
        self._rung.set()

    def let_go(self, *, waits_end_in: timedelta = _LAST_CHANCE) -> None:
        """Have all event streams end, as this process does: their clients come back to another one.

        Requests that wait for an answer go on for a while, then they are answered as if their time was over.
        """
        with self._changed:
            self.letting_go = True
            self._changed.notify_all()
        timer = threading.Timer(waits_end_in.total_seconds(), self._end_waits)
        timer.daemon = True  # a process that is done before does not stay for it
        timer.start()

    def _end_waits(self) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    @property
    def free(self) -> int:
        """Places that nobody has."""
        with self._door:
            return self.most - self._waiting.total()

    @contextmanager
    def place(self, account_id: UUID) -> Iterator[None]:
        """Hold one of the places, for a request that must not start what it then cannot wait for.

        Raises:
            Busy: all are taken, or this account has as many as one may.
        """
        self._take(account_id)
        try:
            yield
        finally:
            with self._door:
                self._waiting[account_id] -= 1
                self._waiting += Counter()  # drops who has none

    def _take(self, account_id: UUID) -> None:
        with self._door:
            is_full = self._waiting.total() >= self.most
            if not is_full and self._waiting[account_id] < self.most_of_one:
                self._waiting[account_id] += 1
                return
        who, most = ("", self.most) if is_full else (" of this account", self.most_of_one)
        raise Busy(
            f"{most} requests{who} wait for jobs in this process already, the most it may hold; "
            "try again in a moment, or ask without waiting.",
            retry_after=timedelta(seconds=2),
        )

    @contextmanager
    def watching(self, job_id: UUID, *, until_let_go: bool = False) -> Iterator[Waiter]:
        """Give a view of a job that is kept up to date while the context lasts; take a place first.

        Args:
            until_let_go: whether `let_go` wakes it at once, whose caller then ends; else when waits end.
        """
        is_over = (lambda: self.letting_go) if until_let_go else (lambda: self._is_over)
        waiter = Waiter(job_id, self._changed, is_over)
        with self._changed:
            self._waiters[job_id].append(waiter)
        self._rung.set()
        try:
            yield waiter
        finally:
            with self._changed:
                self._waiters[job_id].remove(waiter)
                if not self._waiters[job_id]:
                    del self._waiters[job_id]

    def until_ended(self, job_id: UUID, *, timeout: timedelta) -> bool:
        """Wait until a job has ended, at most so long, less when the process ends; gives whether it has.

        Take a place first.
        """
        end = time.monotonic() + timeout.total_seconds()
        with self.watching(job_id) as waiter:
            seen: Standing | None = None
            while not (waiter.ended or self._is_over) and (left := end - time.monotonic()) > 0:
                seen = waiter.wait(seen, timeout=timedelta(seconds=left))
            return waiter.ended

    def _run(self) -> None:
        while not self._stopping:
            self._rung.wait(_POLL)
            self._rung.clear()
            try:
                self._look()
            except DatabaseDown:
                log.warning("waits_look_again", waiting=len(self._waiters))
            time.sleep(_SHORTEST_PAUSE)  # rings that come close together are one look

    def _look(self) -> None:
        with self._changed:
            wanted = list(self._waiters)
        if not wanted:
            return
        with self._database.autocommit() as tx:
            found = history.standings(tx, wanted)
        with self._changed:
            for job_id, standing in found.items():
                for waiter in self._waiters.get(job_id, ()):
                    waiter.standing = standing
            self._changed.notify_all()
