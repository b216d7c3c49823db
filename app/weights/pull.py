"""`darkroom models pull`: what a profile still lacks, at which commit, how large, and then its download."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from app.domain.profiles import Profile
from app.errors import SetupError
from app.weights.hub import Hub, Repository
from app.weights.needs import Need, needs

RECORD: Final = "darkroom.json"
"""File in a pulled folder that says where it is from: repository, commit, licence, files and their sizes."""
_SMALLEST: Final = 0.1
_ROOM: Final = 64 * 1024 * 1024
"""Bytes that are left free on the disk."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """Files of one repository that a profile needs.

    Attributes:
        names: all of them, those that are there too.
    """

    need: Need
    repository: Repository
    names: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return sum(self.repository.files[name] for name in self.names)

    @property
    def to_come(self) -> int:
        """Bytes that are not here yet; of a file half here the whole."""
        here = self.need.folder
        return sum(self.repository.files[name] for name in self.names if not (here / name).is_file())


def plan(profile: Profile, root: Path, hub: Hub) -> list[Load]:
    """Give what is to be downloaded for a profile; asks the hub, changes nothing.

    A folder that was pulled before stays at its commit: the models that share it were made for each other.

    Raises:
        SetupError: the hub or a repository cannot be had, or a folder of the operator's own is not complete.
    """
    loads = []
    for need in needs(profile, root):
        if not need.can_be_pulled:
            _check_own(need)
            continue
        repository = hub.look(need.source, _commit_of(need.folder) or need.revision)
        names = need.take(repository.files)
        if lacks := need.missing(names):
            raise SetupError(f"{need.source} has no {', '.join(lacks)}; profile {profile.name} needs that")
        loads.append(Load(need=need, repository=repository, names=tuple(names)))
    return loads


def _check_own(need: Need) -> None:
    if lacks := need.missing():
        raise SetupError(
            f"{need.folder} is a folder of your own, which nothing downloads; it lacks {', '.join(lacks)}"
        )


def check_room(loads: Sequence[Load], root: Path) -> int:
    """Give the free bytes of the disk that weights go to.

    Raises:
        SetupError: they are too few.
    """
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    wanted = sum(load.to_come for load in loads)
    if wanted + _ROOM > free:
        raise SetupError(
            f"{as_gigabytes(wanted)} are to come, and {there} has {as_gigabytes(free)} free; "
            "make room, or name another folder with DARKROOM_MODELS_FOLDER"
        )
    return free


def fetch(load: Load, hub: Hub) -> None:
    """Download what is not there yet, and note beside it which commit it is.

    Raises:
        SetupError: not all of it came; run again; files that are whole are kept.
    """
    try:
        load.need.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"{load.need.folder} cannot be made: {error}") from error
    hub.fetch(load.repository, load.names, load.need.folder)
    if lacks := load.need.missing():
        raise SetupError(f"{load.need.folder} still lacks {', '.join(lacks)}")
    _note(load)


def _note(load: Load) -> None:
    before = _record_of(load.need.folder)
    record = {
        "repository": load.repository.id,
        "revision": load.need.revision,
        "commit": load.repository.commit,
        "licence": load.repository.licence,
        "pulled_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": {
            **before.get("files", {}),
            **{name: load.repository.files[name] for name in load.names},
        },
    }
    new = load.need.folder / f"{RECORD}.new"
    new.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    new.replace(load.need.folder / RECORD)


def _commit_of(folder: Path) -> str | None:
    commit = _record_of(folder).get("commit")
    return commit if isinstance(commit, str) else None


def _record_of(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def as_gigabytes(size: float) -> str:
    """Give a number of bytes as people say it: 6.9 GB, or 12 MB where that is less than 0.1 GB."""
    gigabytes = size / 1e9
    return f"{gigabytes:.1f} GB" if gigabytes >= _SMALLEST else f"{gigabytes * 1000:.1f} MB"
