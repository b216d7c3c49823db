"""Real S3 servers on loopback for one test run: that of the local stack, and a stricter one."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

from app.errors import DarkroomError
from app.local import s3
from app.local.child import Program, spawn
from app.local.machine import Machine
from app.local.state import settle_port
from app.settings import Settings, environment_of_child
from app.storage import open_store
from tests.waiting import eventually

SECRET_KEY = "secret-of-a-test-run"


class Server:
    """One server process; what it stores outlives it, so it can be killed and started again at will."""

    def __init__(self, program: Program, settings: Settings, *, many: int) -> None:
        self.settings = settings
        self.many = many
        """A number of keys above its page of a listing, that it handles in about a second."""
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and return when it answers a signed request."""
        self._program.log.parent.mkdir(exist_ok=True)
        with self._program.log.open("ab") as log:
            self._process = spawn(
                self._program.argv,
                environment=self._program.environment,
                death_signal=signal.SIGKILL,
                output=log.fileno(),
                cwd=self._program.cwd,
            )
        deadline = time.monotonic() + self._program.ready_within.total_seconds()
        while not self._program.ready():
            assert time.monotonic() < deadline, self._program.log.read_text()
            assert not self._ends_within(0.02), self._program.log.read_text()

    def send(self, number: signal.Signals) -> None:
        """Send a signal; returns at once, but when it is to stop: then when its last thread stands still."""
        assert self._process
        self._process.send_signal(number)
        if number == signal.SIGSTOP:
            threads = Path(f"/proc/{self._process.pid}/task")
            eventually(lambda: all(_stands_still(thread) for thread in threads.iterdir()), within=5)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the process with this signal, and return when it is gone."""
        self.send(number)
        if not self._ends_within(5):
            self.send(signal.SIGKILL)
            assert self._ends_within(5)

    def _ends_within(self, seconds: float) -> bool:
        assert self._process
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


def _stands_still(thread: Path) -> bool:
    # The name in brackets may hold anything.
    return (thread / "stat").read_text().rpartition(")")[2].split()[0] == "T"


def rclone(state: Path) -> Server:
    """Give the server of the local stack, not yet started."""
    port = _free_port()
    found = s3.find(Machine())
    program = s3.program(server=found, state=state, port=port, access_key="rclone", secret_key=SECRET_KEY)
    return Server(program, _settings(port, access_key="rclone"), many=1500)


def swift(state: Path) -> Server:
    """Give OpenStack Swift in one process, not yet started."""
    port = _free_port()
    settings = _settings(port, access_key="account:user")
    program = Program(
        name="swift",
        # Not as a file: its folder would come first on the path, and it would import itself as `swift`.
        argv=[
            *(sys.executable, "-W", "ignore", "-m", "tests.servers.swift"),
            *(state, str(port), "account:user", SECRET_KEY),
        ],
        environment=environment_of_child(),
        ready=lambda: _answers(settings, port),
        ready_within=timedelta(seconds=30),
        stop_within=timedelta(seconds=5),
        log=state / "swift.log",
        cwd=Path(__file__).parents[2],
    )
    return Server(program, settings, many=150)


def why_not_swift(state: Path) -> str | None:
    """Give why Swift cannot run with its files in this folder, None when it can."""
    if importlib.util.find_spec("swift") is None:
        return "the wheel `swift` of the test extra is not installed"
    try:
        os.setxattr(state, "user.darkroom", b"1")
    except OSError as error:
        return f"no user xattrs ({error.strerror}) where temporary files lie; Swift keeps metadata in them"
    return None


def _free_port() -> int:
    return settle_port({"ports": {}, "secrets": {}}, "s3")


def _answers(settings: Settings, port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        open_store(settings, read_timeout=timedelta(seconds=2)).exists("readiness")
    except OSError:
        return False
    except DarkroomError as error:
        # A server that misses the bucket has checked our signature.
        return "has no bucket" in error.message
    return True


def _settings(port: int, *, access_key: str) -> Settings:
    return Settings(
        database_url="postgresql://unused",
        broker_url="redis://unused",
        s3_endpoint=s3.endpoint(port=port),
        s3_public_endpoint=s3.endpoint(port=port),
        s3_access_key=access_key,
        s3_secret_key=SECRET_KEY,
        secret_key="x" * 32,
    )
