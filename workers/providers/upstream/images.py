"""What a vendor handed over, verified: a real image, in the size that was asked for."""

import binascii
from typing import Final

from PIL import Image

from app import imaging
from app.domain.spec import JobSpec, Operation
from app.errors import (
    DarkroomError,
    ForbiddenAddress,
    InvalidFields,
    ProviderDown,
    TooLarge,
    Unreachable,
    UnsupportedMedia,
)
from app.safe_http import Guard
from workers.providers.base import Attempt, Inputs
from workers.providers.upstream.promise import CallLost, Found

_LEAST_SHARE: Final = 0.5
"""Of the pixels asked for, that an image must have to be resampled to its size."""
_ASPECT: Final = 0.02
"""By how much its proportions may differ from those asked for."""
_ROUNDING: Final = 8
"""Pixels by which sides may differ where a vendor rounds them to a multiple."""
_GONE: Final = frozenset({403, 404, 410})
_TEXT: Final = (b"data:image/", b"iVBOR", b"/9j/", b"UklGR")
"""How base64 text of an image begins: ModelsLab's `.base64` objects."""


def fetched(found: Found, guard: Guard) -> bytes:
    """Give the bytes of an image.

    Raises:
        CallLost: it is not there any more; asked again, the vendor may name another place.
        ProviderDown: it cannot be had, or lies where nobody may be sent.
    """
    if found.data is not None:
        return found.data
    try:
        data = guard.fetch(found.url or "", accept="image/*").data
    except Unreachable as error:
        if error.status in _GONE:
            raise CallLost("The provider's image is not there any more.") from error
        raise ProviderDown("The provider's image cannot be fetched.") from error
    except ForbiddenAddress as error:
        raise ProviderDown("The provider named an address for its image that may not be used.") from error
    except TooLarge as error:
        raise ProviderDown("The provider's image is too large.") from error
    return _decoded(data) if data.lstrip()[:11].startswith(_TEXT) else data


def _decoded(text: bytes) -> bytes:
    body = text.partition(b",")[2] if text.lstrip().startswith(b"data:") else text
    try:
        return binascii.a2b_base64(body)
    except binascii.Error:
        raise ProviderDown("The provider's image is no image.") from None


def verified(data: bytes, spec: JobSpec, inputs: Inputs, attempt: Attempt) -> Image.Image:
    """Give the picture, in mode RGB and exactly the size asked for; outside a mask it is the input image.

    Raises:
        ProviderDown: it is no image, broken, or of a size that has nothing to do with the one asked for.
    """
    try:
        imaging.inspect(
            data,
            field="image",
            max_pixels=imaging.MAX_PIXELS,
            max_side=imaging.MAX_SIDE,
            accepted=imaging.FORMATS,
        )
        picture = imaging.decode(data, field="image")
    except (InvalidFields, UnsupportedMedia) as error:
        raise ProviderDown("What the provider sent is no whole image.") from error
    except DarkroomError as error:
        raise ProviderDown("What the provider sent cannot be read.") from error
    picture = _sized(picture.convert("RGB"), spec, attempt)
    if spec.operation is Operation.INPAINT and inputs.image is not None and inputs.mask_image is not None:
        return imaging.composite(picture, inputs.image, inputs.mask_image)
    return picture


def _sized(picture: Image.Image, spec: JobSpec, attempt: Attempt) -> Image.Image:
    width, height = picture.size
    if (width, height) == (spec.width, spec.height):
        return picture
    off = abs(width * spec.height / (height * spec.width) - 1)
    near = max(abs(width - spec.width), abs(height - spec.height)) <= _ROUNDING
    if (off > _ASPECT and not near) or width * height < _LEAST_SHARE * spec.width * spec.height:
        raise ProviderDown(
            f"The provider drew {width} × {height} pixels where {spec.width} × {spec.height} were asked for."
        )
    attempt.warn(f"the provider drew {width} × {height} pixels, resampled to {spec.width} × {spec.height}")
    return picture.resize((spec.width, spec.height), Image.Resampling.LANCZOS)
