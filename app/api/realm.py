"""Realm AI Images, answered in its own words: /v1/images/generate, /modify, /jobs/{jobId} and /v1/models.

The Realm page is the contract (field names, limits, 202, white = change); where it shows no body we follow
the webhook that the vendor documents for the same job. Unknown members are ignored, with a warning.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from flask import Blueprint, Request, Response, request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from app import imaging
from app.api import http
from app.api.operations import Operation as Described
from app.api.operations import PathPart
from app.api.operations import Upload as UploadField
from app.api.outputs import output_url
from app.api.services import Services
from app.db import outputs as output_rows
from app.db.jobs import JobRow, OutputRow
from app.domain.catalog import Model
from app.domain.job import Status
from app.domain.spec import MAX_PROMPT, MAX_SEED, Operation
from app.errors import DarkroomError, FieldProblem, InvalidFields, UnknownJob
from app.intake import Accepted, Upload, Wish

PREFIXES: Final = ("/v1/images", "/v1/models")
JOB_PREFIX: Final = "job_"
IMAGE_PREFIX: Final = "img_"
MAX_OUTPUTS: Final = 4
ACCEPTED_IMAGES: Final = ("PNG", "JPEG")

_FIELDS: Final = {
    "model": "modelId",
    "width": "width",
    "height": "height",
    "num_images": "numOutputs",
}
"""The spec's names and Realm's, where a check of the catalogue may complain about them."""


class _Request(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, frozen=True)


class _Answer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, frozen=True, populate_by_name=True)


Prompt = Annotated[
    http.CleanText,
    # A pattern behind a validator is enforced, but pydantic leaves it out of the schema.
    Field(min_length=1, max_length=MAX_PROMPT, pattern=r"\S", json_schema_extra={"pattern": r"\S"}),
]
ModelId = Annotated[http.CleanText, Field(min_length=1, max_length=200)]
Negative = Annotated[http.CleanText, Field(max_length=MAX_PROMPT)]
Side = Annotated[int, Field(ge=1, le=8192), http.JSON_NUMBER]


class GenerateRequest(_Request):
    """Body of POST /v1/images/generate."""

    model_id: Annotated[
        http.CleanText, Field(min_length=1, max_length=200, description="ID of the model to use")
    ]
    prompt: Annotated[Prompt, Field(description="What the image shows")]
    negative_prompt: Annotated[Negative | None, Field(description="What it does not show")] = None
    width: Annotated[Side | None, Field(description="Pixels; default: the model's preferred width")] = None
    height: Annotated[Side | None, Field(description="Pixels; default: the model's preferred height")] = None
    guidance_scale: Annotated[
        Annotated[float, Field(ge=0, le=100, allow_inf_nan=False), http.JSON_NUMBER] | None,
        Field(description="How strongly the prompt influences the image"),
    ] = None
    num_outputs: Annotated[
        Annotated[int, Field(ge=1, le=MAX_OUTPUTS), http.JSON_NUMBER] | None,
        Field(description="Number of images; default 1"),
    ] = None
    seed: Annotated[
        Annotated[int, Field(ge=0, le=MAX_SEED), http.JSON_NUMBER] | None,
        Field(description="Darkroom's addition: the same seed gives the same image; default: random"),
    ] = None


class ModifyRequest(_Request):
    """Text fields of POST /v1/images/modify; the files image and mask come beside them."""

    model_id: Annotated[
        http.CleanText, Field(min_length=1, max_length=200, description="ID of the model to use")
    ]
    prompt: Annotated[Prompt, Field(description="Description of the desired changes")]
    strength: Annotated[
        Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None,
        Field(description="Intensity of the modification, 0.0 to 1.0; default: the model's"),
    ] = None
    negative_prompt: Annotated[Negative | None, Field(description="What it does not show")] = None
    guidance_scale: Annotated[
        Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None,
        Field(description="How strongly the prompt influences the image"),
    ] = None
    num_outputs: Annotated[
        Annotated[int, Field(ge=1, le=MAX_OUTPUTS)] | None, Field(description="Number of images; default 1")
    ] = None
    seed: Annotated[
        Annotated[int, Field(ge=0, le=MAX_SEED)] | None,
        Field(description="Darkroom's addition: the same seed gives the same image; default: random"),
    ] = None


JobId = Annotated[str, Field(examples=["job_0193f0a27c3b7e4d8a1b2c3d4e5f6071"])]


class JobAccepted(_Answer):
    """The job is written down; poll GET /v1/images/jobs/{jobId}."""

    job_id: JobId
    status: Literal["queued"]
    estimated_completion: datetime
    warnings: Annotated[list[str] | None, Field(description="What was ignored; absent when nothing was")] = (
        None
    )


class JobPending(_Answer):
    """The job waits or runs."""

    job_id: JobId
    job_type: Literal["image_generation", "image_modification"]
    status: Literal["queued", "processing"]
    created_at: datetime
    estimated_completion: datetime
    progress: Annotated[float, Field(ge=0, le=1)]


class Result(_Answer):
    """One image; its URL answers 410 after `expiresAt` unless the image was persisted."""

    image_id: Annotated[str, Field(examples=["img_0193f0a27c3b7e4d8a1b2c3d4e5f6072"])]
    url: Annotated[
        str, Field(examples=["http://127.0.0.1:8000/outputs/5d0c8e1f2a3b4c5d8e9f0a1b2c3d4e5f-0.png"])
    ]
    seed: Annotated[int, Field(examples=[42])]
    width: Annotated[int, Field(examples=[768])]
    height: Annotated[int, Field(examples=[512])]
    expires_at: Annotated[datetime | None, Field(description="Absent once the image is persisted")] = None


class JobCompleted(_Answer):
    """The images are there."""

    job_id: JobId
    job_type: Literal["image_generation", "image_modification"]
    status: Literal["completed"]
    created_at: datetime
    completed_at: datetime
    results: list[Result]


class JobFailed(_Answer):
    """The job ended without images; `errorCode` says why. A cancelled job shows as CANCELLED."""

    job_id: JobId
    job_type: Literal["image_generation", "image_modification"]
    status: Literal["failed"]
    created_at: datetime
    completed_at: datetime
    error_code: Annotated[str, Field(examples=["TIMEOUT"])]
    error_message: str


JobShown = Annotated[JobPending | JobCompleted | JobFailed, Field(discriminator="status")]


class ModelShown(_Answer):
    """An entry of the catalogue; width and height are the preferred size, used where a request names none."""

    model_id: str
    name: str
    description: str
    base_model: str
    status: Literal["active"]
    created_at: datetime
    tags: list[str]
    width: int
    height: int
    max_outputs: int
    operations: list[str]


class ErrorDetail(_Answer):
    """One field that cannot stay as it is."""

    field: str
    message: str


class ErrorBody(_Answer):
    """What went wrong: a code for programs, a sentence for people, and the fields concerned."""

    code: Annotated[str, Field(examples=["INVALID_FIELDS"])]
    message: str
    details: list[ErrorDetail]


class ErrorShown(_Answer):
    """The shape of every error of this API."""

    error: ErrorBody


class ModelsQuery(_Request):
    """Query of GET /v1/models."""

    limit: Annotated[int, Field(ge=1, le=100, description="Most models in the answer")] = 20
    offset: Annotated[int, Field(ge=0, le=1_000_000, description="How many to skip")] = 0
    status: Annotated[
        Literal["active", "pending_training", "training", "failed"] | None,
        Field(description="Only models in this state; ours are all active"),
    ] = None


def blueprint(services: Services) -> Blueprint:
    """Give the four endpoints, bound to a web process's services."""
    made = Blueprint("realm", __name__)

    @made.before_request
    def authenticate() -> None:
        services.enter(bearer=False)

    @made.post("/v1/images/generate")
    def generate() -> Response:
        content = http.read_json(request, limit=services.settings.max_json_bytes)
        wished = http.parse(GenerateRequest, content)
        once = http.read_once(request, endpoint="realm generate", parts=[wished.model_dump_json().encode()])
        accepted = services.intake.submit(
            _wish_to_generate(wished), account_id=http.caller().account_id, dialect="realm", once=once
        )
        return _accepted(accepted, http.unknown_fields(GenerateRequest, content))

    @made.post("/v1/images/modify")
    def modify() -> Response:
        texts, files = http.read_form(request, limit=services.settings.max_upload_bytes)
        uploads = _uploads(texts, files, max_pixels=services.settings.max_image_pixels)
        wished = http.parse(ModifyRequest, {k: v for k, v in texts.items() if v != ""} | _required(texts))
        once = _once_for_form(request, wished, uploads)
        accepted = services.intake.submit(
            _wish_to_modify(wished, uploads),
            account_id=http.caller().account_id,
            dialect="realm",
            once=once,
        )
        sent = [*texts, *files]
        ignored = http.unknown_fields(ModifyRequest, [n for n in sent if n not in {"image", "mask"}])
        return _accepted(accepted, ignored)

    @made.get("/v1/images/jobs/<job_id>")
    def get_job(job_id: str) -> Response:
        job = services.intake.find(_parse_job_id(job_id), account_id=http.caller().account_id)
        return _shown(_present(job, services))

    @made.get("/v1/models")
    def list_models() -> Response:
        query = http.parse(ModelsQuery, dict(request.args.items()))
        models = services.intake.catalog.models if query.status in {None, "active"} else ()
        page = models[query.offset : query.offset + query.limit]
        return http.json_response(
            [_present_model(model).model_dump(mode="json", by_alias=True) for model in page]
        )

    @made.get("/v1/models/<model_id>")
    def get_model(model_id: str) -> Response:
        return _shown(_present_model(services.intake.catalog.find(model_id)))

    return made


