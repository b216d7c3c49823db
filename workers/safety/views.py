"""What a checker must look at, so that no part of an image goes unseen."""

import math
from collections.abc import Iterator
from typing import Final

from PIL import Image

from app.imaging import flatten

_SIDE: Final = 512
"""Pixels; at least what models look at, which is 224 to 512."""
_MOST: Final = 4
"""Squares of one view; bounds what a narrow strip costs, which is squeezed into them."""
_TOLERANCE: Final = 0.25
"""How much longer than wide a square may be before it is squeezed: models recognise a picture so squeezed."""


def views(image: Image.Image) -> list[Image.Image]:
    """Give the image as it shows, in mode RGB; of a transparent one also the colours beneath.

    Those are in the file, and a viewer without transparency shows them.
    """
    shown = flatten(image)
    if not image.has_transparency_data:
        return [shown]
    layered = image.convert("RGBA")
    if layered.getchannel("A").getextrema() == (255, 255):
        return [shown]
    return [shown, layered.convert("RGB")]


def squares(image: Image.Image) -> list[Image.Image]:
    """Give squares of 512 pixels a side, mode RGB, that together show everything, one to eight.

    The image processors of models cut a square out of the middle: half of a picture of 2:1 would never be
    looked at. A square picture is one square, whole; a longer one is covered by several along its side.
    """
    return [square for view in views(image) for square in _cover(view)]


def _cover(view: Image.Image) -> Iterator[Image.Image]:
    longer, shorter = max(view.size), min(view.size)
    count = min(max(1, math.ceil(longer / shorter - _TOLERANCE)), _MOST)
    length = longer if count == 1 else max(shorter, math.ceil(longer / count))
    for index in range(count):
        start = 0 if count == 1 else round(index * (longer - length) / (count - 1))
        across = (0, start, shorter, start + length)
        along = (start, 0, start + length, shorter)
        box = along if view.width >= view.height else across
        yield view.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC, box=box)
