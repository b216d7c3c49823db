"""A program, and the child process that runs it and cannot outlive us."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>
LAST_LINES = 15
LAST_BYTES = 16 * 1024

User = tuple[int, int]
"""A uid and its gid."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """One thing to keep running: how to start it, how to tell that it serves, how to end it."""

    name: str
    argv: Sequence[str | Path]
    environment: Mapping[str, str] = field(repr=False)
    """The whole environment, not an addition to ours; `app.settings.environment_of_child` gives ours."""
    ready: Callable[[], bool]
    """Whether it answers; called every 20 ms while it starts, must return within about 2 s, never raises."""
    ready_within: timedelta
    stop_signal: signal.Signals = signal.SIGTERM
    stop_within: timedelta
    """How long it may take after `stop_signal` before its process group gets SIGKILL."""
    death_signal: signal.Signals | None = None
    """What the kernel sends it when this process dies, however it dies; None: the stop signal."""
    user: User | None = None
    """Run as this uid and gid; needs root. None: as ourselves."""
    log: Path
    """Its output is appended here."""
    cwd: Path = Path("/")
    keeps_open: tuple[int, ...] = ()
    """File descriptors it inherits, for locks that must last as long as it does."""


class Child:
    """The process of one program: at most one at a time, in a session of its own."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.is_ready = False
        self.failures = 0
        """Deaths since it last served for long enough to be trusted again."""
        self.born = 0.0
        """When the process was started, on the monotonic clock."""
        self.due: float | None = None
        """When to start it again, on the monotonic clock; None: not waiting."""
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """The process id, or None when no process runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def age(self) -> timedelta:
        """Time since the process was started."""
        return timedelta(seconds=time.monotonic() - self.born)

    def spawn(self) -> None:
        """Start the process and return at once.

        Raises:
            OSError: the program cannot be executed, the user cannot be taken on or the log not written.
        """
        self.is_ready, self.due, self.born = False, None, time.monotonic()
        self.program.log.parent.mkdir(parents=True, exist_ok=True)
        with self.program.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = spawn(
                self.program.argv,
                environment=self.program.environment,
                death_signal=self.program.death_signal or self.program.stop_signal,
                output=log.fileno(),
                user=self.program.user,
                cwd=self.program.cwd,
                keeps_open=self.program.keeps_open,
            )

    def exit_status(self) -> int | None:
        """Give how the process ended, None while it runs; negative: by which signal, 0: it never began.

        What a dead process left in its process group is ended before its pid is given back to the kernel, so
        that no stranger who gets the same number can be hit.
        """
        if self._process is None:
            return 0
        if self._process.returncode is None:
            if os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
            self.kill()
            self._process.wait()
        return self._process.returncode

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process alone; nothing happens when it has ended."""
        if self.pid is not None:  # not reaped, so the number is still its own
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL to the process group; nothing happens when it has ended."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def last_words(self) -> str:
        """Give the last lines that the latest process wrote, at most 15."""
        try:
            with self.program.log.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, end - LAST_BYTES))
                lines = log.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(lines[-LAST_LINES:])


def spawn(
    argv: Sequence[str | Path],
    *,
    environment: Mapping[str, str],
    death_signal: signal.Signals,
    output: int,
    user: User | None = None,
    cwd: Path = Path("/"),
    keeps_open: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own that gets `death_signal` when the calling thread ends.

    Raises:
        OSError: the program cannot be executed or the user cannot be taken on.
    """
    uid, gid = user or (None, None)
    return subprocess.Popen(  # noqa: S603  # argv is ours
        argv,
        env=dict(environment),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        user=uid,
        group=gid,
        extra_groups=None if user is None else [],
        pass_fds=keeps_open,
        # Runs after the change of uid, which would clear the death signal again.
        preexec_fn=_dying_with_us(death_signal),  # noqa: PLW1509  # one prepared system call, no locks
    )


def _dying_with_us(death_signal: signal.Signals) -> Callable[[], None]:
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork

    def in_child() -> None:
        prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # it died between the fork and the call above: the signal will never come
            os._exit(1)

    return in_child
