"""IMG Processing's changes of an image: what each request means in nobody's words."""

from collections.abc import Mapping
from typing import Final

from app.api.imgprocessing_models import (
    BlurRequest,
    ChangeRequest,
    ConvertRequest,
    CropRequest,
    MirrorRequest,
    ModulateRequest,
    RemoveBackgroundRequest,
    ResizeRequest,
    RotateRequest,
    WatermarkRequest,
)
from app.domain.transform import (
    Blur,
    Convert,
    Crop,
    Mark,
    Mirror,
    Modulate,
    RemoveBackground,
    Resize,
    Rotate,
    Transform,
    Watermark,
)
from app.errors import FieldProblem, InvalidFields

CHANGES: Final[Mapping[str, type[ChangeRequest]]] = {
    "resize": ResizeRequest,
    "crop": CropRequest,
    "rotate": RotateRequest,
    "mirror": MirrorRequest,
    "convert": ConvertRequest,
    "blur": BlurRequest,
    "modulate": ModulateRequest,
    "watermark": WatermarkRequest,
    "remove-background": RemoveBackgroundRequest,
}
"""The last part of each change's address, and what its body says."""
_MOST: Final = 2.0
"""Largest factor: what 100 percent more comes to."""


def transform_of(wished: ChangeRequest) -> Transform:  # noqa: PLR0911 - one line for each kind of request
    """Give the transformation that a request asks for.

    Raises:
        InvalidFields: its members contradict each other.
    """
    match wished:
        case ResizeRequest():
            return Resize(
                width=wished.width,
                height=wished.height,
                fit=wished.fit,
                position=wished.position,
                letterbox_color=wished.letterbox_color,
            )
        case CropRequest():
            return Crop(x1=wished.x1, y1=wished.y1, x2=wished.x2, y2=wished.y2)
        case RotateRequest():
            return Rotate(angle=wished.angle, unit=wished.unit, background_color=wished.background_color)
        case MirrorRequest():
            return Mirror(mode=wished.mode)
        case ConvertRequest():
            return Convert(format=wished.format, quality=wished.quality)
        case BlurRequest():
            return Blur(sigma=wished.sigma)
        case ModulateRequest():
            return _modulate(wished)
        case WatermarkRequest():
            marks = (mark.model_dump(exclude={"id"}) for mark in wished.watermarks)
            return Watermark(
                watermarks=tuple(Mark(image=number, **mark) for number, mark in enumerate(marks))
            )
        case _:
            return RemoveBackground()


def _modulate(wished: ModulateRequest) -> Modulate:
    if wished.hue is None and wished.lightness is None:
        given = wished.model_dump(exclude={"name", "hue", "lightness"}, exclude_none=True)
        return Modulate(**given)
    problems = [
        FieldProblem(field=name, message="is of the newer form; leave it out where hue or lightness is given")
        for name in ("contrast", "exposure")
        if getattr(wished, name) is not None
    ]
    problems += [
        FieldProblem(field=name, message=f"must be a factor, 0 to {_MOST:g}, where hue or lightness is given")
        for name in ("brightness", "saturation")
        if not 0 <= (1 if getattr(wished, name) is None else getattr(wished, name)) <= _MOST
    ]
    if problems:
        raise InvalidFields(*problems)
    return Modulate(
        brightness=_percent(wished.brightness),
        saturation=_percent(wished.saturation),
        hue=wished.hue or 0,
        lightness=wished.lightness or 0,
    )


def _percent(factor: float | None) -> float:
    return 0.0 if factor is None else (factor - 1) * 100
