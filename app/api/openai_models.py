"""The bodies of the OpenAI Images dialect: what its endpoints read and what they answer."""

import re
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
)

from app.api import http
from app.domain.spec import MAX_PROMPT, MAX_SEED, ImageFormat

MAX_IMAGES: Final = 10
"""Most images of one request, by OpenAI's own limit for `n`."""
_SIZE: Final = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
_SIZE_PATTERN: Final = f"^(auto|{_SIZE.pattern})$"
_SWITCHES: Final = {"true": True, "false": False}


def _size(text: str) -> str:
    if text != "auto" and not _SIZE.fullmatch(text):
        raise ValueError("must be WIDTHxHEIGHT in pixels, such as 1024x1024, or auto")
    return text


def _opaque(background: str) -> str:
    if background == "transparent":
        raise ValueError("transparent is not possible, as images are drawn opaque here; send opaque or auto")
    return background


def _switch(value: object) -> object:
    # Forms send text, and some JSON clients do too.
    made = _SWITCHES.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(made, bool):
        raise ValueError("must be true or false")  # noqa: TRY004 - pydantic takes no TypeError for a finding
    return made


def _references(value: object) -> tuple[str, ...]:
    """Give the URLs and data URIs in any of the forms in which clients name images in JSON."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list):
        return tuple(reference for each in value for reference in _references_in_list(each))
    if isinstance(value, dict):
        return (_reference(value),)
    raise ValueError(_HOW)


def _references_in_list(each: object) -> tuple[str, ...]:
    if isinstance(each, list):  # no deeper, else a hostile body could nest us to the recursion limit
        raise ValueError(_HOW)  # noqa: TRY004 - as above
    return _references(each)


def _reference(value: dict[str, Any]) -> str:
    if value.get("file_id") is not None:
        raise ValueError("file_id names a file that is not kept here; send the image in image_url")
    url = value.get("image_url")
    url = url.get("url") if isinstance(url, dict) else url
    if not isinstance(url, str):
        raise ValueError(_HOW)  # noqa: TRY004 - as above
    return url


_HOW: Final = 'must be a URL or a data URI, or an object such as {"image_url": "https://…"}'
_NAMED: Final = {"type": "string", "description": "An http(s) URL, a data URI or base64"}
_REFERENCE: Final = {
    "anyOf": [
        _NAMED,
        {"type": "object", "properties": {"image_url": _NAMED}, "required": ["image_url"]},
    ]
}
_REFERENCES: Final = {
    "anyOf": [_REFERENCE, {"type": "array", "items": _REFERENCE, "minItems": 1, "maxItems": 1}]
}
References = Annotated[tuple[str, ...], BeforeValidator(_references), WithJsonSchema(_REFERENCES)]
Switch = Annotated[bool, BeforeValidator(_switch)]
Count = Annotated[int, Field(ge=1, le=MAX_IMAGES)]
Partial = Annotated[int, Field(ge=0, le=3)]
Percent = Annotated[int, Field(ge=0, le=100)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Guidance = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Steps = Annotated[int, Field(ge=1, le=500)]
Strength = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

_N: Final = "Number of images, at most as many as the model draws at a time; default 1"
_PARTIAL: Final = "Counts with `stream` only, and then no partial image is sent"
_COMPRESSION: Final = "Quality of JPEG and WebP; default 90. PNG keeps every bit, whatever stands here"
_SEED: Final = "Darkroom's addition: the same seed gives the same image; default: random"
_GUIDANCE: Final = "Darkroom's addition: how strongly the prompt counts; default: the model's"
_STEPS: Final = "Darkroom's addition; default: the model's"
_STRENGTH: Final = "Darkroom's addition: how much of the image changes; default: the model's"


class ImageRequest(BaseModel):
    """What a request for images may say in words; how it writes numbers depends on the kind of its body."""

    model_config = ConfigDict(frozen=True)

    prompt: Annotated[
        Annotated[str, Field(min_length=1, max_length=MAX_PROMPT, pattern=r"\S"), http.NO_NUL],
        Field(description="What the image shows"),
    ]
    model: Annotated[
        Annotated[str, Field(min_length=1, max_length=200), http.NO_NUL] | None,
        Field(description="Id or alias out of GET /v1/models; default: the installation's"),
    ] = None
    size: Annotated[
        Annotated[str, AfterValidator(_size), Field(json_schema_extra={"pattern": _SIZE_PATTERN})] | None,
        Field(description="WIDTHxHEIGHT in pixels, or auto: the input image's size, else the model's own"),
    ] = None
    response_format: Annotated[Literal["b64_json", "url"] | None, Field(description="Default: b64_json")] = (
        None
    )
    output_format: Annotated[Literal["png", "jpeg", "webp"] | None, Field(description="Default: png")] = None
    background: Annotated[
        Annotated[Literal["auto", "opaque", "transparent"], AfterValidator(_opaque)] | None,
        Field(description="Images are opaque, so transparent is refused"),
    ] = None
    stream: Annotated[
        Switch | None, Field(description="Answer in Server-Sent Events, one for each finished image")
    ] = None
    negative_prompt: Annotated[
        Annotated[str, Field(max_length=MAX_PROMPT), http.NO_NUL] | None,
        Field(description="Darkroom's addition: what the image does not show"),
    ] = None

    @property
    def pixels(self) -> tuple[int, int] | None:
        """Width and height asked for; None leaves them to the input image or the model."""
        found = _SIZE.fullmatch(self.size or "")
        return (int(found[1]), int(found[2])) if found else None

    @property
    def format(self) -> ImageFormat:
        """How the images are to be encoded."""
        return ImageFormat(self.output_format or "png")


class GenerateRequest(ImageRequest):
    """Body of POST /v1/images/generations."""

    n: Annotated[Annotated[Count, http.JSON_NUMBER] | None, Field(description=_N)] = None
    partial_images: Annotated[Annotated[Partial, http.JSON_NUMBER] | None, Field(description=_PARTIAL)] = None
    output_compression: Annotated[
        Annotated[Percent, http.JSON_NUMBER] | None, Field(description=_COMPRESSION)
    ] = None
    seed: Annotated[Annotated[Seed, http.JSON_NUMBER] | None, Field(description=_SEED)] = None
    guidance_scale: Annotated[Annotated[Guidance, http.JSON_NUMBER] | None, Field(description=_GUIDANCE)] = (
        None
    )
    num_inference_steps: Annotated[Annotated[Steps, http.JSON_NUMBER] | None, Field(description=_STEPS)] = (
        None
    )


class EditBody(GenerateRequest):
    """JSON body of POST /v1/images/edits; `image` or `images` names the one input image."""

    strength: Annotated[Annotated[Strength, http.JSON_NUMBER] | None, Field(description=_STRENGTH)] = None
    image: Annotated[References | None, Field(description="The input image")] = None
    images: Annotated[References | None, Field(description="The same, in the words of OpenAI's JSON")] = None
    mask: Annotated[
        References | None, Field(description="PNG of the image's size; what is fully transparent changes")
    ] = None


class EditForm(ImageRequest):
    """Text fields of POST /v1/images/edits; the files image (or image[]) and mask come beside them."""

    n: Annotated[Annotated[Count, http.FORM_NUMBER] | None, Field(description=_N)] = None
    partial_images: Annotated[Annotated[Partial, http.FORM_NUMBER] | None, Field(description=_PARTIAL)] = None
    output_compression: Annotated[
        Annotated[Percent, http.FORM_NUMBER] | None, Field(description=_COMPRESSION)
    ] = None
    seed: Annotated[Annotated[Seed, http.FORM_NUMBER] | None, Field(description=_SEED)] = None
    guidance_scale: Annotated[Annotated[Guidance, http.FORM_NUMBER] | None, Field(description=_GUIDANCE)] = (
        None
    )
    num_inference_steps: Annotated[Annotated[Steps, http.FORM_NUMBER] | None, Field(description=_STEPS)] = (
        None
    )
    strength: Annotated[Annotated[Strength, http.FORM_NUMBER] | None, Field(description=_STRENGTH)] = None


class Answer(BaseModel):
    """What we answer."""

    model_config = ConfigDict(frozen=True)


class Image(Answer):
    """One image: `b64_json`, or `url` where that was asked for."""

    b64_json: Annotated[str | None, Field(description="The whole file in base64")] = None
    url: Annotated[
        str | None, Field(examples=["http://127.0.0.1:8000/outputs/5d0c8e1f2a3b4c5d8e9f0a1b2c3d4e5f-0.png"])
    ] = None
    id: Annotated[
        str,
        Field(
            description="Darkroom's addition: keep it by POST /v1/outputs/{id}/persist",
            examples=["img_0193f0a27c3b7e4d8a1b2c3d4e5f6072"],
        ),
    ]
    seed: Annotated[int, Field(description="Darkroom's addition: draws this image again", examples=[42])]


class ImagesResponse(Answer):
    """The finished images."""

    created: Annotated[int, Field(description="When they were finished, Unix seconds")]
    data: list[Image]
    background: Literal["opaque"]
    output_format: Literal["png", "jpeg", "webp"]
    size: Annotated[str, Field(examples=["1024x1024"])]
    model: Annotated[str, Field(description="Darkroom's addition: what drew them, of whatever alias")]
    job_id: Annotated[
        str,
        Field(
            description="Darkroom's addition: the job of GET /v1/jobs/{id}",
            examples=["job_0193f0a27c3b7e4d8a1b2c3d4e5f6071"],
        ),
    ]


class NoTokens(Answer):
    """Of the images of text and pixels that OpenAI's models see; nobody counts tokens here."""

    image_tokens: Literal[0] = 0
    text_tokens: Literal[0] = 0


