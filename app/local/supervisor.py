"""Start programs in order, keep them running, stop them in reverse order, leave nothing behind."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

import requests

from app.errors import SetupError
from app.local.child import Child, Program
from app.local.signals import Signals

__all__ = ["Event", "Happened", "Program", "Supervisor", "backoff", "http_ready"]

FIRST_PAUSE = timedelta(seconds=0.5)
LONGEST_PAUSE = timedelta(seconds=30)
TRUSTED_AFTER = timedelta(seconds=60)
"""A program that served this long starts again with the first pause."""
POLL_SECONDS = 0.02
"""Starting a stack waits on average half of it per server; one check costs about 1 ms."""
WATCH_SECONDS = 0.05


class Happened(StrEnum):
    """What an event tells."""

    PREPARED = "prepared"
    READY = "ready"
    DIED = "died"
    RESTARTED = "restarted"
    STOPPED = "stopped"
    KILLED = "killed"
    """It did not stop in time, or somebody was in a hurry."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something happened to one program; `took` is how long that was in coming (for a death: its life)."""

    name: str
    what: Happened
    took: timedelta
    detail: str = ""


def backoff(*, failures: int) -> timedelta:
    """Give the pause before the next start after that many deaths in a row: 0.5 s, 1 s, 2 s … 30 s."""
    doubled = FIRST_PAUSE * (1 << min(failures - 1, 10))
    return min(doubled, LONGEST_PAUSE)


def http_ready(url: str) -> bool:
    """Whether a GET of this URL answers with a status below 400 within a second; no proxy is asked."""
    with requests.Session() as session:
        session.trust_env = False
        try:
            return session.get(url, timeout=1).ok
        except requests.RequestException:
            return False


