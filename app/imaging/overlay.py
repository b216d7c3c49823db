"""Watermarks laid over a picture, once or as tiles."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from app.domain.transform import Mark, Watermark, mark_size


def marked(image: Image.Image, watermark: Watermark, watermarks: Sequence[Image.Image]) -> Image.Image:
    """Give the picture with the watermarks on it, the last one on top, in its own mode.

    Args:
        image: in mode RGB or RGBA.
        watermark: which of the watermarks lie where.
        watermarks: in mode RGB or RGBA.

    Raises:
        ValueError: one of them is missing, which is the caller's mistake.
    """
    layered = image.convert("RGBA")
    for mark in watermark.watermarks:
        if mark.image >= len(watermarks):
            raise ValueError(f"watermark {mark.image} of {len(watermarks)} is missing")
        _lay(layered, watermarks[mark.image], mark)
    return layered.convert(image.mode)


def _lay(image: Image.Image, watermark: Image.Image, mark: Mark) -> None:
    size = mark_size(mark, *watermark.size)
    tile = np.asarray(watermark.convert("RGBA").resize(size, Image.Resampling.LANCZOS))
    columns = _covered(image.width, mark.left, size[0], repeated=mark.along_x)
    rows = _covered(image.height, mark.top, size[1], repeated=mark.along_y)
    if columns and rows:
        # Rows and columns are taken from the tile again and again; a tile of one pixel costs no more.
        across = (np.array(columns) - mark.left) % size[0]
        down = (np.array(rows) - mark.top) % size[1]
        layer = Image.fromarray(tile[np.ix_(down, across)])
        image.alpha_composite(layer, (columns[0], rows[0]))


def _covered(side: int, offset: int, length: int, *, repeated: bool) -> range:
    """Give the pixels of a side that a mark of this length lies on."""
    return range(side) if repeated else range(max(0, offset), min(side, offset + length))
