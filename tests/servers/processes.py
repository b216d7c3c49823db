"""Darkroom's own processes as real children of a test: relay, Celery workers and web.

Each dies with the test run, is ended by its pid, and can be killed, frozen and thawed with all it forked.
"""

import os
import signal
import socket
import sys
from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import SecretStr

from app.db import connect, workers
from app.local.child import Child, Program
from app.local.supervisor import http_ready
from app.settings import Settings, environment_of_child
from tests.waiting import eventually

CHECKOUT = Path(__file__).parents[2]
STARTS_WITHIN = 40.0
"""Seconds; one takes about 2, several at once on a busy machine a multiple."""


def environment(settings: Settings) -> dict[str, str]:
    """Give the environment in which a child process has exactly these settings."""
    values = {f"DARKROOM_{name.upper()}": getattr(settings, name) for name in type(settings).model_fields}
    return environment_of_child(
        **{name: _as_text(value) for name, value in values.items() if value is not None},
        PYTHONUNBUFFERED="1",
    )


def _as_text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return ",".join(value)
    return f"PT{value.total_seconds()}S" if isinstance(value, timedelta) else str(value)


class Process:
    """One child process with what it forks; it may be started again when it has ended.

    Use it from the main thread only: a child gets its death signal when the thread that started it ends.
    """

    def __init__(self, program: Program) -> None:
        self.name = program.name
        self.pid = 0
        """Of the main process, also after its end."""
        self._program = program
        self._child = Child(program)

    def __repr__(self) -> str:
        return f"{self.name} ({self.pid}, {'alive' if self.alive else 'ended'})"

    def start(self, *, ready: bool = False) -> None:
        """Start the process, and wait until it is ready if so asked."""
        self._child.spawn()
        self.pid = self._child.pid or 0
        if ready:
            within = self._program.ready_within.total_seconds()
            eventually(self._is_ready, within=within, told=self.last_words)

    def _is_ready(self) -> bool:
        assert self.alive, self.last_words()
        return self._program.ready()

    @property
    def alive(self) -> bool:
        """Whether the main process runs, frozen or not."""
        return self.exit_status() is None

    def exit_status(self) -> int | None:
        """Give how the main process ended, negative: by which signal; None while it runs."""
        return self._child.exit_status()

    def family(self) -> list[int]:
        """Give the pids of the main process and of all it forked."""
        return descendants(self.pid) if self.alive else []

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the main process alone."""
        self._child.send(number)

    def freeze(self) -> None:
        """Stop the process and all it forked, as a partition or a swapping machine does."""
        signal_all(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        signal_all(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill the main process alone with SIGKILL, and return when the kernel has ended it."""
        self._child.send(signal.SIGKILL)
        eventually(lambda: not self.alive, within=10)

    def end(self) -> None:
        """Kill the process and all it forked, and return when they are gone."""
        left = self.family()
        self._child.kill()
        eventually(lambda: not self.alive and not any(map(_runs, left)), within=10)

    def last_words(self) -> str:
        """Give the last lines of its log."""
        return self._child.last_words()


class Processes:
    """All processes of Darkroom that a test started; leaving its `with` block kills what is left.

    Use it from the main thread only, see `Process`.
    """

    def __init__(self, settings: Settings, *, logs: Path) -> None:
        self._database = connect(settings, pool_size=1, application_name="processes of a test")
        self._logs = logs
        self._started: list[Process] = []
        self._environment = environment(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._started):
            process.end()
        self._database.close()

    def relay(self) -> Process:
        """Start a relay; returns at once."""
        return self._start("relay", _darkroom("relay"))

    def worker(
        self,
        *,
        pool: Literal["prefork", "threads"] = "prefork",
        slots: int = 2,
        queue: str = "cpu",
        app: str = "workers",
    ) -> Process:
        """Start a Celery worker; returns at once, see `await_workers`."""
        argv = [
            *(sys.executable, "-m", "celery", "-A", app, "worker", "-Q", queue),
            *("-n", f"{queue}-{len(self._started)}@%h", "-P", pool, "-c", str(slots)),
            *("--without-gossip", "--without-mingle", "--loglevel=INFO"),
        ]
        return self._start(f"{pool} worker", argv)

    def web(self) -> tuple[Process, str]:
        """Start a web process, and give it and its base URL; returns at once, see `await_web`."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        return self._start("web", _darkroom("web", "--port", str(port))), url

    def await_web(self, url: str) -> None:
        """Return when the web process of this URL serves."""
        eventually(lambda: http_ready(f"{url}/readyz"), within=STARTS_WITHIN, told=self.last_words)

    def await_workers(self, *processes: Process) -> None:
        """Return when each of these workers, or its pool children, has announced itself to the relay."""
        for process in processes:
            eventually(lambda it=process: self.announced(it), within=STARTS_WITHIN, told=self.last_words)  # type: ignore[misc]  # it is bound at once

    def announced(self, worker: Process) -> list[str]:
        """Give the ids under which a worker's processes are known to the relay; fails when it has died."""
        assert worker.alive, worker.last_words()
        pids = set(worker.family())
        with self._database.autocommit() as tx:
            return [row.id for row in workers.list_workers(tx) if pid_of(row.id) in pids]

    def owner(self, worker_id: str) -> Process:
        """Give the living process that, itself or through a pool child, is the worker of this id."""
        return next(it for it in self._started if pid_of(worker_id) in it.family())

    def last_words(self) -> str:
        """Give the last lines of every process, for a failing test's message."""
        return "\n".join(f"--- {process}\n{process.last_words()}" for process in self._started)

    def _start(self, name: str, argv: list[str]) -> Process:
        program = Program(
            name=name,
            argv=argv,
            environment=self._environment,
            ready=lambda: True,
            ready_within=timedelta(seconds=STARTS_WITHIN),
            stop_within=timedelta(seconds=10),
            death_signal=signal.SIGKILL,
            log=self._logs / f"{len(self._started)}-{name.replace(' ', '-')}.log",
            cwd=CHECKOUT,
        )
        process = Process(program)
        self._started.append(process)
        process.start()
        return process


def _darkroom(*words: str) -> list[str]:
    return [sys.executable, "-c", "from app.cli import main; main()", *words]


def pid_of(worker_id: str) -> int:
    """Give the pid in a worker's id (host:pid:start)."""
    return int(worker_id.split(":")[1])


def descendants(pid: int) -> list[int]:
    """Give a pid and those of all its living children and children's children, itself first."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (parent := _parent(int(entry.name))):
            parents.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


def signal_all(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process and to everything it forked, the process first."""
    for one in descendants(pid):
        try:
            os.kill(one, number)
        except ProcessLookupError:
            continue


def _stat(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat from the third on (state, parent …); the second may contain anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _parent(pid: int) -> int | None:
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def _runs(pid: int) -> bool:
    fields = _stat(pid)
    return bool(fields) and fields[0] != "Z"