class Supervisor:
    """The parent of our programs.

    Use it from the main thread only: the kernel counts a child's parent as dead when the *thread* that
    started it ends. Should this process die, even by SIGKILL, each program gets its death signal from the
    kernel; programs with children of their own must see to those themselves. A supervisor that was stopped
    starts nothing more.
    """

    def __init__(self, *, on_event: Callable[[Event], None]) -> None:
        self._on_event = on_event
        self._children: list[Child] = []
        self._is_stopping = False

    def start(self, *programs: Program) -> None:
        """Start programs that do not need each other, and return when all are ready.

        From then on `watch` restarts them.

        Raises:
            SetupError: one died, was not ready in time (it is ended then) or was stopped meanwhile; the
                message ends with the last lines of its log. Also when the supervisor was stopped before.
            ValueError: a program of this name was started already.
            RuntimeError: not called from the main thread.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                "programs are started from the main thread: others may end before their children"
            )
        children = [self._admit(program) for program in programs]
        for child in children:
            with self._ending(child):
                self._spawn(child)
        waiting = children
        while waiting:
            for child in waiting:
                with self._ending(child):
                    self._look_whether_ready(child)
            waiting = [child for child in waiting if not child.is_ready]
            time.sleep(POLL_SECONDS if waiting else 0)  # a port that opens rings no bell

    def watch(self, *, until: Callable[[], bool], within: timedelta | None = None) -> bool:
        """Restart what dies until `until()` is true; give whether that came before `within` was over.

        A dead program is started again after a pause that doubles from 0.5 s to 30 s, and so is one that is
        not ready in time after its restart. Each death and each successful restart is an event.
        """
        end = None if within is None else time.monotonic() + within.total_seconds()
        while not until():
            if end is not None and time.monotonic() >= end:
                return False
            for child in tuple(self._children):
                self._look_after(child)
            time.sleep(WATCH_SECONDS)  # it has several children and conditions to look at
        return True

    def run_until_stopped(self, *, announce: Callable[[], None] = lambda: None) -> None:
        """Restart what dies until SIGINT or SIGTERM arrives, or `stop` was called; stops nothing itself.

        Args:
            announce: called first, when a signal already counts: whoever reads that we run may stop us.
        """
        with Signals() as signals:
            announce()
            self.watch(until=lambda: signals.seen or self._is_stopping)

    def stop(self) -> None:
        """Stop all programs, the latest first; calling it again, or in the middle of a start, is harmless.

        SIGINT or SIGTERM during the stop means hurry: what is left gets SIGKILL at once.
        """
        self._is_stopping = True
        with Signals() as signals:
            while self._children:
                self._end(self._children[-1], signals=signals)

    def pid(self, name: str) -> int | None:
        """Give the pid of a program, None while it waits for its restart.

        Raises:
            KeyError: no program of this name was started, or it was stopped.
        """
        return {child.program.name: child.pid for child in self._children}[name]

    def _admit(self, program: Program) -> Child:
        if any(child.program.name == program.name for child in self._children):
            raise ValueError(f"{program.name} was started already")
        child = Child(program)
        self._children.append(child)  # before it runs, so that an interrupted start is stopped like any other
        return child

    @contextlib.contextmanager
    def _ending(self, child: Child) -> Iterator[None]:
        """End a child whose start goes wrong inside, and say so as a SetupError."""
        try:
            yield
        except (SetupError, OSError) as error:
            self._end(child, hurry=True)
            if isinstance(error, SetupError):
                raise
            raise SetupError(f"{child.program.name} could not be started: {error}") from error

    def _spawn(self, child: Child) -> None:
        if not self._is_stopping:
            child.spawn()
        if self._is_stopping:  # possibly by a signal handler while the process was being made
            child.kill()
            raise SetupError(f"{child.program.name} was stopped while it was starting")

    def _look_whether_ready(self, child: Child) -> None:
        name = child.program.name
        if child.program.ready():
            self._declare_ready(child, Happened.READY)
            return
        if self._is_stopping:
            raise SetupError(f"{name} was stopped while it was starting")
        status = child.exit_status()
        if status is not None:
            raise SetupError(f"{name} ended while starting ({_fate(status)}):\n{child.last_words()}")
        if child.age > child.program.ready_within:
            seconds = child.program.ready_within.total_seconds()
            raise SetupError(f"{name} was not ready after {seconds:g} s:\n{child.last_words()}")

    def _declare_ready(self, child: Child, what: Happened) -> None:
        child.is_ready = True
        self._tell(child, what, took=child.age)

    def _look_after(self, child: Child) -> None:
        if child.due is not None:
            if time.monotonic() >= child.due:
                self._restart(child)
            return
        status = child.exit_status()
        if status is not None:
            self._tell(child, Happened.DIED, took=child.age, detail=_why(status, child))
            self._schedule_restart(child)
        elif not child.is_ready:
            if child.program.ready():
                self._declare_ready(child, Happened.RESTARTED)
            elif child.age > child.program.ready_within:
                child.kill()

    def _restart(self, child: Child) -> None:
        try:
            self._spawn(child)
        except SetupError:  # stopped meanwhile
            return
        except OSError as error:  # such as no memory for a fork: may pass
            self._tell(child, Happened.DIED, took=timedelta(0), detail=f"could not be started: {error}")
            self._schedule_restart(child)

    def _schedule_restart(self, child: Child) -> None:
        child.failures = 1 if child.is_ready and child.age > TRUSTED_AFTER else child.failures + 1
        child.due = time.monotonic() + backoff(failures=child.failures).total_seconds()

    def _end(self, child: Child, *, signals: Signals | None = None, hurry: bool = False) -> None:
        began = time.monotonic()
        was_running = child.exit_status() is None
        what = Happened.STOPPED
        if was_running:
            child.send(child.program.stop_signal)
        while child.exit_status() is None:
            overdue = time.monotonic() - began > child.program.stop_within.total_seconds()
            if hurry or overdue or (signals and signals.seen):
                child.kill()
                what = Happened.KILLED
            time.sleep(POLL_SECONDS / 2)  # a second Ctrl-C is heard in between
        with contextlib.suppress(ValueError):  # a stop from a signal handler was faster
            self._children.remove(child)
        if was_running:
            self._tell(child, what, took=timedelta(seconds=time.monotonic() - began))

    def _tell(self, child: Child, what: Happened, *, took: timedelta, detail: str = "") -> None:
        self._on_event(Event(name=child.program.name, what=what, took=took, detail=detail))


def _why(status: int, child: Child) -> str:
    """How it ended, and its last words, but for SIGKILL: what it said before has nothing to do with that."""
    return _fate(status) if status == -signal.SIGKILL else f"{_fate(status)}\n{child.last_words()}"


def _fate(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
