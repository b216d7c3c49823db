"""The bodies of the IMG Processing dialect: what its endpoints read and what they answer.

Lengths and ranges are those of the vendor's pages; members they do not name are ignored.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from app.api import http
from app.api.imgprocessing_ids import PATTERN
from app.domain.colours import Colour
from app.domain.spec import MAX_SEED
from app.domain.transform import MAX_RESULT_SIDE, MAX_WATERMARKS

MAX_FILE: Final = 20 * 1024 * 1024
"""Bytes of the largest file that may be uploaded."""
_LONGEST_TEXT: Final = 1000


def _in_lower_case(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _marks(value: object) -> object:
    fits = isinstance(value, list) and 1 <= len(value) <= MAX_WATERMARKS
    if not fits or not all(isinstance(mark, dict) for mark in value):  # type: ignore[attr-defined]  # a list by then
        raise ValueError(f"must be a list of 1 to {MAX_WATERMARKS} objects, each with the id of an image")
    return value


Name = Annotated[
    str,
    Field(min_length=1, max_length=30, description="What the image is called; need not be unique"),
    http.NO_NUL,
]
Text = Annotated[str, Field(min_length=1, max_length=_LONGEST_TEXT, pattern=r"\S"), http.NO_NUL]
Side = Annotated[int, Field(ge=1, le=MAX_RESULT_SIDE), http.JSON_NUMBER]
Place = Annotated[int, Field(ge=-MAX_RESULT_SIDE, le=MAX_RESULT_SIDE), http.JSON_NUMBER]
Edge = Annotated[int, Field(ge=0, le=MAX_RESULT_SIDE), http.JSON_NUMBER]
Amount = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False), http.JSON_NUMBER]
Format = Annotated[Literal["jpeg", "png", "webp", "jpg"], BeforeValidator(_in_lower_case)]
"""`jpg` is another word for `jpeg`, which the image then says."""


class Request(BaseModel):
    """What a client sends."""

    model_config = ConfigDict(frozen=True)


class ImagineRequest(Request):
    """Body of POST /v1/images/imagine."""

    name: Name
    prompt: Annotated[Text, Field(description="What the image shows")]
    negative_prompt: Annotated[Text | None, Field(description="What it does not show")] = None
    seed: Annotated[
        Annotated[int, Field(ge=0, le=MAX_SEED), http.JSON_NUMBER] | None,
        Field(description="The same seed gives the same image; default: random"),
    ] = None
    model: Annotated[
        Literal["sdxl", "flux"] | None, Field(description="Default: this installation's first model")
    ] = None


class CreateRequest(Request):
    """Body of POST /v1/images."""

    name: Name
    url: Annotated[
        str,
        Field(
            min_length=1,
            max_length=2048,
            description="Of a JPEG, PNG or WebP image, at an allowed origin",
            examples=["https://storage.googleapis.com/bucket/photo.jpg"],
        ),
        http.NO_NUL,
    ]


class UploadRequest(Request):
    """Text fields of POST /v1/images/upload; the file image comes beside them."""

    name: Name


class ChangeRequest(Request):
    """What the body of every change of an image may name."""

    name: Annotated[Name | None, Field(description="Name of the new image; default: the source's")] = None


class ResizeRequest(ChangeRequest):
    """Body of resize. With one side given, the other follows from the image's proportions."""

    width: Annotated[Side | None, Field(description="Pixels")] = None
    height: Annotated[Side | None, Field(description="Pixels")] = None
    fit: Annotated[
        Literal["fill", "contain", "cover"],
        Field(description="With both sides given: stretch, put borders around, or cut off what is too much"),
    ] = "fill"
    position: Annotated[
        Literal[
            "center",
            "top",
            "right",
            "bottom",
            "left",
            "top-left",
            "top-right",
            "bottom-left",
            "bottom-right",
        ],
        Field(description="Where the image lies among the borders, or what of it is kept"),
    ] = "center"
    letterbox_color: Annotated[
        Colour | None,
        Field(
            description="Of the borders: a CSS name, a hexadecimal colour, or transparent; default: "
            "transparent, and black in a JPEG",
            examples=["#ff8800"],
        ),
    ] = None


class CropRequest(ChangeRequest):
    """Body of crop: what lies between the two corners stays."""

    x1: Annotated[Edge, Field(description="Left edge, pixels from the left")]
    y1: Annotated[Edge, Field(description="Upper edge, pixels from the top")]
    x2: Annotated[Edge, Field(description="Right edge, beyond the last pixel")]
    y2: Annotated[Edge, Field(description="Lower edge, beyond the last pixel")]


class RotateRequest(ChangeRequest):
    """Body of rotate: clockwise; the canvas grows so that nothing is cut off."""

    angle: Annotated[
        float,
        Field(ge=-1_000_000, le=1_000_000, allow_inf_nan=False, description="Clockwise"),
        http.JSON_NUMBER,
    ]
    unit: Annotated[Literal["degrees", "radians"], Field(description="Of the angle")] = "degrees"
    background_color: Annotated[Colour, Field(description="Of the corners that the turn uncovers")] = (
        "#000000"
    )


