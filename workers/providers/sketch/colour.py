"""Colours: from hex, and mixed as the eye mixes, in OKLab.

OKLab and its matrices: Björn Ottosson, "A perceptual color space for image processing" (2020),
https://bottosson.github.io/posts/oklab/.
"""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Field: TypeAlias = NDArray[np.floating[Any]]
"""Numbers over an area, rows first; colours have their three channels in the first axis, 0.0 to 1.0."""

_TO_LMS: Final = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_TO_LAB: Final = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


_KNEE: Final = 0.0031308
"""Linear level below which sRGB is a straight line of slope 12.92 (IEC 61966-2-1)."""


def rgb(code: str) -> Field:
    """Give the three sRGB channels, 0.0 to 1.0, of a colour like "ff8800"."""
    return np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)], np.float32) / 255


def to_lab(colour: Field) -> Field:
    """Give OKLab (lightness 0 to 1, green-red, blue-yellow) of sRGB; channels first."""
    linear = np.where(colour <= _KNEE * 12.92, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return np.tensordot(np.array(_TO_LAB), np.cbrt(np.tensordot(np.array(_TO_LMS), linear, 1)), 1)


def from_lab(lab: Field) -> Field:
    """Give sRGB of OKLab, clipped to 0.0 to 1.0; channels first."""
    lms = np.tensordot(np.linalg.inv(np.array(_TO_LAB)), lab, 1) ** 3
    linear = np.clip(np.tensordot(np.linalg.inv(np.array(_TO_LMS)), lms, 1), 0, 1)
    curved = np.where(linear <= _KNEE, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.clip(curved, 0, 1).astype(np.float32)


def mix(one: Field, other: Field, share: float) -> Field:
    """Give the colour `share` (0.0 to 1.0) of the way from one to the other."""
    return from_lab((1 - share) * to_lab(one) + share * to_lab(other))


def lighter(colour: Field, by: float) -> Field:
    """Give the colour with `by` more lightness (of 1.0) and in the same measure more chroma."""
    lab = to_lab(colour)
    return from_lab(np.array([lab[0] + by, *(lab[1:] * (1 + by))]))


def ramp(stops: Sequence[Field], *, steps: int = 512) -> Field:
    """Give 3 x `steps` colours that run evenly through the stops."""
    lab = np.stack([to_lab(stop) for stop in stops], axis=1)
    at = np.linspace(0, 1, len(stops))
    along = np.linspace(0, 1, steps)
    return from_lab(np.stack([np.interp(along, at, channel) for channel in lab]))


def look_up(colours: Field, share: Field) -> Field:
    """Give the colours of a `ramp` at shares 0.0 to 1.0 (clipped), as a picture with channels first."""
    last = colours.shape[1] - 1
    return colours[:, np.clip(share * last + 0.5, 0, last).astype(np.int32)]
