"""The programs under test: children that cannot outlive us, with what they cost in CPU and memory."""

import contextlib
import http.client
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from app.errors import SetupError
from app.local.child import Child, Program

ROOT: Final = Path(__file__).resolve().parent.parent
PYTHON: Final = sys.executable
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_READY_WITHIN: Final = timedelta(seconds=60)
_STOP_WITHIN: Final = timedelta(seconds=15)


class Running:
    """One started program; leaving its `with` block ends it and everything it started."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        ready: Callable[[], bool],
    ) -> None:
        self.name = name
        self._child = Child(
            Program(
                name=name,
                argv=argv,
                environment=environment,
                ready=ready,
                ready_within=_READY_WITHIN,
                stop_within=_STOP_WITHIN,
                death_signal=signal.SIGKILL,
                log=log,
                cwd=ROOT,
            )
        )

    def __enter__(self) -> Self:
        self._child.spawn()
        try:
            self._await_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.send(signal.SIGTERM)
        if not wait_until(lambda: self.has_ended, within=_STOP_WITHIN):
            self.kill()

    @property
    def pid(self) -> int:
        """The process id.

        Raises:
            SetupError: it has ended.
        """
        if self._child.pid is None:
            raise SetupError(f"{self.name} has ended:\n{self._child.last_words()}")
        return self._child.pid

    @property
    def has_ended(self) -> bool:
        """Whether the program itself has ended."""
        return self._child.exit_status() is not None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the program itself, not to its children."""
        self._child.send(number)

    def kill(self) -> None:
        """End it and its process group at once, and wait for that."""
        self._child.kill()
        wait_until(lambda: self.has_ended, within=_STOP_WITHIN)

    def tree(self) -> list[int]:
        """Give the pids of the program and all its descendants."""
        return tree(self.pid)

    def cpu(self) -> float:
        """Give the CPU seconds it and its descendants have used, those that ended included."""
        return tree_cpu(self.pid)

    def memory(self) -> int:
        """Give the resident bytes of it and its descendants; shared pages count in each."""
        return sum(_resident(pid) for pid in self.tree())

    def _await_ready(self) -> None:
        program = self._child.program
        if not wait_until(lambda: self.has_ended or program.ready(), within=_READY_WITHIN) or self.has_ended:
            raise SetupError(f"{self.name} did not start:\n{self._child.last_words()}")


def wait_until(condition: Callable[[], bool], *, within: timedelta, every: float = 0.02) -> bool:
    """Give whether the condition came true in time."""
    end = time.monotonic() + within.total_seconds()
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(every)  # any condition; few of them ring a bell
    return True


def free_port() -> int:
    """Give a port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Whether an HTTP server on this port of the loopback address answers, whatever it says."""
    # A server may listen long before its application is loaded.
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/")
        connection.getresponse().read()
    except OSError:
        return False
    finally:
        connection.close()
    return True


def tree(pid: int) -> list[int]:
    """Give a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for found, fields in _all_stats():
        children.setdefault(int(fields[1]), []).append(found)
    members = [pid]
    for member in members:
        members.extend(children.get(member, ()))
    return members


def tree_cpu(pid: int) -> float:
    """Give the CPU seconds of a process and all its descendants, those that ended included."""
    return sum(_cpu(member) for member in tree(pid))


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that waits for its parent to look is dead."""
    fields = _stat(pid)
    return fields is not None and fields[0] != "Z"


def _all_stats() -> Iterator[tuple[int, list[str]]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))) is not None:
            yield int(folder.name), fields


def _stat(pid: int) -> list[str] | None:
    """Give the fields of /proc/<pid>/stat from the state on; None when there is no such process."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return None


def _cpu(pid: int) -> float:
    # utime, stime and those of waited-for children: fields 14 to 17 of proc(5), the state being field 3.
    fields = _stat(pid)
    return 0.0 if fields is None else sum(int(ticks) for ticks in fields[11:15]) / _TICKS


def _resident(pid: int) -> int:
    fields = _stat(pid)
    return 0 if fields is None else int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
