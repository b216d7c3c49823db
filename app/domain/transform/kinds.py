"""What may be done to a given image without a model.

Names, bounds and defaults of the members are those of the IMG Processing API, so that its dialect can hand
them over as they come. Where that API leaves something open, the class says what we take it for.
"""

import math
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.domain.colours import Colour

MAX_RESULT_SIDE: Final = 10_000
"""Longest side of a result in pixels: the API's own limit for resize."""
MAX_WATERMARKS: Final = 5
_QUARTER: Final = 90
_NEARLY: Final = 0.001
"""Degrees within which an angle means a quarter turn. A client's 3.1416 is half a turn off by 0.0004 degrees;
0.001 moves the outermost pixel of the largest image by less than a tenth of a pixel."""

Side = Annotated[int, Field(ge=1, le=MAX_RESULT_SIDE)]
Offset = Annotated[int, Field(ge=-MAX_RESULT_SIDE, le=MAX_RESULT_SIDE)]
Coordinate = Annotated[int, Field(ge=0, le=MAX_RESULT_SIDE)]
Percent = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
Quality = Annotated[int, Field(ge=1, le=100)]
Position = Literal[
    "center", "top", "right", "bottom", "left", "top-left", "top-right", "bottom-left", "bottom-right"
]
FormatName = Annotated[
    Literal["jpeg", "png", "webp", "jpg"], AfterValidator(lambda name: "jpeg" if name == "jpg" else name)
]


class _Transform(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Resize(_Transform):
    """Another size; a side that is not named follows from the other, or stays if neither is named.

    Attributes:
        width: of the result, pixels.
        height: of the result, pixels.
        fit: `fill` stretches, `contain` shows all of the image on a letterbox, `cover` fills the size and
            cuts what is over. All three are one where a side is not named.
        position: where the image lies on the letterbox, or which part of it `cover` keeps.
        letterbox_color: None means transparent, and black in a format without transparency. Transparent
            parts of the image itself stay transparent.
    """

    operation: Literal["resize"] = "resize"
    width: Side | None = None
    height: Side | None = None
    fit: Literal["fill", "contain", "cover"] = "fill"
    position: Position = "center"
    letterbox_color: Colour | None = None


class Crop(_Transform):
    """The part from column `x1` and row `y1` up to, but not including, column `x2` and row `y2`."""

    operation: Literal["crop"] = "crop"
    x1: Coordinate
    y1: Coordinate
    x2: Coordinate
    y2: Coordinate


class Rotate(_Transform):
    """The image turned clockwise on a canvas that grows with it.

    Multiples of 90 degrees move pixels and change none of them; other angles interpolate. Transparent parts
    of the image itself stay transparent.
    """

    operation: Literal["rotate"] = "rotate"
    angle: Annotated[float, Field(allow_inf_nan=False)]
    unit: Literal["degrees", "radians"] = "degrees"
    background_color: Colour = "#000000"

    @property
    def degrees(self) -> float:
        """The turn in degrees, at least 0 and below 360; what is nearly a quarter turn is exactly one."""
        turn = self.angle if self.unit == "degrees" else math.degrees(math.remainder(self.angle, math.tau))
        turn = math.fmod(turn, 360)
        nearest = float(round(turn / _QUARTER) * _QUARTER)
        return (nearest if abs(turn - nearest) < _NEARLY else turn) % 360

    @property
    def quarters(self) -> int | None:
        """How many quarter turns clockwise it is, 0 to 3; None if it is none at all."""
        return None if self.degrees % _QUARTER else int(self.degrees) // _QUARTER


class Mirror(_Transform):
    """Left and right exchanged (`horizontal`), top and bottom (`vertical`), or both."""

    operation: Literal["mirror"] = "mirror"
    mode: Literal["horizontal", "vertical", "both"]


class Convert(_Transform):
    """The image in another format.

    Attributes:
        format: `jpg` is taken for `jpeg`. JPEG shows transparent parts on white.
        quality: of JPEG and WebP, where 100 makes a WebP lossless; None means 90. PNG is always lossless.
    """

    operation: Literal["convert"] = "convert"
    format: FormatName
    quality: Quality | None = None


class Blur(_Transform):
    """The image seen through a Gaussian of standard deviation `sigma`, in pixels."""

    operation: Literal["blur"] = "blur"
    sigma: Annotated[float, Field(ge=1, le=1000, allow_inf_nan=False)] = 20.0


class Modulate(_Transform):
    """Other light and other colours; all zero changes nothing. Transparency stays.

    The API has had two contracts under one address. The older one's multipliers of brightness and saturation
    are `(multiplier - 1) * 100` here.

    Attributes:
        brightness: multiplies colour values by 1 + brightness/100, so that -100 is black.
        contrast: the same for their distance from middle grey, so that -100 is grey.
        saturation: the same for their distance from the grey of equal brightness.
        exposure: multiplies the light itself by 2 ** (exposure/50): 100 is two stops more.
        hue: degrees that colours move along the colour wheel; red moves to green at 120.
        lightness: percent of white added to colour values, so that 100 is white.
    """

    operation: Literal["modulate"] = "modulate"
    brightness: Percent = 0.0
    contrast: Percent = 0.0
    saturation: Percent = 0.0
    exposure: Percent = 0.0
    hue: Annotated[int, Field(ge=-36_000, le=36_000)] = 0
    lightness: Percent = 0.0


class Mark(_Transform):
    """One image laid over another.

    Attributes:
        image: its index among the given watermarks.
        left: pixels from the image's left edge to the mark's; what hangs over is cut.
        top: pixels from the image's upper edge to the mark's.
        width: the mark is stretched to it; None means its own.
        height: the mark is stretched to it; None means its own.
        repetition_mode: tiles from the mark's place in both directions until the image is covered along
            the x axis, the y axis or both (`repeat`).
    """

    image: Annotated[int, Field(ge=0, lt=MAX_WATERMARKS)]
    left: Offset = 0
    top: Offset = 0
    width: Side | None = None
    height: Side | None = None
    repetition_mode: Literal["no_repeat", "repeat", "repeat_x", "repeat_y"] = "no_repeat"

    @property
    def along_x(self) -> bool:
        """Whether it is repeated from left to right."""
        return self.repetition_mode in {"repeat", "repeat_x"}

    @property
    def along_y(self) -> bool:
        """Whether it is repeated from top to bottom."""
        return self.repetition_mode in {"repeat", "repeat_y"}


class Watermark(_Transform):
    """Other images laid over the image, the last one on top."""

    operation: Literal["watermark"] = "watermark"
    watermarks: Annotated[tuple[Mark, ...], Field(min_length=1, max_length=MAX_WATERMARKS)]


class RemoveBackground(_Transform):
    """The image without the flat colour around its subject; only the pixels tell whether there is one."""

    operation: Literal["remove_background"] = "remove_background"


class Import(_Transform):
    """The image itself, encoded anew: upright, and without any metadata of the file it came in."""

    operation: Literal["import"] = "import"


Transform = Annotated[
    Resize | Crop | Rotate | Mirror | Convert | Blur | Modulate | Watermark | RemoveBackground | Import,
    Field(discriminator="operation"),
]