class NoUsage(Answer):
    """What OpenAI's events must have: the tokens used, of which Darkroom has none."""

    input_tokens: Literal[0] = 0
    input_tokens_details: NoTokens = NoTokens()
    output_tokens: Literal[0] = 0
    total_tokens: Literal[0] = 0


class CompletedEvent(Answer):
    """One finished image of a stream."""

    type: Literal["image_generation.completed", "image_edit.completed"]
    b64_json: str
    created_at: int
    background: Literal["opaque"]
    output_format: Literal["png", "jpeg", "webp"]
    quality: Literal["auto"] = "auto"
    size: str
    usage: NoUsage = NoUsage()
    id: str
    seed: int
    model: str
    job_id: str


class ErrorBody(Answer):
    """What went wrong: a sentence for people, a code for programs, and the first field concerned."""

    message: str
    type: Annotated[str, Field(examples=["invalid_request_error"])]
    param: str | None
    code: Annotated[str | None, Field(examples=["model_not_found"])]


class ErrorShown(Answer):
    """The shape of every error of this API."""

    error: ErrorBody


class ModelShown(Answer):
    """One name that `model` may have; `root` is the entry of the catalogue behind it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["darkroom"] = "darkroom"
    root: str


class ModelList(Answer):
    """Every id and every alias of the catalogue."""

    object: Literal["list"] = "list"
    data: list[ModelShown]
