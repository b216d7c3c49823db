"""Pixels of input images: decoded from strangers' bytes, then cut to what a provider is promised."""

import struct
import zlib
from collections.abc import Iterable
from io import BytesIO
from typing import Final

import numpy as np
from PIL import Image, ImageOps

from app.domain.transform import MAX_RESULT_SIDE
from app.errors import FieldProblem, InvalidFields
from app.imaging.header import FORMATS, MAX_PIXELS, inspect

_PILLOW_FAULTS: Final = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    EOFError,
    NotImplementedError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What broken files make Pillow raise. A million mutated files raised the first two only; the others are
caught inside Pillow's own openers for the same reason, so its loaders may let them through one day."""
_HALF: Final = 128
"""Masks: 128 and above means change, 127 and below keep, as diffusers' mask processor rounds."""


def decode(
    data: bytes,
    *,
    field: str,
    max_pixels: int = MAX_PIXELS,
    accepted: Iterable[str] = FORMATS,
    keep_alpha: bool = False,
) -> Image.Image:
    """Give the picture as a viewer shows it: mode RGB, upright, transparency on white, no metadata at all.

    Takes sides as long as a result of ours may have, which is more than the door takes by default. 16-bit
    greys keep their upper 8 bits. An embedded colour profile is dropped, not applied: running strangers'
    profiles is not worth it (CVE-2026-59205). For files from customers and from providers alike.

    Args:
        data: the whole file; checked by `inspect` again, so a caller need not have done it.
        field: the public name of the field it came in, for the error.
        max_pixels: largest width times height.
        accepted: the formats taken, out of `FORMATS`.
        keep_alpha: give mode RGBA instead where the file has an alpha channel or a transparent colour.

    Raises:
        UnsupportedMedia: not an image of an accepted format.
        InvalidFields: too large, animated, truncated or corrupt.
    """
    header = inspect(data, field=field, max_pixels=max_pixels, max_side=MAX_RESULT_SIDE, accepted=accepted)
    try:
        with Image.open(BytesIO(data), formats=[header.format]) as opened:
            # A second IHDR or SOF may contradict the first, whose size is the one that was accepted.
            if opened.size != (header.width, header.height):
                raise ValueError("contradictory sizes")
            upright = ImageOps.exif_transpose(opened)
        if keep_alpha and upright.has_transparency_data:
            layered = upright.convert("RGBA")
            layered.info.clear()
            return layered
        return flatten(upright)
    except _PILLOW_FAULTS as fault:
        message = f"the {header.format} file is corrupt; send an image that opens in an image viewer"
        raise InvalidFields(FieldProblem(field=field, message=message)) from fault


def flatten(image: Image.Image) -> Image.Image:
    """Give a copy in mode RGB with transparent parts on white, without any metadata.

    Four channels would be taken for latents by diffusers, without an error (research: 128 x 128 in,
    1024 x 1024 garbage out).
    """
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        flat = Image.new("RGB", image.size, "white")
        flat.paste(layered, mask=layered.getchannel("A"))
        return flat
    flat = image.convert("RGB")
    flat.info.clear()
    return flat


def prepare_image(image: Image.Image, *, width: int, height: int) -> Image.Image:
    """Give the middle of the picture at exactly `width` x `height`, scaled to cover it (Lanczos)."""
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)


def prepare_mask(
    mask: Image.Image, *, image_size: tuple[int, int], width: int, height: int, from_alpha: bool = False
) -> Image.Image:
    """Give a mode L mask of only 0 (keep) and 255 (change) that lies on `prepare_image`'s result.

    Args:
        mask: as `decode` gives it; white is changed, black is kept.
        image_size: size of the decoded image it belongs to, before `prepare_image`. A mask of another size
            is stretched to it first, so that both are cropped alike.
        width: of the result, in pixels.
        height: of the result, in pixels.
        from_alpha: it marks by transparency instead: alpha 0 is changed, anything above is kept. Decode it
            with `keep_alpha`.

    Raises:
        InvalidFields: it is to mark by transparency and has none.
    """
    hard = _marked_by_alpha(mask) if from_alpha else _marked_by_white(mask)
    if hard.size != image_size:
        hard = hard.resize(image_size, Image.Resampling.NEAREST)
    return ImageOps.fit(hard, (width, height), Image.Resampling.NEAREST)


def _marked_by_white(mask: Image.Image) -> Image.Image:
    return mask.convert("L").point(lambda level: 255 if level >= _HALF else 0)


def _marked_by_alpha(mask: Image.Image) -> Image.Image:
    if mask.mode != "RGBA":
        message = "has no transparency; send a PNG whose alpha is 0 where the image is to change"
        raise InvalidFields(FieldProblem(field="mask", message=message))
    return mask.getchannel("A").point(lambda alpha: 0 if alpha else 255)


def composite(result: Image.Image, original: Image.Image, mask: Image.Image) -> Image.Image:
    """Give `result` where the mask is 255, and exactly the original's pixels where it is 0.

    All three have the same size; `result` and `original` the same mode.

    Raises:
        ValueError: the sizes or modes differ, which is the caller's mistake.
    """
    if result.mode != original.mode or result.size != original.size:
        raise ValueError(f"{result.mode} {result.size} does not lie on {original.mode} {original.size}")
    return Image.composite(result, original, mask)