def present_error(error: DarkroomError) -> Response:
    """Give any error in this API's shape."""
    problems: Sequence[FieldProblem] = error.problems if isinstance(error, InvalidFields) else ()
    body = ErrorShown(
        error=ErrorBody(
            code=error.code.upper(),
            message=error.message,
            details=[ErrorDetail(field=p.field, message=p.message) for p in problems],
        )
    )
    return http.json_response(body.model_dump(mode="json", by_alias=True), error.http_status)


def _wish_to_generate(wished: GenerateRequest) -> Wish:
    return Wish(
        operation=Operation.TEXT_TO_IMAGE,
        model=wished.model_id,
        prompt=wished.prompt,
        negative_prompt=wished.negative_prompt,
        width=wished.width,
        height=wished.height,
        guidance_scale=wished.guidance_scale,
        seed=wished.seed,
        num_images=wished.num_outputs,
        fields=_FIELDS,
    )


def _wish_to_modify(wished: ModifyRequest, uploads: dict[str, Upload]) -> Wish:
    return Wish(
        operation=Operation.INPAINT if "mask" in uploads else Operation.IMAGE_TO_IMAGE,
        model=wished.model_id,
        prompt=wished.prompt,
        negative_prompt=wished.negative_prompt,
        guidance_scale=wished.guidance_scale,
        strength=wished.strength,
        seed=wished.seed,
        num_images=wished.num_outputs,
        image=uploads["image"],
        mask_image=uploads.get("mask"),
        # An input image's proportions can be beyond a model; there is no field for the size here.
        fields={**_FIELDS, "width": "image", "height": "image"},
    )


