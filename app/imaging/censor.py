"""What stands in place of an image that may not be shown, and what marks one made with a test key."""

import math
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from app.domain.spec import CensorKind
from app.imaging.pixels import flatten

_BLOCKS: Final = 8
"""Blocks along the longer side of what is left of a picture: too few to recognise a face or a body in."""
_LEAST_BLOCK: Final = 4
"""Pixels along a block of a picture so small that `_BLOCKS` would leave it as it is."""
_WORDS: Final = (("Sensitive content",), ("Sensitive", "content"))
"""The words on one line and on two, whichever is set larger."""
_SHEET, _INK = (24, 24, 28), (235, 235, 235)
_MARGIN: Final = 0.8
"""Share of the width or height that the words may take."""
_LEAST_TYPE: Final = 6.0
"""Size of type below which no letter can be told from another."""
_STAMP: Final = "TEST"
_ALONG, _ACROSS = 6, 2
"""How often the stamp's type goes at least into the longer side of a picture, and into the shorter one."""
_LEAST_STAMP: Final = 9.0
"""Size of the stamp's type below which it cannot be read; then less than all of it is on the picture."""
_STAMP_ALPHA: Final = 120
"""Of 255: legible on any picture, and the picture stays recognisable."""
_TILT: Final = 30
"""Degrees counter-clockwise."""
_STRIPED: Final = 24
"""Pixels along the shorter side below which stripes stand for the stamp, which nobody could read."""
_STRIPE: Final = 4


def censored(image: Image.Image, kind: CensorKind) -> Image.Image:
    """Give what is shown instead, of the same size, in mode RGB: nothing of the picture can be made out.

    Of a picture of less than about 8 pixels a side one colour is left, which is all there is to hide.

    Args:
        image: in mode RGB or RGBA; not even the outline of what is transparent is kept.
        kind: `black`; `blur` and `pixelate`, which leave the rough colours; `sensitive_content_text`, those
            words on a dark sheet, without them where they would be too small to read.
    """
    match kind:
        case "black":
            return Image.new("RGB", image.size)
        case "blur":
            return _coarse(image).resize(image.size, Image.Resampling.BICUBIC)
        case "pixelate":
            return _coarse(image).resize(image.size, Image.Resampling.NEAREST)
        case "sensitive_content_text":
            return _notice(image.size)


def stamped(image: Image.Image) -> Image.Image:
    """Give the picture with TEST written across it again and again, in its own mode and size.

    One too small for letters gets stripes. On transparent parts the stamp shows as well.

    Args:
        image: in mode RGB or RGBA.
    """
    layer = _stripes(image) if min(image.size) < _STRIPED else _stamps(image.size)
    return Image.alpha_composite(image.convert("RGBA"), layer).convert(image.mode)


def _coarse(image: Image.Image) -> Image.Image:
    """Give the mean colours of a few large blocks, a pixel each."""
    block = max(max(image.size) / _BLOCKS, _LEAST_BLOCK)
    size = max(1, round(image.width / block)), max(1, round(image.height / block))
    return flatten(image).resize(size, Image.Resampling.BOX)


def _notice(size: tuple[int, int]) -> Image.Image:
    sheet = Image.new("RGB", size, _SHEET)
    draw = ImageDraw.Draw(sheet)
    type_size, text = max((_largest_type(draw, "\n".join(lines), size), "\n".join(lines)) for lines in _WORDS)
    if type_size >= _LEAST_TYPE:
        middle = size[0] / 2, size[1] / 2
        draw.text(
            middle, text, fill=_INK, font=ImageFont.load_default(type_size), anchor="mm", align="center"
        )
    return sheet


def _largest_type(draw: ImageDraw.ImageDraw, text: str, size: tuple[int, int]) -> float:
    """Give the size of type at which the text just leaves a margin."""
    tried = 100.0
    left, top, right, bottom = draw.textbbox((0, 0), text, font=ImageFont.load_default(tried))
    return tried * _MARGIN * min(size[0] / (right - left), size[1] / (bottom - top))


def _stamps(size: tuple[int, int]) -> Image.Image:
    """Give the stamp, tilted, in staggered rows on a transparent sheet."""
    stamp = _stamp(max(_LEAST_STAMP, min(max(size) / _ALONG, min(size) / _ACROSS)))
    sheet = Image.new("RGBA", size)
    for row in range(math.ceil(size[1] / stamp.height)):
        for left in range(-(row % 2) * (stamp.width // 2), size[0], stamp.width):
            sheet.paste(stamp, (left, row * stamp.height))
    return sheet


def _stamp(type_size: float) -> Image.Image:
    """Give the word as light letters with a dark rim, so that it shows on white and on black."""
    font = ImageFont.load_default(type_size)
    rim = max(1, round(type_size / 16))
    left, top, right, bottom = font.getbbox(_STAMP, stroke_width=rim, anchor="mm")
    flat = Image.new("RGBA", (round(right - left) + 2 * rim, round(bottom - top) + 2 * rim))
    ImageDraw.Draw(flat).text(
        (flat.width / 2, flat.height / 2),
        _STAMP,
        fill=(255, 255, 255, _STAMP_ALPHA),
        stroke_width=rim,
        stroke_fill=(0, 0, 0, _STAMP_ALPHA),
        font=font,
        anchor="mm",
    )
    return flat.rotate(_TILT, Image.Resampling.BICUBIC, expand=True)


def _stripes(image: Image.Image) -> Image.Image:
    """Give diagonal stripes, dark where the picture is light and light where it is dark."""
    rows, columns = np.indices((image.height, image.width))
    sheet = np.zeros((image.height, image.width, 4), np.uint8)
    sheet[..., :3] = np.where(np.asarray(image.convert("L")) < 128, 255, 0)[..., np.newaxis]  # noqa: PLR2004 - middle grey
    sheet[..., 3] = np.where((rows + columns) % _STRIPE < _STRIPE // 2, _STAMP_ALPHA, 0)
    return Image.fromarray(sheet)
