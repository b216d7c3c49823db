"""Copies of outputs in their customers' own buckets: their names, and when a failed one is tried again."""

from datetime import timedelta
from typing import Final
from uuid import UUID

from app.domain.spec import ImageFormat

COPY_PATIENCE: Final = timedelta(days=3)
"""How long after its job completed an output's copy is tried; then we keep the image and try no more.

A wrong key or a full bucket is noticed and mended on the Monday after a weekend.
"""
_FIRST_WAIT: Final = timedelta(seconds=30)
_LONGEST_WAIT: Final = timedelta(hours=1)
_SPREAD: Final = 0.25

COPY_LEASE: Final = timedelta(minutes=3)
"""How long a copy is one process's to try: longer than a try, our own store at its slowest included."""

TEXT_EXTENSION: Final = "base64"
"""Extension of an object that holds an image as base64 text, as ModelsLab names it."""


def object_name(prefix: UUID, index: int, *, image_format: ImageFormat, as_text: bool) -> str:
    """Give the last part of an output's key and of its public link: `<32 hex digits>-<index>.<extension>`.

    It is known as soon as the job is, so that a link can be shown before there is anything behind it.

    Args:
        prefix: the job's `output_prefix`.
        as_text: whether the object is the image's base64 text.
    """
    return f"{prefix.hex}-{index}.{TEXT_EXTENSION if as_text else image_format.extension}"


def copy_wait(attempts: int, *, chance: float) -> timedelta:
    """Give how long a failed copy waits: 30 s, doubling to 1 h, stretched by up to a quarter.

    Never shorter, as a bucket that is away for minutes is the usual case; the stretch keeps copies that
    failed together from coming back together.

    Args:
        attempts: tries so far; 0 counts as 1.
        chance: a random number in [0, 1).
    """
    wait = min(_LONGEST_WAIT, _FIRST_WAIT * (1 << min(max(attempts, 1) - 1, 10)))
    return wait * (1 + chance * _SPREAD)