def _required(texts: dict[str, str]) -> dict[str, str]:
    """An empty optional field means "not given", as HTML forms send it; an empty required one is an error."""
    return {name: texts[name] for name in ("modelId", "prompt") if name in texts}


def _uploads(texts: dict[str, str], files: dict[str, bytes], *, max_pixels: int) -> dict[str, Upload]:
    problems = [
        FieldProblem(field=name, message="must be sent as a file part with a filename, not as text")
        for name in ("image", "mask")
        if name in texts
    ]
    if "image" not in files and "image" not in texts:
        problems.append(FieldProblem(field="image", message="is required, as a JPEG or PNG file"))
    if problems:
        raise InvalidFields(*problems)
    return {
        name: Upload(
            field=name,
            data=files[name],
            header=imaging.inspect(files[name], field=name, max_pixels=max_pixels, accepted=ACCEPTED_IMAGES),
        )
        for name in ("image", "mask")
        if name in files
    }


def _once_for_form(incoming: Request, wished: ModifyRequest, uploads: dict[str, Upload]) -> Any:
    parts = [wished.model_dump_json().encode()]
    parts += [name.encode() + uploads[name].data for name in sorted(uploads)]
    return http.read_once(incoming, endpoint="realm modify", parts=parts)


def _accepted(accepted: Accepted, warnings: list[str]) -> Response:
    body = JobAccepted(
        job_id=JOB_PREFIX + accepted.job_id.hex,
        status="queued",
        estimated_completion=accepted.estimated_completion,
        warnings=warnings or None,
    )
    return _shown(body, 202)


def _shown(body: BaseModel, status: int = 200) -> Response:
    return http.json_response(body.model_dump(mode="json", by_alias=True, exclude_none=True), status)


def _parse_job_id(shown: str) -> UUID:
    try:
        return UUID(hex=shown.removeprefix(JOB_PREFIX))
    except ValueError:
        raise UnknownJob from None


