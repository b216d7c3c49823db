"""The bodies of the ModelsLab dialect: what its endpoints read, and what they answer.

Its clients send numbers as strings, switches as yes and no, and null or nothing for what they do not mind;
the documented samples do so themselves. Members we do not know are ignored, as they are there.
"""

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from app.api import http
from app.buckets import DeployType, Details
from app.domain.spec import MAX_PROMPT, MAX_SEED, CensorKind

MAX_SAMPLES: Final = 4
MAX_SIDE: Final = 1024
"""Both by the ModelsLab page."""
USUAL_SIDE: Final = 512
MAX_TRACK_ID: Final = 255
"""Characters; there is an index over it, and Postgres takes 2,704 bytes in one."""
_LONGEST_NUMBER: Final = 40
"""Characters; beyond it a text is no number anybody means, and regular expressions get slow."""
_NUMBER: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
_NULLS: Final = frozenset({"", "null", "none"})
_SWITCHES: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_KINDS: Final = {bool: "a boolean", list: "a list", dict: "an object"}


def _number(value: object) -> object:
    if kind := _KINDS.get(type(value)):
        raise ValueError(f"must be a number, not {kind}")
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.lower() in _NULLS:
        return None
    if len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        raise ValueError("must be a number in digits")
    return float(text) if set(text.lower()) & {".", "e"} else int(text)


def _switch(value: object) -> object:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower() if isinstance(value, str | int) else None
    if text in _NULLS:
        return None
    if text not in _SWITCHES:
        raise ValueError("must be true or false (yes, no, 1 and 0 will do)")
    return _SWITCHES[text]


def _text_or_number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("must be a string or a whole number")  # noqa: TRY004 - what pydantic takes
    if len(text := str(value)) > MAX_TRACK_ID:
        raise ValueError(f"must have at most {MAX_TRACK_ID} characters")
    if "\x00" in text:
        raise ValueError("must not contain NUL characters; remove them")
    return value


def _number_schema(kind: str, **limits: float) -> WithJsonSchema:
    return WithJsonSchema({"type": [kind, "string", "null"], **limits})


_ANY_SWITCH: Final = {"type": ["boolean", "string", "integer", "null"], "examples": [True, "yes"]}
_NUMERIC: Final = BeforeValidator(_number)
Switch = Annotated[bool | None, BeforeValidator(_switch), WithJsonSchema(_ANY_SWITCH)]
Side = Annotated[
    Annotated[int, Field(ge=1, le=MAX_SIDE)] | None,
    _NUMERIC,
    _number_schema("integer", minimum=1, maximum=MAX_SIDE),
]
Key = Annotated[str | None, Field(description="Your API key, unless a header has it; it is not kept")]
Image = Annotated[str, Field(min_length=1), http.NO_NUL]


class Request(BaseModel):
    """What a client sends."""

    model_config = ConfigDict(frozen=True)

    key: Key = None


class TextToImage(Request):
    """Body of text2img; the members of all three operations."""

    prompt: Annotated[
        str,
        Field(min_length=1, max_length=MAX_PROMPT, pattern=r"\S", description="What the image shows"),
        http.NO_NUL,
    ]
    negative_prompt: Annotated[
        Annotated[str, Field(max_length=MAX_PROMPT), http.NO_NUL] | None,
        Field(description="What it does not show"),
    ] = None
    width: Annotated[Side, Field(description="Pixels, at most 1024; default 512")] = None
    height: Annotated[Side, Field(description="Pixels, at most 1024; default 512")] = None
    samples: Annotated[
        Annotated[int, Field(ge=1, le=MAX_SAMPLES)] | None,
        _NUMERIC,
        _number_schema("integer", minimum=1, maximum=MAX_SAMPLES),
        Field(description="Number of images; default 1"),
    ] = None
    num_inference_steps: Annotated[
        Annotated[int, Field(ge=1, le=500)] | None,
        _NUMERIC,
        _number_schema("integer", minimum=1, maximum=500),
        Field(description="Default: the model's"),
    ] = None
    guidance_scale: Annotated[
        Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None,
        _NUMERIC,
        _number_schema("number", minimum=0, maximum=100),
        Field(description="Default: the model's"),
    ] = None
    seed: Annotated[
        Annotated[int, Field(ge=0, le=MAX_SEED)] | None,
        _NUMERIC,
        _number_schema("integer", minimum=0),
        Field(description="The same seed gives the same image; null: a random one, shown in `meta`"),
    ] = None
    enhance_prompt: Annotated[Switch, Field(description="Add words that suit what the prompt says")] = None
    enhance_style: Annotated[
        Annotated[str, Field(max_length=200), http.NO_NUL] | None,
        Field(description="One of the 188 styles of that API", examples=["watercolor"]),
    ] = None
    safety_checker: Annotated[Switch, Field(description="Put a blank in place of an unsafe image")] = None
    safety_checker_type: Annotated[CensorKind | None, Field(description="What that blank looks like")] = None
    base64: Annotated[Switch, Field(description="Links to base64 text in place of images")] = None
    temp: Annotated[Switch, Field(description="Never into your own bucket, and gone after 24 hours")] = None
    instant_response: Annotated[Switch, Field(description="Answer `processing` at once")] = None
    webhook: Annotated[
        Annotated[str, http.NO_NUL] | None, Field(description="URL that is told of the end")
    ] = None
    track_id: Annotated[
        str | int | None,
        BeforeValidator(_text_or_number),
        WithJsonSchema({"type": ["string", "integer", "null"], "maxLength": MAX_TRACK_ID}),
        Field(description="Your own word for it, told again as you sent it"),
    ] = None
    model_id: Annotated[
        Annotated[str, Field(max_length=200), http.NO_NUL] | None,
        Field(description="Model, on /api/v6/images alone; default: the operator's choice"),
    ] = None

    @property
    def addresses(self) -> int:
        """How many images must be fetched, and hosts looked up, before it can become a wish."""
        images = (getattr(self, "init_image", ""), getattr(self, "mask_image", ""))
        return sum(map(http.is_address, images)) + (self.webhook is not None)


