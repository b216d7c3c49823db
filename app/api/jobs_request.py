"""The body of POST /v1/jobs: its members are the spec's, and how the job is kept and told of."""

import re
from typing import Annotated, Any, Final, get_args

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from app.api import http, schemas
from app.api.strict import one_of
from app.domain.spec import MAX_PROMPT, MAX_SEED, CensorKind, ImageFormat, Operation
from app.domain.transform import MAX_WATERMARKS, Transform
from app.shown import IMAGE_PREFIX

IMAGE_PATTERN: Final = f"^{IMAGE_PREFIX}[0-9a-f]{{32}}$"
LONGEST_URL: Final = 2048
_MAX_STEPS: Final = 500
_MAX_IMAGES: Final = 16
"""The spec's own limits, both; a model's may be lower."""
_HOW: Final = "A URL, a data URI, base64 text, or an output of yours"


class OutputNamed(BaseModel):
    """An output of yours as an input."""

    model_config = ConfigDict(frozen=True)

    output: Annotated[str, Field(pattern=IMAGE_PATTERN, examples=["img_0193f0a27c3b7e4d8a1b2c3d4e5f6071"])]


def _image(value: object) -> str | OutputNamed:
    if isinstance(value, str) and value.strip():
        return value
    named = value.get("output") if isinstance(value, dict) and value.keys() == {"output"} else None
    if isinstance(named, str) and re.fullmatch(IMAGE_PATTERN, named):
        return OutputNamed(output=named)
    raise ValueError(
        "must be an http(s) URL, a data URI (data:image/png;base64,…), base64 text, or an output of yours: "
        '{"output": "img_…"} with an id that a job answered'
    )


