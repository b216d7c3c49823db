"""The bodies of the Realm dialect: what its endpoints read and what they answer, but for errors."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from app.api import http
from app.domain.spec import MAX_PROMPT, MAX_SEED

MAX_OUTPUTS: Final = 4
"""Most images of one request, by the Realm page."""


class Request(BaseModel):
    """What a client sends, in camelCase."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True)


class Answer(BaseModel):
    """What we answer, in camelCase."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True, populate_by_name=True)


ModelId = Annotated[
    str, Field(min_length=1, max_length=200, description="ID of the model to use"), http.NO_NUL
]
Prompt = Annotated[str, Field(min_length=1, max_length=MAX_PROMPT, pattern=r"\S"), http.NO_NUL]
Negative = Annotated[str, Field(max_length=MAX_PROMPT), http.NO_NUL]
Side = Annotated[int, Field(ge=1, le=8192), http.JSON_NUMBER]
Guidance = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Outputs = Annotated[int, Field(ge=1, le=MAX_OUTPUTS)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


class GenerateRequest(Request):
    """Body of POST /v1/images/generate."""

    model_id: ModelId
    prompt: Annotated[Prompt, Field(description="What the image shows")]
    negative_prompt: Annotated[Negative | None, Field(description="What it does not show")] = None
    width: Annotated[Side | None, Field(description="Pixels; default: the model's preferred width")] = None
    height: Annotated[Side | None, Field(description="Pixels; default: the model's preferred height")] = None
    guidance_scale: Annotated[
        Annotated[Guidance, http.JSON_NUMBER] | None,
        Field(description="How strongly the prompt influences the image"),
    ] = None
    num_outputs: Annotated[
        Annotated[Outputs, http.JSON_NUMBER] | None,
        Field(description="Number of images; default 1"),
    ] = None
    seed: Annotated[
        Annotated[Seed, http.JSON_NUMBER] | None,
        Field(description="Darkroom's addition: the same seed gives the same image; default: random"),
    ] = None


class ModifyRequest(Request):
    """Text fields of POST /v1/images/modify; the files image and mask come beside them."""

    model_id: ModelId
    prompt: Annotated[Prompt, Field(description="Description of the desired changes")]
    strength: Annotated[
        Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), http.FORM_NUMBER] | None,
        Field(description="Intensity of the modification, 0.0 to 1.0; default: the model's"),
    ] = None
    negative_prompt: Annotated[Negative | None, Field(description="What it does not show")] = None
    guidance_scale: Annotated[
        Annotated[Guidance, http.FORM_NUMBER] | None,
        Field(description="How strongly the prompt influences the image"),
    ] = None
    num_outputs: Annotated[
        Annotated[Outputs, http.FORM_NUMBER] | None, Field(description="Number of images; default 1")
    ] = None
    seed: Annotated[
        Annotated[Seed, http.FORM_NUMBER] | None,
        Field(description="Darkroom's addition: the same seed gives the same image; default: random"),
    ] = None


JobId = Annotated[str, Field(examples=["job_0193f0a27c3b7e4d8a1b2c3d4e5f6071"])]


class JobAccepted(Answer):
    """The job is written down; poll GET /v1/images/jobs/{jobId}."""

    job_id: JobId
    status: Literal["queued"]
    estimated_completion: http.Moment
    warnings: Annotated[list[str] | None, Field(description="What was ignored; absent when nothing was")] = (
        None
    )


class JobPending(Answer):
    """The job waits or runs."""

    job_id: JobId
    job_type: Literal["image_generation", "image_modification"]
    status: Literal["queued", "processing"]
    created_at: http.Moment
    estimated_completion: http.Moment
    progress: Annotated[float, Field(ge=0, le=1)]


class Result(Answer):
    """One image; its URL answers 410 after `expiresAt` unless the image was persisted."""

    image_id: Annotated[str, Field(examples=["img_0193f0a27c3b7e4d8a1b2c3d4e5f6072"])]
    url: Annotated[
        str | None,
        Field(
            description="Absent while the image is private: unpublished by its owner",
            examples=["http://127.0.0.1:8000/outputs/5d0c8e1f2a3b4c5d8e9f0a1b2c3d4e5f-0.png"],
        ),
    ] = None
    seed: Annotated[int, Field(examples=[42])]
    width: Annotated[int, Field(examples=[768])]
    height: Annotated[int, Field(examples=[512])]
    expires_at: Annotated[http.Moment | None, Field(description="Absent once the image is persisted")] = None


class JobCompleted(Answer):
    """The images are there."""

    job_id: JobId
    job_type: Literal["image_generation", "image_modification"]
    status: Literal["completed"]
    created_at: http.Moment
    completed_at: http.Moment
    results: list[Result]


class JobFailed(Answer):
    """The job ended without images; `errorCode` says why. A cancelled job shows as CANCELLED."""

    job_id: JobId
    job_type: Literal["image_generation", "image_modification"]
    status: Literal["failed"]
    created_at: http.Moment
    completed_at: http.Moment
    error_code: Annotated[str, Field(examples=["TIMEOUT"])]
    error_message: str


JobShown = Annotated[JobPending | JobCompleted | JobFailed, Field(discriminator="status")]


class ModelShown(Answer):
    """An entry of the catalogue; width and height are the preferred size, used where a request names none."""

    model_id: str
    name: str
    description: str
    base_model: str
    status: Literal["active"]
    created_at: http.Moment
    tags: list[str]
    width: int
    height: int
    max_outputs: int
    operations: list[str]


class ModelsQuery(Request):
    """Query of GET /v1/models."""

    limit: Annotated[int, Field(ge=1, le=100, description="Most models in the answer"), http.FORM_NUMBER] = 20
    offset: Annotated[int, Field(ge=0, le=1_000_000, description="How many to skip"), http.FORM_NUMBER] = 0
    status: Annotated[
        Literal["active", "pending_training", "training", "failed"] | None,
        Field(description="Only models in this state; ours are all active"),
    ] = None
