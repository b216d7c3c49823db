"""The edge of a subject on a flat background: pixels that show some of both, taken apart."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from app.imaging.regions import Mask

_BESIDE: Final = 24
"""Levels that a mixed pixel may lie beside the line between the two colours: JPEG spreads colours by two
pixels, and noise adds to it."""
_PURE: Final = 0.92
"""Share of the subject from which a pixel counts as unmixed; noise alone costs some."""

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


def cut_out(
    pixels: Bytes, subject: Mask, *, ground: tuple[int, int, int], distance: Bytes, width: int
) -> Bytes:
    """Give the subject as RGBA, its edge rid of the background's colour, all else transparent black.

    Args:
        pixels: rows of RGB.
        subject: where the subject is, edges included.
        ground: the background's colour.
        distance: of each pixel from it.
        width: how many pixels from the background into the subject may be mixed.
    """
    result = np.zeros((*subject.shape, 4), np.uint8)
    result[subject, :3] = pixels[subject]
    result[subject, 3] = 255
    edge = subject & grown(~subject, width)
    behind = np.asarray(ground, np.float32)
    mixed = pixels[edge].astype(np.float32) - behind
    share = _share_of_subject(mixed, _inside(result, subject & ~edge, width + 1)[edge], behind)
    thin = np.isnan(share)
    if thin.any():
        share[thin] = (distance[edge] / np.maximum(_strongest(distance, subject, width)[edge], 1))[thin]
    share = (share / _PURE).clip(1 / 255, 1)
    own = behind + mixed / share[:, np.newaxis]
    result[edge, :3] = np.rint(own.clip(0, 255)).astype(np.uint8)
    result[edge, 3] = np.rint(share * 255).astype(np.uint8)
    return result


def grown(mask: Mask, pixels: int) -> Mask:
    """Give the mask with all that is at most this many pixels away from it, diagonals included; up to 5."""
    # A mean above 0 says that one was set; Pillow's filter for the largest takes eight times as long.
    whole = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(pixels))
    return np.asarray(whole) > 0


def _share_of_subject(mixed: Floats, inside: Bytes, ground: Floats) -> Floats:
    """Give how much of the subject each pixel of its edge shows, 0 to 1; NaN where no inside is near.

    A mixture lies on the line from the background's colour to that of the subject's inside, and its place
    there is the share. What lies beside that line is no mixture but another colour of the subject.

    Args:
        mixed: the edge's pixels, less the background's colour.
        inside: the inside near each, with alpha 0 where there is none.
        ground: the background's colour.
    """
    pure = inside[:, :3].astype(np.float32) - ground
    share: Floats = (mixed * pure).sum(axis=1) / np.maximum((pure * pure).sum(axis=1), 1)
    beside = np.abs(mixed - share[:, np.newaxis] * pure).max(axis=1)
    share[beside > _BESIDE] = 1
    share[inside[:, 3] == 0] = np.nan
    return share


def _inside(result: Bytes, inside: Mask, reach: int) -> Bytes:
    """Give for each pixel the mean colour of the inside around it, and as alpha how much of that there is."""
    alone = result.copy()
    alone[..., 3] = np.where(inside, 255, 0)
    near = Image.fromarray(alone).convert("RGBa").filter(ImageFilter.BoxBlur(reach))
    return np.asarray(near.convert("RGBA"))


def _strongest(distance: Bytes, subject: Mask, reach: int) -> Bytes:
    """Give for each pixel the largest distance from the background that any of the subject around it has."""
    alone = Image.fromarray(np.where(subject, distance, 0).astype(np.uint8))
    return np.asarray(alone.filter(ImageFilter.MaxFilter(2 * reach + 1)))
