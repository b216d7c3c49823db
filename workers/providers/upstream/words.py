"""What the adapters share of putting a spec into words: images as files, and reading vendors' refusals."""

import base64
import io
from collections.abc import Iterable
from typing import Any, Final

from PIL import Image

_CONTENT: Final = (
    "nsfw",
    "content policy",
    "content_policy",
    "moderation",
    "safety system",
    "unsafe",
    "sensitive content",
)
"""Words by which vendors say that it is the content; not what a message about a parameter may hold."""
_ACCOUNT: Final = (
    "api key",
    "api_key",
    "apikey",
    "invalid key",
    "authenticat",
    "credits",
    "credit left",
    "recharge",
    "insufficient balance",
    "insufficient funds",
)
"""Words by which they say that it is the whole account: its key, or its credit."""
_LONGEST_WAIT: Final = 1e6
"""Seconds; no estimate is longer."""


def png(image: Image.Image) -> bytes:
    """Give an image as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def data_uri(image: Image.Image) -> str:
    """Give an image as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def is_about_content(*words: object) -> bool:
    """Whether a vendor's words say that it will not draw what is wished."""
    return _holds(words, _CONTENT)


def is_about_account(*words: object) -> bool:
    """Whether a vendor's words say that the key is not known, or that there is no credit."""
    return _holds(words, _ACCOUNT)


def _holds(words: Iterable[object], marks: Iterable[str]) -> bool:
    said = " ".join(str(word) for word in words).lower()
    return any(mark in said for mark in marks)


def sentence(message: Any) -> str:
    """Give a message that may be text, or an object of lists as web frameworks validate with."""
    if isinstance(message, dict):
        lists = (value if isinstance(value, list) else [value] for value in message.values())
        return " ".join(str(each) for one in lists for each in one)
    return str(message or "")


def text_of(value: object) -> str | None:
    """Give an id that may be text or a number; None where it is neither."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value)[:200] or None


def seconds_of(value: object, *, otherwise: float) -> float:
    """Give an estimate in seconds that may be missing or of an odd type."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LONGEST_WAIT:
        return otherwise
    return float(value)