class ImageToImage(TextToImage):
    """Body of img2img."""

    init_image: Annotated[Image, Field(description="URL, base64 text or data URI of a PNG, JPEG or WebP")]
    strength: Annotated[
        Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None,
        _NUMERIC,
        _number_schema("number", minimum=0, maximum=1),
        Field(description="1.0 keeps nothing of the image; default: the model's"),
    ] = None


class Inpaint(ImageToImage):
    """Body of inpaint."""

    mask_image: Annotated[Image, Field(description="The same kinds; its white areas change")]


class KeyOnly(Request):
    """A body that holds the key alone."""


class FetchBody(Request):
    """Body of fetch where the id is not in the address."""

    request_id: Annotated[
        int,
        _NUMERIC,
        WithJsonSchema({"type": ["integer", "string"]}),
        Field(description="The `id` that was answered"),
    ]


class BucketDetails(Details):
    """Body of update_s3."""

    key: Key = None


class BucketReset(Request):
    """Body of reset_s3."""

    deploy_type: Annotated[DeployType, Field(description="Whose details to forget")] = (
        DeployType.TEXT_TO_IMAGE
    )


class Answer(BaseModel):
    """What we answer; members that were not set are left out."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)


_Id = Annotated[int, Field(examples=[302455])]
_Links = Annotated[
    list[str], Field(examples=[["http://127.0.0.1:8000/outputs/5d0c8e1f2a3b4c5d8e9f0a1b2c3d4e5f-0.png"]])
]
_Tip = Annotated[str, Field(description="What else there is to know; absent when nothing is")]
_Messege = Annotated[str, Field(description="The same, as older clients of /api/v6/images spell it")]
_Meta = Annotated[dict[str, Any], Field(description="What is drawn, with all defaults filled in")]
_Flagged = Annotated[bool, Field(description="Absent where no safety checker looked")]


class RealtimeDone(Answer):
    """The images are there."""

    status: Literal["success"]
    generation_time: Annotated[
        float, Field(serialization_alias="generationTime", description="Seconds", examples=[2.92])
    ]
    id: _Id
    output: _Links
    proxy_links: _Links = []
    nsfw_content_detected: _Flagged = False
    webhook_status: str = ""
    tip: _Tip = ""
    meta: _Meta


class RealtimeQueued(Answer):
    """The images are being made; ask `fetch_result`, or wait for `future_links` not to be 404."""

    status: Literal["processing"]
    tip: _Tip = ""
    eta: Annotated[int, Field(description="Seconds until they are likely to be there, at least 1")]
    message: str
    messege: _Messege = ""
    fetch_result: str
    id: _Id
    output: Annotated[list[str], Field(max_length=0)]
    webhook_status: str = ""
    meta: _Meta
    future_links: _Links


class RealtimeFetched(Answer):
    """The images are there."""

    status: Literal["success"]
    id: _Id
    output: _Links
    proxy_links: _Links = []
    nsfw_content_detected: _Flagged = False
    tip: _Tip = ""


class RealtimeNotYet(Answer):
    """The images are not there yet."""

    status: Literal["processing"]
    message: str
    messege: _Messege = ""
    output: Literal[""]
    eta: Annotated[int, Field(description="Seconds until they are likely to be there, at least 1")]
    tip: _Tip = ""


class RealtimeFailed(Answer):
    """The generation failed, or its images have expired; with HTTP status 200, as in that API."""

    status: Literal["error"]
    message: str
    messege: _Messege = ""
    code: Annotated[str, Field(examples=["timeout"])] = ""


GenerationAnswer = Annotated[RealtimeDone | RealtimeQueued | RealtimeFailed, Field(discriminator="status")]
FetchAnswer = Annotated[RealtimeFetched | RealtimeNotYet | RealtimeFailed, Field(discriminator="status")]


class SystemDetails(Answer):
    """How busy it is."""

    model_count: Annotated[int, Field(description="Models of the catalogue")]
    queue_time: Annotated[int, Field(description="Seconds until what waits now is likely to be done")]
    status: Literal["ok"]


class BucketAnswer(Answer):
    """The details were kept, or forgotten."""

    status: Literal["success"]
    message: str
    tip: _Tip = ""


class ErrorShown(Answer):
    """The shape of every error of this API."""

    status: Literal["error"]
    message: Annotated[str, Field(examples=["The prompt field is required."])]
    messege: _Messege = ""
    errors: Annotated[
        dict[str, list[str]], Field(description="Each field that cannot stay as it is; else absent")
    ] = {}
    retry_after: Annotated[int, Field(description="Seconds; absent where it is not known")] = 0
