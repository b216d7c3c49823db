"""What comes of a transform, and what only the image it is done to can tell against it."""

import math
from collections.abc import Iterator, Sequence
from typing import Final, assert_never

from app.domain.colours import is_opaque
from app.domain.formats import ImageFormat
from app.domain.transform.kinds import (
    MAX_RESULT_SIDE,
    Blur,
    Convert,
    Crop,
    Import,
    Mark,
    Mirror,
    Modulate,
    RemoveBackground,
    Resize,
    Rotate,
    Transform,
    Watermark,
)
from app.errors import FieldProblem

MAX_RESULT_PIXELS: Final = 4096 * 4096
"""Most pixels of a result: what an input may have at most, so that every result can be changed again."""
_ROUNDING: Final = 1e-6
"""Pixels that a computed side may exceed a whole number by for no other reason than binary fractions."""


def result_size(transform: Transform, width: int, height: int) -> tuple[int, int]:
    """Give width and height of what comes of an image of this size, if `problems_with` finds no problem."""
    match transform:
        case Resize():
            return _resized(transform, width, height)
        case Crop():
            return transform.x2 - transform.x1, transform.y2 - transform.y1
        case Rotate():
            return _rotated(transform, width, height)
        case Mirror() | Convert() | Blur() | Modulate() | Watermark() | RemoveBackground() | Import():
            return width, height
        case _:
            assert_never(transform)


def result_format(transform: Transform, source: ImageFormat) -> ImageFormat:
    """Give the format of what comes of an image of this one: the same, unless the transform says another."""
    match transform:
        case Convert():
            return ImageFormat(transform.format)
        case RemoveBackground():
            return ImageFormat.PNG
        case _:
            return source


def problems_with(
    transform: Transform,
    width: int,
    height: int,
    source: ImageFormat,
    *,
    watermarks: Sequence[tuple[int, int]] = (),
) -> list[FieldProblem]:
    """Give what cannot be done to this image, under the names of the transform's members; none: all is well.

    Args:
        width: of the image as it is shown, in pixels.
        height: the same.
        source: its format.
        watermarks: width and height of each given watermark; left out, only the worker sees that one is
            stretched too far.
    """
    match transform:
        case Resize():
            return [*_resize_problems(transform, width, height), *_letterbox_problems(transform, source)]
        case Crop():
            return list(_crop_problems(transform, width, height))
        case Rotate():
            return list(_rotate_problems(transform, width, height, source))
        case Watermark():
            return [
                FieldProblem(field=f"watermarks.{index}.{member}", message=message)
                for index, mark in enumerate(transform.watermarks)
                for member, message in _mark_problems(mark, width, height, watermarks)
            ]
        case _:
            return []


def mark_size(mark: Mark, width: int, height: int) -> tuple[int, int]:
    """Give the size that a watermark of this size is laid on with."""
    return mark.width or width, mark.height or height


def _resized(resize: Resize, width: int, height: int) -> tuple[int, int]:
    if resize.width is not None:
        return resize.width, resize.height or scaled(height, resize.width, width)
    if resize.height is not None:
        return scaled(width, resize.height, height), resize.height
    return width, height


def scaled(side: int, numerator: int, denominator: int) -> int:
    """Give side × numerator / denominator, rounded, at least 1."""
    return max(1, (2 * side * numerator + denominator) // (2 * denominator))


def _rotated(rotate: Rotate, width: int, height: int) -> tuple[int, int]:
    if rotate.quarters is not None:
        return (height, width) if rotate.quarters % 2 else (width, height)
    turn = math.radians(rotate.degrees)
    cosine, sine = abs(math.cos(turn)), abs(math.sin(turn))
    return (
        math.ceil(width * cosine + height * sine - _ROUNDING),
        math.ceil(width * sine + height * cosine - _ROUNDING),
    )


def _excess(width: int, height: int) -> str | None:
    """Why a result cannot be as large as this, as the end of a sentence; None where it can."""
    if max(width, height) > MAX_RESULT_SIDE:
        return f"{width:,} x {height:,} pixels, and no side may be over {MAX_RESULT_SIDE:,}"
    if width * height > MAX_RESULT_PIXELS:
        return (
            f"{width:,} x {height:,}, which is {width * height:,} pixels, "
            f"and at most {MAX_RESULT_PIXELS:,} are possible"
        )
    return None


def _resize_problems(resize: Resize, width: int, height: int) -> Iterator[FieldProblem]:
    if excess := _excess(*_resized(resize, width, height)):
        field = "height" if resize.width is None else "width"
        yield FieldProblem(field=field, message=f"would make the image {excess}; name a smaller size")


def _letterbox_problems(resize: Resize, source: ImageFormat) -> Iterator[FieldProblem]:
    colour = resize.letterbox_color
    if resize.fit == "contain" and colour and not is_opaque(colour) and not source.has_alpha:
        yield FieldProblem(field="letterbox_color", message=_no_alpha(source))


def _no_alpha(source: ImageFormat) -> str:
    return (
        f"must be an opaque colour, as a {source.value} image holds no transparency; "
        "name one, or convert the image to png or webp first"
    )


def _crop_problems(crop: Crop, width: int, height: int) -> Iterator[FieldProblem]:
    for axis, first, last, side, name in (
        ("x", crop.x1, crop.x2, width, "width"),
        ("y", crop.y1, crop.y2, height, "height"),
    ):
        if first >= side:
            message = f"must be below {side:,}, the image's {name}, not {first:,}"
            yield FieldProblem(field=f"{axis}1", message=message)
        elif last > side:
            message = f"must be at most {side:,}, the image's {name}, not {last:,}"
            yield FieldProblem(field=f"{axis}2", message=message)
        elif last <= first:
            message = f"must be above {axis}1, which is {first:,}, not {last:,}; the part would be empty"
            yield FieldProblem(field=f"{axis}2", message=message)


def _rotate_problems(rotate: Rotate, width: int, height: int, source: ImageFormat) -> Iterator[FieldProblem]:
    if rotate.quarters is not None:
        return
    if excess := _excess(*_rotated(rotate, width, height)):
        remedy = "resize the image first, or turn it by a multiple of 90 degrees"
        yield FieldProblem(field="angle", message=f"would make the image {excess}; {remedy}")
    if not is_opaque(rotate.background_color) and not source.has_alpha:
        yield FieldProblem(field="background_color", message=_no_alpha(source))


def _mark_problems(
    mark: Mark, width: int, height: int, watermarks: Sequence[tuple[int, int]]
) -> Iterator[tuple[str, str]]:
    size: tuple[int | None, int | None] = mark.width, mark.height
    if mark.image < len(watermarks):
        size = stretched = mark_size(mark, *watermarks[mark.image])
        if excess := _excess(*stretched):
            yield "width", f"would make the watermark {excess}; name a smaller width and height"
    for member, offset, length, side, repeated, name in (
        ("left", mark.left, size[0], width, mark.along_x, "width"),
        ("top", mark.top, size[1], height, mark.along_y, "height"),
    ):
        if repeated:
            continue
        if offset >= side:
            yield member, f"must be below {side:,}, the image's {name}, not {offset:,}"
        elif length is not None and offset + length <= 0:
            yield member, f"must be above {-length:,}, or nothing of the watermark is on the image"
