"""NOTIFY and LISTEN: how a sleeping process learns at once that there is something to do.

A ring carries no data and may be lost; every listener also looks by itself once in a while.
"""

import os
import selectors
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Final

import psycopg

from app.db import Database, translated
from app.errors import DatabaseDown
from app.log import get_logger

JOBS: Final = "darkroom_jobs"
"""Channel: a job became due, or a worker has room."""
KEYS: Final = "darkroom_keys"
"""Channel: an API key or an account changed."""
PROGRESS: Final = "darkroom_progress"
"""Channel: a job moved on or ended."""
CANCELS: Final = "darkroom_cancels"
"""Channel: somebody asked to cancel a running job."""

_SHORTEST_PAUSE: Final = 0.010
"""Seconds between two rings. Commits that notify queue up on one lock: a NOTIFY in each insert cost 31 %
of the inserts at 8 writers, so a process rings at most 100 times a second, after the commit."""

log = get_logger(__name__)


class Doorbell:
    """Rings channels from a thread of its own: `ring()` costs the caller nothing and never blocks.

    Rings while one is under way are joined into one. Start it after a fork, not before.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wanted = threading.Event()
        self._channels: set[str] = set()
        self._lock = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="doorbell", daemon=True)

    def start(self) -> None:
        """Start ringing."""
        self._thread.start()

    def ring(self, *channels: str) -> None:
        """Wake whoever listens, a few milliseconds from now at the latest; without channels on JOBS."""
        with self._lock:
            self._channels.update(channels or (JOBS,))
        self._wanted.set()

    def stop(self) -> None:
        """Ring a last time if asked to, then end the thread."""
        self._stopping = True
        self._wanted.set()
        self._thread.join(timeout=2)

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            # Before the channels are taken: what is asked for before the stop is among them.
            is_last = self._stopping
            with self._lock:
                channels, self._channels = sorted(self._channels), set()
            if channels:
                self._ring_now(channels)
            if is_last:
                return
            time.sleep(_SHORTEST_PAUSE)  # rings of the meantime go out as one

    def _ring_now(self, channels: Sequence[str]) -> None:
        statement = "; ".join(f'NOTIFY "{channel}"' for channel in channels)
        try:
            # Not through SQLAlchemy: this thread held the interpreter for 30 % of a busy web process.
            with self._database.raw() as connection:
                connection.execute(statement.encode())
        except (DatabaseDown, psycopg.Error):  # a ring may be lost; the thread must go on
            log.warning("ring_lost", channels=channels)


class Listener:
    """Calls back when a channel rings, from one thread and one connection, however many wait.

    After a lost connection every callback is called once, since a ring may have been missed.
    """

    def __init__(self, database: Database, callbacks: Mapping[str, Callable[[], None]]) -> None:
        self._database = database
        self._callbacks = dict(callbacks)
        self._stopping = threading.Event()
        self._calls: wake_up_calls | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)

    def start(self) -> None:
        """Start listening."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        with self._lock:
            if self._calls is not None:
                self._calls.interrupt()
        self._thread.join(timeout=3)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except DatabaseDown:
                self._stopping.wait(1)

    def _listen(self) -> None:
        calls = wake_up_calls(self._database, *self._callbacks)
        with calls as wait:
            self._set(calls)
            try:
                for callback in self._callbacks.values():
                    callback()
                while not self._stopping.is_set():
                    for channel in wait(timedelta(seconds=1)):
                        self._callbacks[channel]()
            finally:
                self._set(None)

    def _set(self, calls: "wake_up_calls | None") -> None:
        with self._lock:
            self._calls = calls


class wake_up_calls:  # noqa: N801 - used as a context manager, reads as a function
    """Listen on channels for as long as the context lasts; the value is a function that waits.

    `wait(timeout)` gives the set of channels that rang, empty after the timeout.

    Raises:
        DatabaseDown: on entering or while waiting; leave the context and enter a new one.
    """

    def __init__(self, database: Database, *channels: str) -> None:
        self._database = database
        self._channels = channels

    def __enter__(self) -> Callable[[timedelta], set[str]]:
        self._connection = self._database.listen_connection()
        self._interrupted, self._interrupts = os.pipe()
        try:
            with translated():
                for channel in self._channels:
                    self._connection.execute(f'LISTEN "{channel}"'.encode())
        except BaseException:
            self.__exit__()
            raise
        return self._wait

    def __exit__(self, *_exc: object) -> None:
        self._connection.close()
        os.close(self._interrupted)
        os.close(self._interrupts)

    def interrupt(self) -> None:
        """End the wait that is under way, or the next one, at once; from any thread, inside the context."""
        os.write(self._interrupts, b".")

    def _wait(self, timeout: timedelta) -> set[str]:
        with translated():
            if heard := self._heard():
                return heard
            with selectors.DefaultSelector() as selector:
                selector.register(self._connection.fileno(), selectors.EVENT_READ)
                interruption = selector.register(self._interrupted, selectors.EVENT_READ)
                ready = selector.select(timeout.total_seconds())
            if interruption in {key for key, _ in ready}:
                os.read(self._interrupted, 1)
            return self._heard()

    def _heard(self) -> set[str]:
        """Give what came until now; psycopg's own wait cannot be interrupted."""
        return {notification.channel for notification in self._connection.notifies(timeout=0)}
