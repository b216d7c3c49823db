"""PostgreSQL's data folder: where it lies, whose it is, made once, never opened by another version."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from app.errors import SetupError
from app.local import unprivileged
from app.local.child import User, spawn
from app.local.machine import Found, Machine

ROLE = "darkroom"
ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC", "PATH": "/usr/bin:/bin"}
"""Nothing of ours: PGDATA, PGPORT or a foreign locale would change what the server does."""
INIT_WITHIN = timedelta(seconds=120)
"""It takes 0.4 s here, and 5 s were seen on a busy machine; beyond this the disk hangs."""


@dataclass(frozen=True, kw_only=True)
class Installation:
    """Programs of PostgreSQL, where they keep the data, and as whom they run."""

    programs: Path
    home: Path
    user: User | None

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.home / "postgres"


def install(found: Found, *, state: Path, machine: Machine) -> Installation:
    """Give a place for programs and data that PostgreSQL can use as the user it will run as.

    Raises:
        SetupError: there is no user or no place for it, or the data is another version's.
    """
    user = unprivileged.user()
    programs = unprivileged.reachable_programs(found, user=user, machine=machine)
    here = Installation(
        programs=programs, home=unprivileged.home(state, user=user, machine=machine), user=user
    )
    _refuse_other_version(here)
    return here


def _refuse_other_version(here: Installation) -> None:
    try:
        theirs = (here.data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        return
    server = here.programs / "postgres"
    said = subprocess.run([server, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603  # found by us
    match = re.search(r"\(PostgreSQL\) (\d+)", said)
    ours = match[1] if match else said.strip()
    if theirs != ours:
        raise SetupError(
            f"the database in {here.data} is PostgreSQL {theirs}'s and {server} is PostgreSQL {ours}, "
            "which cannot read it. Either\n"
            f"    keep the data: start it with PostgreSQL {theirs}'s own programs, save it with pg_dumpall,\n"
            "    move the folder away, start Darkroom and load it with psql;\n"
            f"or  start empty: mv {here.data} {here.data}-{theirs}"
        )


def initialise(here: Installation, *, password: str, log: Path, keeps_open: tuple[int, ...] = ()) -> bool:
    """Make the data folder where there is none; give whether there was none.

    It is made beside its final place and moved there when complete, so an interrupted one never counts.

    Raises:
        SetupError: initdb failed or took over two minutes; the message ends with what it said.
    """
    if here.data.exists():
        return False
    new, secret = here.home / "postgres.new", here.home / "postgres.password"
    shutil.rmtree(new, ignore_errors=True)
    secret.unlink(missing_ok=True)
    new.mkdir(mode=0o700)
    try:
        # A real file: initdb cannot read a pipe that was opened before the change of uid.
        with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(f"{password}\n")
        if here.user:
            os.chown(new, *here.user)
            os.chown(secret, *here.user)
        _initdb(here, new=new, secret=secret, log=log, keeps_open=keeps_open)
    finally:
        secret.unlink(missing_ok=True)
    new.rename(here.data)
    _sync_folder(here.home)
    return True


def _initdb(here: Installation, *, new: Path, secret: Path, log: Path, keeps_open: tuple[int, ...]) -> None:
    argv: list[str | Path] = [
        here.programs / "initdb",
        "--pgdata",
        new,
        "--username",
        ROLE,
        "--pwfile",
        secret,
    ]
    argv += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--data-checksums", "--no-instructions"]
    with log.open("ab") as out:
        start = out.tell()
        process = spawn(
            argv,
            environment=ENVIRONMENT,
            death_signal=signal.SIGKILL,
            output=out.fileno(),
            user=here.user,
            keeps_open=keeps_open,
        )
    try:
        status: int | str = process.wait(INIT_WITHIN.total_seconds())
    except subprocess.TimeoutExpired:
        status = f"still at work after {INIT_WITHIN.total_seconds():g} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if status != 0:
        said = log.read_bytes()[start:].decode(errors="replace")
        raise SetupError(f"initdb failed ({status}) in {new}:\n{said}")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def forget_dead_server(here: Installation) -> None:
    """Remove the pid file of a killed server when its number now belongs to a stranger.

    PostgreSQL believes any living process of its user to be its predecessor; in a restarted container the
    pids are the same every time, so that would be our own supervisor.
    """
    file = here.data / "postmaster.pid"
    try:
        pid = int(file.read_text().split("\n", 1)[0])
        stranger = Path(f"/proc/{pid}/comm").read_text().strip() != "postgres"
    except (OSError, ValueError):  # no such file, or no such process: PostgreSQL sees that itself
        return
    if stranger:
        file.unlink()
