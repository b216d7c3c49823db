"""Smooth random fields, the clay everything here is made of.

Value noise: random numbers on a lattice, enlarged with a bicubic filter, several octaves on top of each
other. Enlarging with Pillow costs a tenth of evaluating gradient noise per pixel in numpy.
"""

import math

import numpy as np
from PIL import Image

from workers.providers.sketch.colour import Field

_SPREAD = 0.43
"""Standard deviation of one octave: uniform in -1..1 (0.577), flattened by the bicubic filter."""


def enlarge(field: Field, shape: tuple[int, int]) -> Field:
    """Give the field at another size, (rows, columns): bicubic, averaging where it shrinks."""
    rows, columns = shape
    image = Image.fromarray(np.ascontiguousarray(field, np.float32))
    return np.asarray(image.resize((columns, rows), Image.Resampling.BICUBIC))


def blur(field: Field, radius: float) -> Field:
    """Give the field blurred over about `radius` pixels, nearly a Gaussian and never below its least number.

    It is averaged to a coarse grid, smoothed there by 1-2-1 three times, and enlarged again.
    """
    rows, columns = field.shape
    step = max(radius / 2, 1)
    small = (max(1, math.ceil(columns / step)), max(1, math.ceil(rows / step)))
    image = Image.fromarray(np.ascontiguousarray(field, np.float32)).resize(small, Image.Resampling.BOX)
    grid = np.pad(np.asarray(image), 3, mode="edge")
    for _ in range(3):
        grid = (grid[:-2] + 2 * grid[1:-1] + grid[2:]) / 4
        grid = (grid[:, :-2] + 2 * grid[:, 1:-1] + grid[:, 2:]) / 4
    image = Image.fromarray(np.ascontiguousarray(grid)).resize((columns, rows), Image.Resampling.BILINEAR)
    return np.asarray(image)


def noise(
    stream: np.random.Generator, shape: tuple[int, int], cells: tuple[float, float], *, octaves: int = 1
) -> Field:
    """Give clouds of mean 0 and standard deviation about 1.

    Args:
        stream: where the random numbers come from.
        shape: rows and columns of the result.
        cells: how many lumps fit into height and width, in the first octave; each further octave
            doubles them at half the strength.
        octaves: how many octaves.
    """
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        down, across = (count * 2**octave for count in cells)
        lattice = stream.random((math.ceil(down) + 3, math.ceil(across) + 3), np.float32) * 2 - 1
        box = (1.0, 1.0, 1 + max(across, 0.01), 1 + max(down, 0.01))
        rows, columns = shape
        image = Image.fromarray(lattice).resize((columns, rows), Image.Resampling.BICUBIC, box=box)
        total += np.asarray(image) * 0.5**octave
    return total / (_SPREAD * math.sqrt(sum(0.25**octave for octave in range(octaves))))


def line(
    stream: np.random.Generator, count: int, cells: float, *, octaves: int = 1, ridged: bool = False
) -> Field:
    """Give one row of `noise` with `count` numbers; ridged turns its zero crossings into sharp peaks."""
    total = np.zeros(count, np.float32)
    for octave in range(octaves):
        row = noise(stream, (1, count), (0.01, cells * 2**octave))[0]
        total += (1 - 1.6 * np.abs(row) if ridged else row) * 0.5**octave
    return total


def tile(stream: np.random.Generator, *, size: int = 256, cells: int = 4, octaves: int = 5) -> Field:
    """Give square `noise` that continues on the opposite side, for `sample`."""
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        count = cells * 2**octave
        lattice = np.pad(stream.random((count, count), np.float32) * 2 - 1, 2, mode="wrap")
        box = (2.0, 2.0, 2.0 + count, 2.0 + count)
        image = Image.fromarray(lattice).resize((size, size), Image.Resampling.BICUBIC, box=box)
        total += np.asarray(image) * 0.5**octave
    return total / (_SPREAD * math.sqrt(sum(0.25**octave for octave in range(octaves))))


def sample(texture: Field, u: Field, v: Field) -> Field:
    """Give a `tile` at columns u and rows v (in tiles, any real number), blended between its pixels."""
    size = texture.shape[0]
    across, down = np.broadcast_arrays(u * size, v * size)
    left, top = np.floor(across), np.floor(down)
    share_x, share_y = across - left, down - top
    x0, y0 = left.astype(np.int32) % size, top.astype(np.int32) % size
    x1, y1 = (x0 + 1) % size, (y0 + 1) % size
    upper = texture[y0, x0] * (1 - share_x) + texture[y0, x1] * share_x
    lower = texture[y1, x0] * (1 - share_x) + texture[y1, x1] * share_x
    blended: Field = upper * (1 - share_y) + lower * share_y
    return blended


def smooth(low: float, high: float, field: Field) -> Field:
    """Give 0 below `low`, 1 above `high` and a soft S between them (Hermite); `low` may be the larger."""
    share = np.clip((field - low) / (high - low), 0, 1)
    eased: Field = share * share * (3 - 2 * share)
    return eased


def bell(field: Field, width: float) -> Field:
    """Give 1 at 0, falling to both sides as a Gaussian of this standard deviation."""
    return np.exp(-((field / width) ** 2) / 2)