def _present(job: JobRow, services: Services) -> JobPending | JobCompleted | JobFailed:
    shared: dict[str, Any] = {
        "job_id": JOB_PREFIX + job.id.hex,
        "job_type": "image_generation" if job.operation == Operation.TEXT_TO_IMAGE else "image_modification",
        "created_at": job.created_at,
    }
    if job.status is Status.COMPLETED:
        with services.database.autocommit() as tx:
            rows = output_rows.of_job(tx, job.id)
        results = [_present_output(row, job, services) for row in rows]
        return JobCompleted(
            **shared, status="completed", completed_at=job.finished_at or job.created_at, results=results
        )
    if job.status in {Status.FAILED, Status.CANCELLED}:
        return JobFailed(
            **shared,
            status="failed",
            completed_at=job.finished_at or job.created_at,
            error_code=(job.error_code or job.status).upper(),
            error_message=job.error_message or "The job was cancelled.",
        )
    return JobPending(
        **shared,
        status="queued" if job.status is Status.QUEUED else "processing",
        estimated_completion=services.intake.estimate(job),
        progress=round(job.progress, 3),
    )


def _present_output(row: OutputRow, job: JobRow, services: Services) -> Result:
    return Result(
        image_id=IMAGE_PREFIX + row.id.hex,
        url=output_url(row, job.output_prefix, services.settings),
        seed=row.seed,
        width=row.width,
        height=row.height,
        expires_at=None if row.persisted_at else row.expires_at.astimezone(UTC),
    )


def _present_model(model: Model) -> ModelShown:
    return ModelShown(
        model_id=model.id,
        name=model.name,
        description=model.description,
        base_model=model.targets[0].model,
        status="active",
        created_at=model.created_at,
        tags=list(model.tags),
        width=model.width,
        height=model.height,
        max_outputs=min(model.max_images, MAX_OUTPUTS),
        operations=sorted(model.operations),
    )


_ERRORS: Final = dict.fromkeys((401, 403, 429, 503), ErrorShown)
OPERATIONS: Final = (
    Described(
        name="generateImage",
        method="POST",
        path="/v1/images/generate",
        summary="Generate image (text to image)",
        description="Answers as soon as the job is written down; then poll `GET /v1/images/jobs/{jobId}`. "
        "Members it does not know are ignored and named in `warnings`.",
        request=GenerateRequest,
        example={
            "modelId": "sketch",
            "prompt": "a lighthouse on a cliff at sunset, calm sea",
            "width": 768,
            "height": 512,
            "numOutputs": 1,
        },
        answers={202: JobAccepted, **_ERRORS, **dict.fromkeys((400, 404, 413, 415, 422), ErrorShown)},
        idempotent=True,
        counted=True,
    ),
    Described(
        name="modifyImage",
        method="POST",
        path="/v1/images/modify",
        summary="Modify image (image to image, inpaint)",
        description="Redraws the whole image; with a `mask`, only its white areas. "
        "An empty text field counts as not sent. Answers like generate.",
        request=ModifyRequest,
        example={"modelId": "sketch", "prompt": "the same place in winter, snow", "strength": 0.6},
        uploads=(
            UploadField(name="image", required=True, description="The input image, JPEG or PNG"),
            UploadField(name="mask", required=False, description="Black and white image; white areas change"),
        ),
        answers={202: JobAccepted, **_ERRORS, **dict.fromkeys((400, 404, 413, 415, 422), ErrorShown)},
        idempotent=True,
        counted=True,
    ),
    Described(
        name="getJob",
        method="GET",
        path="/v1/images/jobs/{jobId}",
        summary="Get job status and results",
        description="Poll about once a second until `status` is `completed` or `failed`; each result has a "
        "`url` to download. A job of another account answers 404.",
        parts=(
            PathPart(
                name="jobId",
                description="The `jobId` that generate or modify answered",
                example="job_0193f0a27c3b7e4d8a1b2c3d4e5f6071",
                pattern=f"^{JOB_PREFIX}[0-9a-f]{{32}}$",
            ),
        ),
        answers={200: JobShown, **_ERRORS, 404: ErrorShown},
        counted=True,
    ),
    Described(
        name="listModels",
        method="GET",
        path="/v1/models",
        summary="List models",
        description="What `modelId` may name, with each model's preferred size and what it can do.",
        query=ModelsQuery,
        answers={200: list[ModelShown], **_ERRORS, 422: ErrorShown},
        counted=True,
    ),
    Described(
        name="getModel",
        method="GET",
        path="/v1/models/{modelId}",
        summary="Get a model",
        description="An alias of a model answers with the model itself.",
        parts=(PathPart(name="modelId", description="A model's id or alias", example="sketch"),),
        answers={200: ModelShown, **_ERRORS, 404: ErrorShown},
        counted=True,
    ),
)
