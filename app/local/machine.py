"""Where the servers' programs are found on this machine: in wheels first, then installed on the system."""

import importlib.metadata
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app import settings
from app.errors import SetupError


@dataclass(frozen=True, kw_only=True)
class Found:
    """A program of a server."""

    program: Path
    wheel_version: str | None
    """Version of the wheel it came with; None: it is the system's."""


def in_wheel(distribution: str, ending: str) -> Found | None:
    """Give the installed file of this distribution whose path ends so, None without such a wheel."""
    try:
        wheel = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in wheel.files or ():
        if f"/{file}".endswith(f"/{ending}"):
            return Found(program=Path(str(file.locate())).resolve(), wheel_version=wheel.version)
    return None


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a stack takes from its machine; a test hands in a poorer one."""

    wheel: Callable[[str, str], Found | None] = in_wheel
    path: str | None = None
    """Folders to search for the system's programs, like PATH; None: PATH itself."""
    debian: Path = Path("/usr/lib/postgresql")
    """Debian keeps PostgreSQL off the PATH, in a folder per major version below this one."""
    shared: Path = Path("/var/lib/darkroom")
    """Where root puts what `nobody` must reach, when the state folder or the wheel is out of its reach."""
    given: Callable[[str], bool] = settings.is_given
    """Whether a setting comes from the environment."""

    def on_path(self, *names: str) -> Found | None:
        """Give the system's program of the first of these names that is on the PATH."""
        for name in names:
            if program := shutil.which(name, path=self.path):
                return Found(program=Path(program).resolve(), wheel_version=None)
        return None


def missing(*, server: str, looked_for: str, system: str, setting: str) -> SetupError:
    """Give the error for a server that is nowhere to be found, with each way out."""
    return SetupError(
        f"{server} was not found: {looked_for}.\n"
        "Install it with\n"
        "    pip install 'darkroom[embedded]'    (in a checkout: .venv/bin/pip install -e '.[embedded]')\n"
        f"or  {system}\n"
        f"or use a server of your own: set {setting}."
    )
