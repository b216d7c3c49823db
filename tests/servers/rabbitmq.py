"""RabbitMQ as a plain child process of a test run, where Debian's package is installed.

Not through /usr/sbin/rabbitmq-server, which changes the user and writes to /var, but through the launcher
below it, with a home, a cookie, a node name and ports of its own. Erlang's port mapper `epmd`, which a node
would start as a daemon that stays behind, is a child of ours as well.
"""

import os
import secrets
import shutil
import signal
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from amqp.exceptions import AMQPError
from kombu import Connection, Queue

from app.local.child import Program
from app.settings import environment_of_child
from tests.servers.processes import Process
from tests.waiting import eventually

_LAUNCHERS = "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"
_INSTALL = "apt-get install -y rabbitmq-server"
_USER = "darkroom"
_CONFIG = """\
listeners.tcp.local = 127.0.0.1:{port}
default_user = {user}
default_pass = {password}
disk_free_limit.absolute = 1MB
log.console = true
log.console.level = warning
log.file = false
"""
_STARTS_WITHIN = timedelta(seconds=90)


def why_not() -> str | None:
    """Give why RabbitMQ cannot run here, with the remedy; None when it can."""
    wanted = {"rabbitmq-server": _launcher(), "erl": shutil.which("erl"), "epmd": shutil.which("epmd")}
    missing = [name for name, found in wanted.items() if found is None]
    return f"{', '.join(missing)} not installed; install with: {_INSTALL}" if missing else None


def _launcher() -> Path | None:
    found = sorted(Path("/").glob(_LAUNCHERS.removeprefix("/")))
    return found[-1] if found else None


class RabbitMQ:
    """One node with its data in `folder`; what was confirmed outlives its process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port, distribution, mapper = _free_ports(3)
        password = secrets.token_hex(16)
        self.url = f"amqp://{_USER}:{password}@127.0.0.1:{self._port}//"
        folder.mkdir(exist_ok=True)
        (folder / "rabbitmq.conf").write_text(_CONFIG.format(port=self._port, user=_USER, password=password))
        (folder / "enabled_plugins").write_text("[].\n")
        environment = self._environment(distribution=distribution, mapper=mapper)
        epmd: list[str | Path] = [
            shutil.which("epmd") or "epmd",
            "-address",
            "127.0.0.1",
            "-port",
            str(mapper),
        ]
        self._mapper = Process(self._program("epmd", epmd, environment, ready=lambda: _listens(mapper)))
        launcher: list[str | Path] = [_launcher() or "rabbitmq-server"]
        self._node = Process(self._program("rabbitmq", launcher, environment, ready=self._answers))

    def start(self) -> None:
        """Start the node and return when it takes connections; also after `kill`."""
        if not self._mapper.alive:
            self._mapper.start(ready=True)
        self._node.start(ready=True)

    def kill(self) -> None:
        """Kill the node with SIGKILL."""
        self._node.end()

    def bring_back(self) -> None:
        """Start the node again, and return when it takes connections."""
        self.start()

    def freeze(self) -> None:
        """Stop the node's process."""
        self._node.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._node.send(signal.SIGCONT)

    def await_durable(self, queue: str) -> None:
        """Return when a queue just declared survives a kill, which takes RabbitMQ about 3 s.

        A confirmed message is on disk, yet after a kill it is found by the queue's name in this table.
        """
        tables = list((self._folder / "mnesia").glob("*/quorum/*/names.dets"))
        eventually(lambda: any(queue.encode() in table.read_bytes() for table in tables), within=10)

    def forget(self, queue: str) -> None:
        """Delete a queue with all that is in it."""
        with Connection(self.url, connect_timeout=5) as connection:
            Queue(queue)(connection.default_channel).delete()

    def end(self) -> None:
        """Kill the node and the port mapper."""
        self._node.end()
        self._mapper.end()

    def _program(
        self, name: str, argv: list[str | Path], environment: dict[str, str], *, ready: Callable[[], bool]
    ) -> Program:
        return Program(
            name=name,
            argv=argv,
            environment=environment,
            ready=ready,
            ready_within=_STARTS_WITHIN,
            stop_within=timedelta(seconds=10),
            death_signal=signal.SIGKILL,
            log=self._folder / f"{name}.log",
            cwd=self._folder,
        )

    def _environment(self, *, distribution: int, mapper: int) -> dict[str, str]:
        loopback = "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false"
        return environment_of_child(
            HOME=str(self._folder),
            ERL_EPMD_ADDRESS="127.0.0.1",
            ERL_EPMD_PORT=str(mapper),
            RABBITMQ_NODENAME=f"darkroom-{os.getpid()}-{self._port}@localhost",
            RABBITMQ_DIST_PORT=str(distribution),
            RABBITMQ_MNESIA_BASE=str(self._folder / "mnesia"),
            RABBITMQ_LOG_BASE=str(self._folder / "log"),
            RABBITMQ_CONFIG_FILE=str(self._folder / "rabbitmq"),
            RABBITMQ_CONF_ENV_FILE="/dev/null",
            RABBITMQ_ENABLED_PLUGINS_FILE=str(self._folder / "enabled_plugins"),
            RABBITMQ_PID_FILE=str(self._folder / "pid"),
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=f"-noinput {loopback}",
            # Without it the launcher stays as a shell in between, and a kill would hit only that.
            RABBITMQ_ALLOW_INPUT="1",
        )

    def _answers(self) -> bool:
        with Connection(self.url, connect_timeout=2) as connection:
            try:
                connection.connect()
            except (OSError, AMQPError):
                return False
            return True


def _listens(port: int) -> bool:
    with socket.socket() as it:
        it.settimeout(1)
        return it.connect_ex(("127.0.0.1", port)) == 0


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [it.getsockname()[1] for it in sockets]
    for it in sockets:
        it.close()
    return ports