def _images(value: object) -> tuple[str | OutputNamed, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_WATERMARKS:
        raise ValueError(f"must be a list of 1 to {MAX_WATERMARKS} images")
    return tuple(_image(each) for each in value)


TRANSFORMS: Final[dict[Operation, type[BaseModel]]] = {
    Operation(kind.model_fields["operation"].default): kind for kind in get_args(get_args(Transform)[0])
}
"""The parameters of each operation that no model does."""


def _schema_of_transforms() -> dict[str, Any]:
    """Any of the transformations' own schemas, without `operation`, which the request has once already."""
    return {
        "anyOf": [_schema_of(operation, kind) for operation, kind in TRANSFORMS.items()],
        "description": "Parameters of an operation that no model does: resize, crop, rotate, …",
    }


def _schema_of(operation: Operation, kind: type[BaseModel]) -> dict[str, Any]:
    whole = schemas.of_model(kind)
    properties = {name: each for name, each in whole["properties"].items() if name != "operation"}
    return {**whole, "properties": properties, "title": operation.value}


_ImageSchema = Annotated[str, Field(min_length=1)] | OutputNamed
ImageValue = Annotated[str | OutputNamed, PlainValidator(_image, json_schema_input_type=_ImageSchema)]
ImageValues = Annotated[
    tuple[str | OutputNamed, ...],
    PlainValidator(
        _images,
        json_schema_input_type=Annotated[list[_ImageSchema], Field(min_length=1, max_length=MAX_WATERMARKS)],
    ),
]
Prompt = Annotated[str, Field(min_length=1, max_length=MAX_PROMPT, pattern=r"\S"), http.NO_NUL]
Negative = Annotated[str, Field(max_length=MAX_PROMPT), http.NO_NUL]
Side = Annotated[int, Field(ge=1, le=8192), http.JSON_NUMBER]
Switch = Annotated[bool, Field(strict=True)]


class JobRequest(BaseModel):
    """One job; a member that does not count for its operation is refused, like one that is not known."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"additionalProperties": False})

    operation: Annotated[
        Annotated[Operation, one_of(Operation)] | None,
        Field(
            description="Default: inpaint with a `mask_image`, image_to_image with an `image` alone, else "
            "text_to_image"
        ),
    ] = None
    model: Annotated[
        Annotated[str, Field(min_length=1, max_length=200), http.NO_NUL] | None,
        Field(description="Id or alias of a model; default: the first of GET /v1/models"),
    ] = None
    prompt: Annotated[Prompt | None, Field(description="What the image shows")] = None
    negative_prompt: Annotated[Negative | None, Field(description="What it does not show")] = None
    image: Annotated[ImageValue | None, Field(description=_HOW)] = None
    mask_image: Annotated[
        ImageValue | None, Field(description=f"{_HOW}; white changes, black stays as it is")
    ] = None
    mask_from_alpha: Annotated[
        Switch, Field(description="The mask marks what changes by being fully transparent, not by white")
    ] = False
    transform: Annotated[dict[str, Any] | None, WithJsonSchema(_schema_of_transforms())] = None
    watermarks: Annotated[
        ImageValues | None,
        Field(
            description="Images that `transform.watermarks` lays over the image, named by their index here"
        ),
    ] = None
    width: Annotated[Side | None, Field(description="Pixels; default: the image's, else the model's")] = None
    height: Annotated[Side | None, Field(description="Pixels; default: the image's, else the model's")] = None
    num_inference_steps: Annotated[
        Annotated[int, Field(ge=1, le=_MAX_STEPS), http.JSON_NUMBER] | None,
        Field(description="Default: the model's"),
    ] = None
    guidance_scale: Annotated[
        Annotated[float, Field(ge=0, le=100, allow_inf_nan=False), http.JSON_NUMBER] | None,
        Field(description="How strongly the prompt influences the image; default: the model's"),
    ] = None
    strength: Annotated[
        Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), http.JSON_NUMBER] | None,
        Field(description="How much of the image changes, 0.0 to 1.0; default: the model's"),
    ] = None
    seed: Annotated[
        Annotated[int, Field(ge=0, le=MAX_SEED), http.JSON_NUMBER] | None,
        Field(description="The same seed gives the same image; default: random"),
    ] = None
    num_images: Annotated[
        Annotated[int, Field(ge=1, le=_MAX_IMAGES), http.JSON_NUMBER] | None, Field(description="Default 1")
    ] = None
    output_format: Annotated[
        Annotated[ImageFormat, one_of(ImageFormat)] | None,
        Field(description="Default: png for what is drawn, the image's own for what is transformed"),
    ] = None
    quality: Annotated[
        Annotated[int, Field(ge=1, le=100), http.JSON_NUMBER] | None,
        Field(description="Of jpeg and webp; default 90"),
    ] = None
    safety_checker: Annotated[
        Switch,
        Field(description="Replace images that the operator's safety checker flags, where there is one"),
    ] = False
    safety_checker_type: Annotated[
        CensorKind | None, Field(description="What stands in their place; default black")
    ] = None
    track_id: Annotated[
        Annotated[str, Field(min_length=1, max_length=255), http.NO_NUL] | None,
        Field(description="Your own word for it; need not be unique"),
    ] = None
    webhook: Annotated[
        Annotated[str, Field(min_length=1, max_length=LONGEST_URL), http.NO_NUL] | None,
        Field(description="Told of the job's end with a signed POST, beside the webhooks of your account"),
    ] = None
    priority: Annotated[
        Annotated[int, Field(ge=-10, le=10), http.JSON_NUMBER],
        Field(description="Higher is started sooner, among your own jobs"),
    ] = 0
    retain_seconds: Annotated[
        Annotated[int, Field(ge=1, le=2**31 - 1), http.JSON_NUMBER] | None,
        Field(description="How long its outputs are served; default: the installation's retention"),
    ] = None
    persist: Annotated[Switch, Field(description="Keep its outputs for ever")] = False
    private: Annotated[Switch, Field(description="Only you may fetch its outputs, with a key")] = False


TERMS: Final = frozenset({"track_id", "webhook", "priority", "retain_seconds", "persist", "private"})
"""Members that count for every operation."""