class MirrorRequest(ChangeRequest):
    """Body of mirror."""

    mode: Annotated[
        Literal["horizontal", "vertical", "both"],
        Field(description="horizontal: left and right change places"),
    ]


class ConvertRequest(ChangeRequest):
    """Body of convert."""

    format: Format
    quality: Annotated[
        Annotated[int, Field(ge=1, le=100), http.JSON_NUMBER] | None,
        Field(description="Of JPEG and WebP; PNG loses nothing at any quality"),
    ] = None


class BlurRequest(ChangeRequest):
    """Body of blur."""

    sigma: Annotated[
        float,
        Field(ge=1, le=1000, allow_inf_nan=False, description="Of the Gaussian, in pixels"),
        http.JSON_NUMBER,
    ] = 20


class ModulateRequest(ChangeRequest):
    """Body of modulate, in either of the vendor's two forms: `hue` or `lightness` make it the older one.

    There brightness and saturation are factors, 0 to 2, and 1 changes nothing.
    """

    brightness: Annotated[
        Amount | None, Field(description="-100 to 100, 0 changes nothing; older form: a factor")
    ] = None
    contrast: Annotated[Amount | None, Field(description="-100 to 100, 0 changes nothing")] = None
    saturation: Annotated[
        Amount | None, Field(description="-100 to 100, 0 changes nothing; older form: a factor")
    ] = None
    exposure: Annotated[Amount | None, Field(description="-100 to 100, 0 changes nothing")] = None
    hue: Annotated[
        Annotated[int, Field(ge=-36_000, le=36_000), http.JSON_NUMBER] | None,
        Field(description="Older form: degrees by which hues turn"),
    ] = None
    lightness: Annotated[Amount | None, Field(description="Older form: added to the lightness")] = None


class Mark(Request):
    """An image to be laid over another; it may stick out."""

    id: Annotated[
        str, Field(min_length=1, max_length=60, description="Of an image of yours", examples=["image_…"])
    ]
    left: Annotated[Place, Field(description="Pixels from the left")] = 0
    top: Annotated[Place, Field(description="Pixels from the top")] = 0
    width: Annotated[Side | None, Field(description="Pixels; default: as the image is")] = None
    height: Annotated[Side | None, Field(description="Pixels; default: as the image is")] = None
    repetition_mode: Literal["no_repeat", "repeat", "repeat_x", "repeat_y"] = "no_repeat"


class WatermarkRequest(ChangeRequest):
    """Body of watermark: they are laid over the image in the order given."""

    watermarks: Annotated[list[Mark], Field(min_length=1, max_length=MAX_WATERMARKS), BeforeValidator(_marks)]


class RemoveBackgroundRequest(ChangeRequest):
    """Body of remove-background."""


class ListQuery(Request):
    """Query of GET /v1/images."""

    take: Annotated[int, Field(ge=1, le=100, description="Most images of the page"), http.FORM_NUMBER] = 10
    start: Annotated[
        str | None,
        Field(alias="from", max_length=60, description="Id of the first image of the page; default: newest"),
    ] = None


def _with_milliseconds(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Moment = Annotated[
    datetime,
    PlainSerializer(_with_milliseconds, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""In UTC, with milliseconds and a Z."""


class Image(BaseModel):
    """An image of yours; `url` is null until it is published."""

    model_config = ConfigDict(frozen=True)

    id: Annotated[str, Field(pattern=PATTERN, examples=["image_002sHl1SNDoXN9EaVEs5tF7A"])]
    name: str
    url: Annotated[str | None, Field(description="Where everybody finds it; null while it is not published")]
    width: int
    height: int
    format: Literal["png", "jpeg", "webp"]
    size: Annotated[int, Field(description="Bytes")]
    created_at: Moment


class Links(BaseModel):
    """Absolute URLs of the pages beside this one; null where there is none."""

    previous: str | None
    next: str | None


class ImageList(BaseModel):
    """A page of your images, newest first."""

    data: list[Image]
    links: Links


class Problem(BaseModel):
    """What is wrong, in a sentence; `errors` has one for each field concerned, and is absent without any."""

    media_type: ClassVar[str] = "application/problem+json"

    type: Annotated[
        str,
        Field(
            description="A URL that names the kind",
            examples=["https://docs.img-processing.com/errors/not-found"],
        ),
    ]
    error: Annotated[str, Field(description="The kind in words", examples=["Not Found"])]
    title: Annotated[str, Field(description="The same as `error`, for readers of RFC 9457")]
    status: int
    message: str
    errors: Annotated[list[str] | None, Field(examples=[["name: is required"]])] = None

    def shown(self) -> dict[str, Any]:
        """Give what is sent."""
        return self.model_dump(exclude_none=True)
