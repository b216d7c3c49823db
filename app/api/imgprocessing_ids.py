"""Ids of images as IMG Processing's clients know them: `image_` and 24 letters and digits.

Its clients check that form, so an id is the output's UUID in base 62, filled up with zeros. 128 bits need 22
digits at most; the digits are in ASCII's order, so that ids sort as their UUIDs do.
"""

import re
import string
from typing import Final
from uuid import UUID

from app.errors import UnknownOutput

PREFIX: Final = "image_"
PATTERN: Final = r"^image_[a-zA-Z0-9]{24}$"
"""The form that the vendor's own tests ask for."""
_DIGITS: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_VALUES: Final = {digit: value for value, digit in enumerate(_DIGITS)}
_LENGTH: Final = 24
_SHOWN: Final = re.compile(PREFIX + rf"([0-9A-Za-z]{{{_LENGTH}}})")
_END_OF_UUIDS: Final = 1 << 128


def image_id(output_id: UUID) -> str:
    """Give an output's id as clients see it."""
    number, digits = output_id.int, ""
    while number:
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return PREFIX + digits.zfill(_LENGTH)


def output_id(shown: str) -> UUID:
    """Give the id of the output that clients call so.

    Raises:
        UnknownOutput: no output can be called so.
    """
    found = _SHOWN.fullmatch(shown)
    number = 0
    for digit in found[1] if found else "":
        number = number * len(_DIGITS) + _VALUES[digit]
    if found is None or number >= _END_OF_UUIDS:
        raise unknown(shown)
    return UUID(int=number)


def unknown(shown: str) -> UnknownOutput:
    """Give the error for an id that names no image of the caller's."""
    return UnknownOutput(f"Image with id {shown[:60]} not found.")
