"""Transforms of `app.domain.transform`, done to pixels. Pure functions.

Pictures are in mode RGB or RGBA. Where colours of neighbouring pixels are mixed, they are weighed by their
alpha, so that the invisible colour of a transparent pixel never shows. Colour profiles play no part.
"""

from collections.abc import Sequence
from typing import assert_never

from PIL import Image, ImageFilter

from app.domain import transform as wanted
from app.imaging.background import without_background
from app.imaging.colour import modulated
from app.imaging.geometry import mirrored, resized, rotated
from app.imaging.overlay import marked


def transformed(
    image: Image.Image,
    transform: wanted.Transform,
    *,
    watermarks: Sequence[Image.Image] = (),
    keeps_alpha: bool = True,
) -> Image.Image:
    """Give what comes of the picture, of `result_size`'s size; the given one is left as it is.

    The result is in mode RGBA if the picture is, or if the transform makes parts of it transparent; else RGB.

    Args:
        image: in mode RGB or RGBA, upright, a size that `problems_with` finds no problem with.
        transform: what is to be done. Of a conversion nothing is left to do but `encode`.
        watermarks: RGB or RGBA; a mark's `image` is an index into them.
        keeps_alpha: whether the format that the result goes into holds transparency; the letterbox that
            nobody gave a colour is transparent there, and black elsewhere.

    Raises:
        InvalidFields: the background that is to be removed is not flat, or there is nothing but background.
        ValueError: another mode, or a mark's watermark is missing; both are the caller's mistakes.
    """
    if image.mode not in {"RGB", "RGBA"}:
        raise ValueError(f"mode {image.mode} is neither RGB nor RGBA")
    match transform:
        case wanted.Resize():
            result = resized(image, transform, keeps_alpha=keeps_alpha)
        case wanted.Crop():
            result = image.crop((transform.x1, transform.y1, transform.x2, transform.y2))
        case wanted.Rotate():
            result = rotated(image, transform)
        case wanted.Mirror():
            result = mirrored(image, transform)
        case wanted.Watermark():
            result = marked(image, transform, watermarks)
        case (
            wanted.Blur() | wanted.Modulate() | wanted.RemoveBackground() | wanted.Convert() | wanted.Import()
        ):
            result = _retouched(image, transform)
        case _:
            assert_never(transform)
    return result


def _retouched(
    image: Image.Image,
    transform: wanted.Blur | wanted.Modulate | wanted.RemoveBackground | wanted.Convert | wanted.Import,
) -> Image.Image:
    match transform:
        case wanted.Blur():
            return _blurred(image, transform.sigma)
        case wanted.Modulate():
            return modulated(image, transform)
        case wanted.RemoveBackground():
            return without_background(image)
        case wanted.Convert() | wanted.Import():
            return image.copy()
        case _:
            assert_never(transform)


def _blurred(image: Image.Image, sigma: float) -> Image.Image:
    """Give the picture blurred; box filters stand for the Gaussian, so that all sigmas cost the same."""
    if image.mode == "RGBA":
        return image.convert("RGBa").filter(ImageFilter.GaussianBlur(sigma)).convert("RGBA")
    return image.filter(ImageFilter.GaussianBlur(sigma))
