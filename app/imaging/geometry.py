"""Pictures brought into another size, cut, turned and mirrored."""

import math
from typing import Final

import numpy as np
from PIL import Image, ImageOps

from app.domain import transform as wanted
from app.domain.colours import is_opaque, rgba

_TRANSPARENT, _BLACK = "transparent", "black"
_FRAME: Final = 2
"""Pixels by which a picture's edges are continued before it is turned: what bicubic reads beyond a pixel.
What lies beside the picture is blended in afterwards, so that edges come out smooth and without ringing."""
_SHARE: Final = {"left": 0.0, "top": 0.0, "right": 1.0, "bottom": 1.0}
"""Share of the free space that lies left of or above an image at this side; half where it is at none."""


def resized(image: Image.Image, resize: wanted.Resize, *, keeps_alpha: bool) -> Image.Image:
    """Give the picture in another size; `keeps_alpha` chooses the letterbox that nobody gave a colour."""
    size = wanted.result_size(resize, *image.size)
    if resize.fit == "cover":
        return image.resize(size, Image.Resampling.LANCZOS, box=_covering(image.size, size, resize.position))
    if resize.fit == "contain":
        return _letterboxed(image, size, resize, keeps_alpha=keeps_alpha)
    return image.resize(size, Image.Resampling.LANCZOS)


def _covering(
    given: tuple[int, int], size: tuple[int, int], position: wanted.Position
) -> tuple[float, float, float, float]:
    """Give the part of the picture, of the wanted proportions, that is scaled to cover the size."""
    width = min(given[0], given[1] * size[0] / size[1])
    height = min(given[1], given[0] * size[1] / size[0])
    across, down = _shares(position)
    left, top = (given[0] - width) * across, (given[1] - height) * down
    return left, top, min(left + width, given[0]), min(top + height, given[1])


def _shares(position: wanted.Position) -> tuple[float, float]:
    """Give the shares of the free space that lie left of the image and above it."""
    sides = position.split("-")
    across = next((_SHARE[side] for side in sides if side in {"left", "right"}), 0.5)
    down = next((_SHARE[side] for side in sides if side in {"top", "bottom"}), 0.5)
    return across, down


def _letterboxed(
    image: Image.Image, size: tuple[int, int], resize: wanted.Resize, *, keeps_alpha: bool
) -> Image.Image:
    width, height = image.size
    if size[0] * height <= size[1] * width:
        inner = size[0], wanted.scaled(height, size[0], width)
    else:
        inner = wanted.scaled(width, size[1], height), size[1]
    colour = resize.letterbox_color or (_TRANSPARENT if keeps_alpha else _BLACK)
    mode = "RGB" if image.mode == "RGB" and is_opaque(colour) else "RGBA"
    canvas = Image.new(mode, size, rgba(colour)[: len(mode)])
    across, down = _shares(resize.position)
    place = int((size[0] - inner[0]) * across), int((size[1] - inner[1]) * down)
    canvas.paste(image.resize(inner, Image.Resampling.LANCZOS).convert(mode), place)
    return canvas


def rotated(image: Image.Image, rotate: wanted.Rotate) -> Image.Image:
    """Give the picture turned clockwise, on a canvas that holds all of it."""
    quarters = rotate.quarters
    if quarters is None:
        return _turned(image, rotate)
    if quarters == 0:
        return image.copy()
    # Pillow counts counter-clockwise.
    return image.transpose(
        (Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_90)[quarters - 1]
    )


def _turned(image: Image.Image, rotate: wanted.Rotate) -> Image.Image:
    size, colour = wanted.result_size(rotate, *image.size), rgba(rotate.background_color)
    given = image if is_opaque(rotate.background_color) else image.convert("RGBA")
    frame = (_FRAME, _FRAME)
    framed = Image.fromarray(np.pad(np.asarray(given), (frame, frame, (0, 0)), mode="edge"))
    area = ImageOps.expand(Image.new("L", image.size, 255), border=_FRAME)
    ground = Image.new(given.mode, size, colour[: len(given.mode)])
    if given.mode == "RGBA":
        framed, ground = framed.convert("RGBa"), ground.convert("RGBa")
    matrix = _turn(math.radians(rotate.degrees), framed.size, size)
    turned = framed.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    covered = area.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return Image.composite(turned, ground, covered).convert(given.mode)


def _turn(
    angle: float, given: tuple[int, int], size: tuple[int, int]
) -> tuple[float, float, float, float, float, float]:
    """Give the matrix that finds a turned pixel's place in the picture; both turn about their middles."""
    cosine, sine = math.cos(angle), math.sin(angle)
    across, down = size[0] / 2, size[1] / 2
    return (
        cosine,
        sine,
        given[0] / 2 - cosine * across - sine * down,
        -sine,
        cosine,
        given[1] / 2 + sine * across - cosine * down,
    )


def mirrored(image: Image.Image, mirror: wanted.Mirror) -> Image.Image:
    """Give the picture with left and right exchanged, top and bottom, or both."""
    return image.transpose(
        {
            "horizontal": Image.Transpose.FLIP_LEFT_RIGHT,
            "vertical": Image.Transpose.FLIP_TOP_BOTTOM,
            "both": Image.Transpose.ROTATE_180,
        }[mirror.mode]
    )
