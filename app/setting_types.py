"""How values of settings are written: durations, lists, folders."""

import contextlib
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic_settings import NoDecode

_DURATION = TypeAdapter(timedelta)


def _as_duration(value: object) -> object:
    """Take "90" for 90 seconds, which pydantic by itself takes for a broken ISO 8601 duration."""
    if not isinstance(value, str):
        return value
    with contextlib.suppress(ValueError, OverflowError):
        return timedelta(seconds=float(value))
    try:
        return _DURATION.validate_python(value)
    except ValidationError:
        raise ValueError("must be a number of seconds, or ISO 8601 such as PT24H") from None


def _as_entries(value: object) -> object:
    """Take "a, b" for the two entries a and b, which pydantic-settings by itself would read as JSON."""
    if isinstance(value, str):
        return tuple(entry.strip() for entry in value.split(",") if entry.strip())
    return value


def _as_folder(value: object) -> object:
    """Take a folder from here, and `~` for the home folder: other processes run elsewhere."""
    return Path(value).expanduser().absolute() if isinstance(value, str | Path) else value


Entries = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_as_entries)]
Folder = Annotated[Path, BeforeValidator(_as_folder)]
Seconds = Annotated[timedelta, Field(ge=timedelta(0)), BeforeValidator(_as_duration)]
PositiveSeconds = Annotated[timedelta, Field(gt=timedelta(0)), BeforeValidator(_as_duration)]
