"""The sheet that every stroke paints on."""

import math

import numpy as np
from PIL import Image

from workers.providers.sketch.colour import Field
from workers.providers.sketch.field import enlarge


class Canvas:
    """An RGB picture in numbers 0.0 to 1.0, channels first, and its coordinates.

    Lengths are in units of `unit` pixels, the side of a square of the same area, so that a sun is as large
    on a postcard as on a poster. The picture is `span[0]` units high and `span[1]` wide.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.unit = math.sqrt(width * height)
        self.span = (height / self.unit, width / self.unit)
        self.rgb: Field = np.zeros((3, height, width), np.float32)
        self.x: Field = ((np.arange(width, dtype=np.float32) + 0.5) / self.unit)[None, :]
        self.y: Field = ((np.arange(height, dtype=np.float32) + 0.5) / self.unit)[:, None]

    def coarse(self, step: int) -> tuple[int, int]:
        """Give rows and columns of a field with one number per `step` pixels, for smooth things."""
        return max(1, math.ceil(self.height / step)), max(1, math.ceil(self.width / step))

    def across(self, shape: tuple[int, int]) -> Field:
        """Give the x of the columns of a coarse field, in units."""
        return ((np.arange(shape[1], dtype=np.float32) + 0.5) * (self.span[1] / shape[1]))[None, :]

    def down(self, shape: tuple[int, int]) -> Field:
        """Give the y of the rows of a coarse field, in units."""
        return ((np.arange(shape[0], dtype=np.float32) + 0.5) * (self.span[0] / shape[0]))[:, None]

    def full(self, field: Field) -> Field:
        """Give a coarse field at full size."""
        return enlarge(field, (self.height, self.width))

    def cover(self, mask: Field, colour: Field, *, top: int = 0) -> None:
        """Paint a colour (or a picture, channels first) where the mask is 1, over the rows from `top`."""
        rows = slice(top, top + mask.shape[0])
        ink = colour[:, None, None] if colour.ndim == 1 else colour
        self.rgb[:, rows] += mask * (ink - self.rgb[:, rows])

    def shine(self, light: Field, colour: Field, *, top: int = 0) -> None:
        """Add light of a colour; as on film, bright places saturate softly (screen blending)."""
        rows = slice(top, top + light.shape[0])
        self.rgb[:, rows] = 1 - (1 - self.rgb[:, rows]) * (1 - np.clip(light, 0, 1) * colour[:, None, None])

    def splat(self, x: Field, y: Field, strength: Field, *, radius: Field, colour: Field) -> None:
        """Shine many small round lights at once; positions and radii in units, strengths 0.0 to 1.0.

        Large ones are drawn on a coarser grid, where they cover a few cells only.
        """
        step = max(1, int(float(radius.max(initial=0)) * self.unit / 2))
        rows, columns = self.coarse(step)
        spread = np.maximum(radius * self.unit / step, 0.45)
        reach = math.ceil(2.5 * float(spread.max(initial=0)))
        light = np.zeros((rows + 2 * reach, columns + 2 * reach), np.float32)
        column, row = x * self.unit / step - 0.5, y * self.unit / step - 0.5
        left, top = np.rint(column).astype(np.int32), np.rint(row).astype(np.int32)
        inside = (left >= 0) & (left < columns) & (top >= 0) & (top < rows)
        for down in range(-reach, reach + 1):
            for across in range(-reach, reach + 1):
                far = (left + across - column) ** 2 + (top + down - row) ** 2
                part = strength * np.exp(-far / (2 * spread * spread))
                np.add.at(light, (top[inside] + down + reach, left[inside] + across + reach), part[inside])
        drawn = light[reach:-reach, reach:-reach]
        self.shine(drawn if step == 1 else self.full(drawn), colour)

    def picture(self) -> Image.Image:
        """Give the sheet as an RGB image."""
        levels = np.clip(self.rgb * 255 + 0.5, 0, 255).astype(np.uint8)
        return Image.fromarray(np.ascontiguousarray(np.moveaxis(levels, 0, 2)))
