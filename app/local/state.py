"""What a state folder remembers between runs: who uses it, its servers' ports and their secrets."""

import contextlib
import fcntl
import json
import os
import random
import secrets
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TypedDict, cast

from app.errors import SetupError

PORTS = range(20_000, 30_000)
"""Above the servers' default ports, below 32768, where Linux picks the ports of outgoing connections."""
EARLIER_SERVERS_WITHIN = timedelta(seconds=20)
"""PostgreSQL writes a checkpoint when it is stopped; on a busy disk that takes seconds."""


class Memory(TypedDict):
    """The content of `stack.json`."""

    ports: dict[str, int]
    secrets: dict[str, str]


def open_folder(state: Path) -> Path:
    """Give the absolute path of the state folder; create it, for its owner only, where it is missing.

    Root's new folder may be walked through by others (0711; every file and folder in it is closed to them),
    because PostgreSQL refuses to run as root and its data lives inside.

    Raises:
        SetupError: it cannot be created, is no folder or belongs to somebody else.
    """
    state = state.absolute()
    try:
        if not state.exists():
            state.mkdir(parents=True)
            state.chmod(0o711 if os.geteuid() == 0 else 0o700)
        owner = state.stat().st_uid
        if not os.access(state, os.R_OK | os.W_OK | os.X_OK) or not state.is_dir():
            raise SetupError(f"the state folder {state} is not a folder that we may write to; name another")
    except OSError as error:
        raise SetupError(f"the state folder {state} cannot be used: {error}; name another") from error
    if owner != os.geteuid():
        raise SetupError(
            f"the state folder {state} belongs to uid {owner} and we are uid {os.geteuid()}; "
            "run Darkroom as its owner or name another folder"
        )
    return state.resolve()


@contextlib.contextmanager
def locked(state: Path) -> Iterator[int]:
    """Hold the state folder alone; gives a file descriptor that its servers are to keep open.

    The first lock is ours and ends with us. The second is shared with the servers, so it tells when the last
    server of a stack that was killed has gone: opening two PostgreSQL on one folder would destroy it.

    Raises:
        SetupError: another stack uses the folder (the message has its pid), or servers of an earlier stack
            are still there after 20 s.
    """
    with (state / "stack.lock").open("a+") as ours, (state / "servers.lock").open("a+") as servers:
        if not _lock(ours.fileno()):
            ours.seek(0)
            raise SetupError(
                f"the state folder {state} is in use by the stack with pid {ours.read().strip()}; "
                "stop that one or name another folder"
            )
        ours.truncate(0)
        ours.write(f"{os.getpid()}\n")
        ours.flush()
        end = time.monotonic() + EARLIER_SERVERS_WITHIN.total_seconds()
        while not _lock(servers.fileno()):
            if time.monotonic() > end:
                raise SetupError(
                    f"servers of an earlier stack still run; `fuser {servers.name}` names them, end them"
                )
            time.sleep(0.02)  # flock has no timeout
        yield servers.fileno()


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def recall(state: Path) -> Memory:
    """Give what the state folder remembers, with fresh secrets where it remembers none.

    Raises:
        SetupError: `stack.json` cannot be read as what we wrote.
    """
    file = state / "stack.json"
    memory: Memory = {"ports": {}, "secrets": {}}
    try:
        memory |= cast("Memory", json.loads(file.read_text()))
    except FileNotFoundError:
        pass
    except (ValueError, TypeError) as error:
        raise SetupError(f"{file} is damaged ({error}); restore it, or start with another folder") from error
    for name in ("postgres", "valkey", "s3_access", "s3_secret", "secret_key"):
        memory["secrets"].setdefault(name, secrets.token_urlsafe(32))
    return memory


def remember(state: Path, memory: Memory) -> None:
    """Write down what `recall` shall give next time."""
    write_private(state / "stack.json", json.dumps(memory, indent=2) + "\n")


def write_private(file: Path, text: str) -> None:
    """Replace a file in one step; only its owner may read it."""
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    new.replace(file)


def settle_port(memory: Memory, name: str) -> int:
    """Give the port of a server: the one it had before, or another when somebody else listens there now.

    Raises:
        SetupError: 100 ports drawn by chance are all taken.
    """
    others = {port for other, port in memory["ports"].items() if other != name}
    drawn = (random.choice(PORTS) for _ in range(100))  # noqa: S311  # no secret
    for port in (memory["ports"].get(name), *drawn):
        if port is not None and port not in others and is_free(port):
            memory["ports"][name] = port
            return port
    raise SetupError(f"no free port was found between {PORTS.start} and {PORTS.stop} on 127.0.0.1")


def is_free(port: int) -> bool:
    """Whether a server can listen on this port of 127.0.0.1."""
    with socket.socket() as probe:
        # As servers do: connections of an earlier server that are still in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
