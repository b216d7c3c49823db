"""A subject cut out of a flat background: what a plain rule can do, and a refusal where it cannot.

The background is one colour with little noise, which the border of the picture shows; it is filled from
there. Where the subject's edge is mixed with it, the mixture is undone. What the subject encloses, such as
the hole of a handle, stays: whether that is background only somebody who knows the thing could say. So does
the soft shadow of a thing, unless most of what is left has such soft edges: then nothing was cut out.
"""

from dataclasses import dataclass
from typing import Final, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from app.errors import FieldProblem, InvalidFields
from app.imaging.edges import cut_out, grown
from app.imaging.regions import Mask, runs_of

_FLAT: Final = 12
"""How far a channel of a flat background may be from its median, of 255. In a JPEG of quality 75 with camera
noise of 8 levels, 95 % of the pixels keep within 7; unevenly lit walls reach 25 and more."""
_MOST_OF_THE_BORDER: Final = 0.75
"""Share of the border that must be flat. A subject may touch one side, as a portrait does the lower one."""
_NOISE: Final = 95
"""Percentile of the flat border's distances that is taken for its noise."""
_STRETCH, _SLACK = 1.5, 8
"""What is at most this many times the noise, and this many levels more, from the background belongs to it. So
a clean white one keeps apart from a white thing a little darker, and a grainy one loses its grain."""
_LEAST, _MOST = 0.05, 0.995
"""Shares of the picture that a background takes: less is a frame around it, more leaves no subject."""
_PATTERNED: Final = 1 / 8
"""Changes between background and subject per pixel of a row from which there is no telling them apart. It
also bounds the memory that filling takes: 1.1 GB at 16 megapixels without it."""
_CREVICE: Final = 3
"""Pixels that the filling goes into what is less than 3 wide. Between two colours of a subject there often is
a line of pixels that happen to have the background's colour; it shall not cut the subject in two."""
_CRUMB, _FAINT = 64, 24
"""Pixels, and levels beyond the background's reach: what is this small and this faint, next to the background
and not to anything stronger, is noise. JPEG leaves a cloud of it around edges."""
_EDGE: Final = 2
"""Pixels from the background into the subject that may be mixed with it."""
_ACROSS: Final = 4
"""Pixels from an edge to where a sharp one has reached the subject's colour."""
_MOST_OF_THE_EDGE: Final = 0.5
"""Share of the edge that may be soft, as shadows are. What shades off all around is background."""
_INVISIBLE: Final = 8
"""Alpha up to which a pixel is as good as transparent."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class _Ground:
    """The background: its colour, how noisy it is, and how far from it a pixel still belongs to it."""

    colour: tuple[int, int, int]
    noise: float

    @property
    def reach(self) -> float:
        return self.noise * _STRETCH + _SLACK


def without_background(image: Image.Image) -> Image.Image:
    """Give the picture's subject, in mode RGBA, with nothing of the background left in its transparent parts.

    One whose border is transparent already is given back as it is.

    Args:
        image: in mode RGB or RGBA.

    Raises:
        InvalidFields: the background is not flat, or nothing stands out from it.
    """
    if image.mode == "RGBA" and _is_most(_border(np.asarray(image.getchannel("A"))) <= _INVISIBLE):
        return image.copy()
    colours = image.convert("RGB")
    pixels = np.asarray(colours)
    ground = _ground(pixels)
    distance = _distance(colours, ground.colour)
    subject = _subject(np.asarray(distance), ground.reach)
    _refuse_soft(distance, subject & grown(~subject, 1), ground)
    result = Image.fromarray(
        cut_out(pixels, subject, ground=ground.colour, distance=np.asarray(distance), width=_EDGE)
    )
    if image.mode == "RGBA":
        result.putalpha(ImageChops.multiply(result.getchannel("A"), image.getchannel("A")))
    return result


def _is_most(border: Mask) -> bool:
    return bool(border.mean() >= _MOST_OF_THE_BORDER)


def _border(pixels: Bytes) -> Bytes:
    """Give the outermost pixels, one after the other."""
    return np.concatenate((pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))


def _ground(pixels: Bytes) -> _Ground:
    border = _border(pixels)
    middle = np.median(border, axis=0)
    distances = np.abs(border - middle).max(axis=1)
    flat = distances <= _FLAT
    if not _is_most(flat):
        _refuse(
            "the background is not one flat colour, and only such a one can be removed here; "
            "send a picture taken before a plain, evenly lit wall"
        )
    red, green, blue = (round(float(level)) for level in middle)
    return _Ground(colour=(red, green, blue), noise=float(np.percentile(distances[flat], _NOISE)))


def _refuse(message: str) -> NoReturn:
    raise InvalidFields(FieldProblem(field="image", message=message))


def _distance(colours: Image.Image, ground: tuple[int, int, int]) -> Image.Image:
    """Give for each pixel how far its farthest channel is from the background's, in mode L."""
    red, green, blue = ImageChops.difference(colours, Image.new("RGB", colours.size, ground)).split()
    return ImageChops.lighter(ImageChops.lighter(red, green), blue)


def _subject(distance: Bytes, reach: float) -> Mask:
    """Give where the subject is: all but what can be reached from the border, and crumbs."""
    differs = distance > reach
    if np.count_nonzero(differs[:, 1:] != differs[:, :-1]) > differs.size * _PATTERNED:
        _refuse("the picture is too finely patterned to tell its subject from the background; send another")
    subject = ~_filled(~differs)
    faint = runs_of(subject & ~grown(distance > reach + _FAINT, 1))
    subject &= ~faint.mask((faint.sizes() <= _CRUMB) & faint.meeting(grown(~subject, 1)))
    removed = 1 - float(subject.mean())
    if removed < _LEAST:
        _refuse("hardly anything of the picture is background; send one with more ground around its subject")
    if removed > _MOST:
        _refuse("nothing stands out from the background; send a picture whose subject has another colour")
    return subject


def _filled(plain: Mask) -> Mask:
    """Give what can be reached from the border through plain pixels, but not far through narrow places."""
    wide = runs_of(~grown(~plain, 1))
    reached = wide.mask(wide.at_the_border())
    for _ in range(_CREVICE):
        reached = grown(reached, 1) & plain
    return reached


def _refuse_soft(distance: Image.Image, edge: Mask, ground: _Ground) -> None:
    """Refuse what the filling left over where it merely ran out: a background that shades off has no edge."""
    blurred = np.asarray(distance.filter(ImageFilter.BoxBlur(2)))
    smooth = np.pad(blurred, _ACROSS, mode="edge").astype(np.int16)
    rows, columns = (at + _ACROSS for at in np.nonzero(edge))
    steps = ((0, 0), (0, _ACROSS), (0, -_ACROSS), (_ACROSS, 0), (-_ACROSS, 0))
    around = np.stack([smooth[rows + down, columns + across] for down, across in steps])
    soft = np.ptp(around, axis=0) < ground.noise + _SLACK
    if soft.size and soft.mean() > _MOST_OF_THE_EDGE:
        _refuse(
            "the background shades off behind the subject, and only one of a single flat colour can be "
            "removed here; send a picture with even light"
        )
