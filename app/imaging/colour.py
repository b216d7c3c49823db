"""Light and colours of a picture, changed by a table per channel and one matrix over the channels."""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.domain.transform import Modulate

_LUMA: Final = (0.2126, 0.7152, 0.0722)
"""How bright red, green and blue look; Rec. ITU-R BT.709, item 3.2."""
_STOPS: Final = 50
"""Exposure that doubles the light."""

Floats = NDArray[np.float64]


def modulated(image: Image.Image, modulate: Modulate) -> Image.Image:
    """Give the picture in another light and other colours, in its own mode; its alpha is left alone.

    In this order: exposure, brightness and contrast, which no clipping separates; saturation and hue;
    lightness.

    Args:
        image: in mode RGB or RGBA.
        modulate: what is to be done; where all is zero the result equals the picture.
    """
    colours = image.convert("RGB")
    if modulate.exposure or modulate.brightness or modulate.contrast:
        colours = colours.point(_table(_lit(np.linspace(0, 1, 256), modulate)))
    if modulate.saturation or modulate.hue % 360:
        colours = colours.convert("RGB", _matrix(1 + modulate.saturation / 100, modulate.hue % 360))
    if modulate.lightness:
        colours = colours.point(_table(np.linspace(0, 1, 256) + modulate.lightness / 100))
    if image.mode == "RGBA":
        colours.putalpha(image.getchannel("A"))
    return colours


def _lit(levels: Floats, modulate: Modulate) -> Floats:
    """Give each level, from 0 for black to 1 for white, in another light; it may end outside of 0 to 1."""
    if modulate.exposure:
        levels = _encoded(_linear(levels) * 2 ** (modulate.exposure / _STOPS))
    levels = levels * (1 + modulate.brightness / 100)
    return (levels - 0.5) * (1 + modulate.contrast / 100) + 0.5


def _linear(levels: Floats) -> Floats:
    """Give the light that a level stands for; IEC 61966-2-1, as https://www.w3.org/TR/css-color-4/#color-conversion-code."""
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)  # noqa: PLR2004 - sRGB


def _encoded(light: Floats) -> Floats:
    """Undo `_linear`."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)  # noqa: PLR2004 - sRGB


def _table(levels: Floats) -> list[int]:
    """Give Pillow's lookup table for three channels."""
    table: list[int] = np.rint(levels.clip(0, 1) * 255).astype(int).tolist()
    return table * 3


def _matrix(saturation: float, hue: int) -> tuple[float, ...]:
    """Give Pillow's 4 × 3 matrix that stretches colours away from grey and turns them about it.

    Greys stay what they are. The turn keeps how bright a colour looks as long as no channel clips.
    """
    luma = np.array(_LUMA)
    grey = np.tile(luma, (3, 1))
    saturated = grey + saturation * (np.eye(3) - grey)
    angle = math.radians(hue)
    # A turn about the grey axis (Rodrigues), then sheared back so that luma does not change.
    axis = np.full(3, 1 / math.sqrt(3))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn = (
        np.eye(3) * math.cos(angle) + cross * math.sin(angle) + np.outer(axis, axis) * (1 - math.cos(angle))
    )
    turned = turn + np.tile(luma - luma @ turn, (3, 1))
    return tuple(float(value) for row in turned @ saturated for value in (*row, 0.0))
