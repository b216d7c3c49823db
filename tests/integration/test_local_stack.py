"""The local stack with its real servers: what survives which death, and who is refused."""

import fcntl
import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import minio
import psycopg
import pytest
import redis

from app import settings
from app.errors import SetupError
from app.local.machine import Machine
from app.local.stack import Stack
from app.local.supervisor import Happened

ALONE = Machine(given=lambda _: False)
"""Whatever the environment of the test run gives."""
SERVERS = ("postgres", "valkey", "s3")


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: pytest closes its folders to others, and root's PostgreSQL runs as `nobody`.
    folder = Path(tempfile.mkdtemp(prefix="darkroom-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    folder = Path(tempfile.mkdtemp(prefix="darkroom-test-"))
    folder.chmod(0o755)
    with Stack.open(folder / "state", machine=ALONE) as stack:
        yield stack
    shutil.rmtree(folder)


def database(stack: Stack) -> psycopg.Connection:
    return psycopg.connect(stack.environment["DARKROOM_DATABASE_URL"])


def broker(stack: Stack) -> redis.Redis:
    return redis.Redis.from_url(stack.environment["DARKROOM_BROKER_URL"])


def store(stack: Stack, *, secret_key: str | None = None) -> minio.Minio:
    return minio.Minio(
        stack.environment["DARKROOM_S3_ENDPOINT"].removeprefix("http://"),
        access_key=stack.environment["DARKROOM_S3_ACCESS_KEY"],
        secret_key=secret_key or stack.environment["DARKROOM_S3_SECRET_KEY"],
        secure=False,
        region="us-east-1",
    )


def fill(stack: Stack) -> None:
    with database(stack) as connection:
        connection.execute("CREATE TABLE kept (word text)")
        connection.execute("INSERT INTO kept VALUES ('row')")
    with broker(stack) as client:
        client.set("kept", "message")
    store(stack).make_bucket("kept")
    store(stack).put_object("kept", "a/b.png", BytesIO(b"object"), 6)


def read(stack: Stack) -> tuple[object, object, bytes]:
    with database(stack) as connection:
        row = connection.execute("SELECT word FROM kept").fetchone()
    with broker(stack) as client:
        message = client.get("kept")
    with store(stack).get_object("kept", "a/b.png") as response:
        return row, message, response.data


KEPT = (("row",), b"message", b"object")


def pids(stack: Stack) -> dict[str, int]:
    found = {name: stack.supervisor.pid(name) for name in SERVERS}
    return {name: pid for name, pid in found.items() if pid is not None}


def is_gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def holds_within(condition: Callable[[], bool], *, seconds: float = 5) -> bool:
    end, never = time.monotonic() + seconds, threading.Event()
    while not condition():
        if time.monotonic() > end:
            return False
        never.wait(0.005)
    return True


def test_the_database_is_durable_checked_and_wants_its_password(stack: Stack) -> None:
    with database(stack) as connection:
        names = ("fsync", "data_checksums", "server_encoding", "listen_addresses", "max_connections")
        values = [connection.execute(f"SHOW {name}").fetchone() for name in names]
    assert values == [("on",), ("on",), ("UTF8",), ("127.0.0.1",), ("200",)]
    url = stack.environment["DARKROOM_DATABASE_URL"]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url.replace("@", "x@"))


def test_the_broker_wants_its_password(stack: Stack) -> None:
    url = stack.environment["DARKROOM_BROKER_URL"]
    with redis.Redis.from_url(url) as client:
        assert client.ping()
    with redis.Redis.from_url(url.replace("@", "x@")) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_the_store_wants_its_secret_key(stack: Stack) -> None:
    assert store(stack).list_buckets() is not None
    # rclone's answer comes as one or the other of the client's exceptions, depending on its content type.
    with pytest.raises(minio.error.MinioException, match=r"SignatureDoesNotMatch|AccessDenied"):
        store(stack, secret_key="somebody else's").list_buckets()


def test_no_secret_is_visible_to_other_users(stack: Stack) -> None:
    secrets = json.loads((stack.state / "stack.json").read_text())["secrets"].values()
    for pid in pids(stack).values():
        arguments = Path(f"/proc/{pid}/cmdline").read_text()
        assert not [secret for secret in secrets if secret in arguments]
    assert stack.state.stat().st_mode & 0o066 == 0
    # Our password for initdb is gone, and everything that stays is closed or holds nothing.
    files = {path.name: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in stack.state.iterdir()}
    locks = {name: files.pop(name) for name in ("stack.lock", "servers.lock")}
    assert set(files.values()) == {0}, files
    assert (stack.state / "servers.lock").read_text() == ""
    assert locks


def test_the_file_tells_other_commands_where_the_servers_are(stack: Stack) -> None:
    lines = (stack.state / settings.ENV_FILE).read_text().splitlines()
    assert dict(line.split("=", 1) for line in lines if not line.startswith("#")) == stack.environment
    assert set(stack.environment) == {
        "DARKROOM_DATABASE_URL",
        "DARKROOM_BROKER_URL",
        "DARKROOM_S3_ENDPOINT",
        "DARKROOM_S3_ACCESS_KEY",
        "DARKROOM_S3_SECRET_KEY",
        "DARKROOM_S3_BUCKET",
        "DARKROOM_SECRET_KEY",
    }


def test_the_same_folder_twice_is_refused_with_the_pid_of_the_first(stack: Stack) -> None:
    with pytest.raises(SetupError, match=f"in use by the stack with pid {os.getpid()};"):
        Stack.open(stack.state, machine=ALONE)
    assert len(pids(stack)) == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's PostgreSQL runs as that user")
def test_roots_database_is_nobodys_and_stays_in_a_state_folder_that_nobody_can_reach(stack: Stack) -> None:
    owner = Path(f"/proc/{stack.supervisor.pid('postgres')}").stat().st_uid
    assert owner == (stack.state / "postgres").stat().st_uid == pwd.getpwnam("nobody").pw_uid


def test_a_second_stack_runs_beside_the_first(stack: Stack, folder: Path) -> None:
    with Stack.open(folder / "state", machine=ALONE) as other:
        fill(other)
        ours, theirs = set(stack.environment.items()), set(other.environment.items())
        assert ours & theirs == {("DARKROOM_S3_BUCKET", "darkroom")}
        with broker(stack) as client:
            assert client.get("kept") is None
        other.discard()
    assert list(folder.iterdir()) == []
    assert len(pids(stack)) == 3


def test_rows_messages_objects_and_addresses_survive_a_restart(folder: Path) -> None:
    with Stack.open(folder / "state", machine=ALONE) as first:
        fill(first)
        first_pids = pids(first)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert all(is_gone(pid) for pid in first_pids.values())
    with Stack.open(folder / "state", machine=ALONE) as second:
        assert read(second) == KEPT
        assert second.environment == first.environment


def test_killed_servers_come_back_with_what_they_held(folder: Path) -> None:
    with Stack.open(folder / "state", machine=ALONE) as stack:
        fill(stack)
        for pid in pids(stack).values():
            os.kill(pid, signal.SIGKILL)

        def restarted() -> set[str]:
            return {event.name for event in stack.events if event.what == Happened.RESTARTED}

        assert stack.supervisor.watch(until=lambda: len(restarted()) == 3, within=timedelta(seconds=30))
        assert read(stack) == KEPT
        died = [event for event in stack.events if event.what == Happened.DIED]
        assert {event.name for event in died} == set(SERVERS)
        assert all(event.detail.startswith("killed by SIGKILL") for event in died)


OPEN = """
import json, sys
from pathlib import Path
from app.local.machine import Machine
from app.local.stack import Stack

with Stack.open(Path(sys.argv[1]), machine=Machine(given=lambda name: name in sys.argv[2:])) as stack:
    pids = {name: stack.supervisor.pid(name) for name in {event.name for event in stack.events}}
    told = json.dumps({"environment": stack.environment, "pids": pids})
    stack.supervisor.run_until_stopped(announce=lambda: print(told, flush=True))
"""


def test_killing_the_whole_stack_leaves_no_process_for_five_seconds_and_loses_nothing(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OPEN, folder / "state"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        told = json.loads(process.stdout.readline())
        remote = Stack(folder=folder / "state", machine=ALONE, on_event=lambda _: None)
        remote.environment = told["environment"]
        fill(remote)
        process.kill()
    assert holds_within(lambda: all(is_gone(pid) for pid in told["pids"].values()), seconds=5)
    with Stack.open(folder / "state", machine=ALONE) as again:
        assert all(is_gone(pid) for pid in told["pids"].values())
        assert read(again) == KEPT
        assert again.environment == told["environment"]


def test_a_first_start_that_is_killed_halfway_does_not_poison_the_folder(folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OPEN, folder / "state"]) as process:
        assert holds_within((folder / "state" / "postgres.new" / "global").exists, seconds=20)
        process.kill()
    assert not (folder / "state" / "postgres").exists()
    with Stack.open(folder / "state", machine=ALONE) as stack:
        fill(stack)
        assert read(stack) == KEPT


def test_sigterm_stops_a_stack_cleanly(folder: Path) -> None:
    command: list[str | Path] = [sys.executable, "-c", OPEN, folder / "state", "database_url"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        told = json.loads(process.stdout.readline())
        process.terminate()
        assert process.wait(5) == 0
    assert [name for name, pid in told["pids"].items() if not is_gone(pid)] == []
    assert "bye bye" in (folder / "state" / "logs" / "valkey.log").read_text()


def test_a_given_setting_switches_that_server_off(stack: Stack, folder: Path) -> None:
    store_names = {f"DARKROOM_S3_{part}" for part in ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY", "BUCKET")}
    for setting, server, names in (
        ("database_url", "postgres", {"DARKROOM_DATABASE_URL"}),
        ("broker_url", "valkey", {"DARKROOM_BROKER_URL"}),
        ("s3_endpoint", "s3", store_names),
    ):
        with Stack.open(folder / "state", machine=replace(ALONE, given=setting.__eq__)) as partial:
            ready = [event.name for event in partial.events if event.what == Happened.READY]
            assert ready == [name for name in SERVERS if name != server]
            assert set(stack.environment) - set(partial.environment) == names


def test_a_port_that_somebody_else_took_is_chosen_anew(folder: Path) -> None:
    machine = Machine(given=lambda name: name in {"database_url", "s3_endpoint"})
    with Stack.open(folder / "state", machine=machine) as first:
        port = json.loads((first.state / "stack.json").read_text())["ports"]["valkey"]
    with socket.create_server(("127.0.0.1", port)), Stack.open(folder / "state", machine=machine) as second:
        assert second.environment["DARKROOM_BROKER_URL"] != first.environment["DARKROOM_BROKER_URL"]


def test_a_server_that_fails_to_start_takes_the_others_down_and_frees_the_folder(folder: Path) -> None:
    (folder / "state" / "s3").mkdir(parents=True)
    (folder / "state" / "postgres").mkdir()
    (folder / "state" / "postgres" / "PG_VERSION").write_text("14\n")
    with pytest.raises(SetupError, match=r"is PostgreSQL 14's .* PostgreSQL 18(.|\n)*pg_dumpall(.|\n)*mv "):
        Stack.open(folder / "state", machine=ALONE)
    (folder / "state" / "postgres" / "PG_VERSION").unlink()
    (folder / "state" / "postgres").rmdir()
    with Stack.open(folder / "state", machine=ALONE) as stack:
        assert len(pids(stack)) == 3


def test_a_pid_file_whose_number_belongs_to_a_stranger_does_not_stop_the_database(folder: Path) -> None:
    machine = Machine(given=lambda name: name in {"broker_url", "s3_endpoint"})
    with Stack.open(folder / "state", machine=machine):
        pass
    pid_file = folder / "state" / "postgres" / "postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n{pid_file.parent}\n0\n")
    with Stack.open(folder / "state", machine=machine) as stack, database(stack) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_folder_whose_last_servers_are_still_dying_is_waited_for(folder: Path) -> None:
    machine = Machine(given=lambda name: name in {"database_url", "s3_endpoint"})
    with Stack.open(folder / "state", machine=machine):
        pass
    # A leftover of an earlier stack: it holds the servers' lock for as long as it lives.
    with (
        (folder / "state" / "servers.lock").open() as lock,
        subprocess.Popen(["flock", "--exclusive", "--no-fork", lock.name, "sleep", "0.5"]) as leftover,
    ):
        assert holds_within(lambda: is_locked(lock.fileno()))
        with Stack.open(folder / "state", machine=machine) as stack:
            assert leftover.wait(5) == 0
            assert stack.supervisor.pid("valkey")


def is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False
