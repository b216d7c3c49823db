"""Realm AI Images, answered in its own words: /v1/images/generate, /modify, /jobs/{jobId} and /v1/models.

The Realm page is the contract (field names, limits, 202, white = change); where it shows no body we follow
the webhook that the vendor documents for the same job. Unknown members are ignored, with a warning.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final
from uuid import UUID

from flask import Blueprint, Request, Response, request
from pydantic import BaseModel, Field

from app import imaging
from app.api import http
from app.api.operations import Operation as Described
from app.api.operations import PathPart
from app.api.operations import Upload as UploadField
from app.api.realm_models import (
    MAX_OUTPUTS,
    Answer,
    GenerateRequest,
    JobAccepted,
    JobCompleted,
    JobFailed,
    JobPending,
    JobShown,
    ModelShown,
    ModelsQuery,
    ModifyRequest,
    Result,
)
from app.api.services import Services
from app.db import outputs as output_rows
from app.db.door import Once
from app.db.history import JobRow, OutputRow
from app.domain.catalog import Model
from app.domain.job import Status
from app.domain.spec import Operation
from app.errors import DarkroomError, FieldProblem, InvalidFields, UnknownJob
from app.intake import Accepted
from app.shown import output_url
from app.wish import Terms, Upload, Wish

JOB_PREFIX: Final = "job_"
IMAGE_PREFIX: Final = "img_"
_JOB_ID: Final = re.compile(rf"{JOB_PREFIX}[0-9a-f]{{32}}")
ACCEPTED_IMAGES: Final = ("PNG", "JPEG")

_UPLOADS: Final = ("image", "mask")
_ENDED: Final = {Status.FAILED: "failed", Status.CANCELLED: "was cancelled"}

_FIELDS: Final = {
    "model": "modelId",
    "width": "width",
    "height": "height",
    "num_images": "numOutputs",
}
"""The spec's names and Realm's, where a check of the catalogue may complain about them."""


class ErrorDetail(Answer):
    """One field that cannot stay as it is."""

    field: str
    message: str


class ErrorBody(Answer):
    """What went wrong: a code for programs, a sentence for people, and the fields concerned."""

    code: Annotated[str, Field(description="Stable, such as INVALID_FIELDS or JOB_NOT_FOUND")]
    message: str
    details: list[ErrorDetail]


class ErrorShown(Answer):
    """The shape of every error of this API."""

    error: ErrorBody


def blueprint(services: Services) -> Blueprint:
    """Give the endpoints of images, bound to a web process's services."""
    made = Blueprint("realm", __name__)

    @made.before_request
    def authenticate() -> None:
        services.enter(bearer=False)

    @made.post("/v1/images/generate")
    def generate() -> Response:
        with services.bodies.reading(http.caller().account_id):
            content = http.read_json(request, limit=services.settings.max_json_bytes)
        wished = http.parse(GenerateRequest, content)
        once = http.read_once(request, endpoint="realm generate", parts=[wished.model_dump_json().encode()])
        accepted = _submit(services, _wish_to_generate(wished, _terms(services)), once)
        return _accepted(accepted, http.unknown_fields(GenerateRequest, content))

    @made.post("/v1/images/modify")
    def modify() -> Response:
        with services.bodies.reading(http.caller().account_id):
            texts, files = http.read_form(request, limit=services.settings.max_upload_bytes)
        wished = _parse_form(texts, files)
        uploads = _inspect(files, max_pixels=services.settings.max_image_pixels)
        once = _once_for_form(request, wished, uploads)
        accepted = _submit(services, _wish_to_modify(wished, uploads, _terms(services)), once)
        sent = [*texts, *files]
        ignored = http.unknown_fields(ModifyRequest, [name for name in sent if name not in _UPLOADS])
        return _accepted(accepted, ignored)

    @made.get("/v1/images/jobs/<job_id>")
    def get_job(job_id: str) -> Response:
        job = services.intake.find(_parse_job_id(job_id), account_id=http.caller().account_id)
        return _shown(_present(job, services))

    return made


def owns(path: str) -> bool:
    """Whether errors at this address are told in this API's shape: below /v1/images, but for others' own."""
    return path.startswith("/v1/images/")


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


def _terms(services: Services) -> Terms:
    return Terms(test=http.caller().test, base_url=http.base_url(services.settings))


def _submit(services: Services, wish: Wish, once: Once | None) -> Accepted:
    return services.intake.submit(wish, account_id=http.caller().account_id, dialect="realm", once=once)


def _wish_to_generate(wished: GenerateRequest, terms: Terms) -> Wish:
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
        terms=terms,
    )


def _wish_to_modify(wished: ModifyRequest, uploads: dict[str, Upload], terms: Terms) -> Wish:
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
        terms=terms,
    )


def _parse_form(texts: dict[str, str], files: dict[str, bytes]) -> ModifyRequest:
    """An empty optional field means "not given", as HTML forms send it; an empty required one is an error."""
    problems = http.misplaced(ModifyRequest, texts, files, uploads=_UPLOADS)
    if "image" not in files and not texts.get("image"):
        problems.append(FieldProblem(field="image", message="is required, as a JPEG or PNG file"))
    required = {"modelId", "prompt"}
    given = {name: text for name, text in texts.items() if text or name in required}
    return http.parse(ModifyRequest, given, besides=problems)


def _inspect(files: dict[str, bytes], *, max_pixels: int) -> dict[str, Upload]:
    return {
        name: Upload(
            field=name,
            data=files[name],
            header=imaging.inspect(files[name], field=name, max_pixels=max_pixels, accepted=ACCEPTED_IMAGES),
        )
        for name in _UPLOADS
        if name in files
    }


def _once_for_form(incoming: Request, wished: ModifyRequest, uploads: dict[str, Upload]) -> Once | None:
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
    if not _JOB_ID.fullmatch(shown):
        raise UnknownJob
    return UUID(hex=shown.removeprefix(JOB_PREFIX))


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
            error_message=job.error_message or f"The job {_ENDED[job.status]}.",
        )
    return JobPending(
        **shared,
        status="queued" if job.status is Status.QUEUED else "processing",
        estimated_completion=services.intake.estimate(job),
        # A job that waits for its next attempt still has the progress of the last one.
        progress=round(job.progress, 3) if job.status is Status.PROCESSING else 0.0,
    )


def _present_output(row: OutputRow, job: JobRow, services: Services) -> Result:
    return Result(
        image_id=IMAGE_PREFIX + row.id.hex,
        url=output_url(row, prefix=job.output_prefix, base_url=http.base_url(services.settings)),
        seed=row.seed,
        width=row.width,
        height=row.height,
        expires_at=None if row.persisted_at else row.expires_at,
    )


def list_models(services: Services) -> Response:
    """Answer GET /v1/models, which this API shares with OpenAI's: `app.api.models` tells them apart."""
    query = http.parse(ModelsQuery, {name: text for name, text in request.args.items() if text})
    models = services.intake.catalog.models if query.status in {None, "active"} else ()
    page = models[query.offset : query.offset + query.limit]
    return http.json_response(
        [_present_model(model).model_dump(mode="json", by_alias=True) for model in page]
    )


def get_model(model_id: str, services: Services) -> Response:
    """Answer GET /v1/models/{modelId}."""
    return _shown(_present_model(services.intake.catalog.find(model_id)))


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
        example={
            "modelId": "sketch",
            "prompt": "the same place in winter, snow",
            "strength": 0.6,
            "negativePrompt": "blurry",
            "guidanceScale": 7.5,
            "numOutputs": 1,
            "seed": 42,
        },
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
)
