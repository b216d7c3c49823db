"""Jobs and outputs as Darkroom's own dialect shows them: in its answers and in the webhooks it sends.

Other dialects take their URLs of outputs from here too, so that an image has one address everywhere.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.db.history import JobRow, OutputRow
from app.domain.job import Access, CopyState, Status
from app.domain.spec import CensorKind, ImageFormat, JobSpec, Operation, StoredImage

JOB_PREFIX: Final = "job_"
IMAGE_PREFIX: Final = "img_"
Moment = Annotated[datetime, AfterValidator(lambda moment: moment.astimezone(UTC))]
"""A time in UTC with a Z, whatever the time zone of the database's session."""


class JobError(BaseModel):
    """Why a job failed: a code for programs and a sentence for people."""

    model_config = ConfigDict(frozen=True)

    code: Annotated[str, Field(examples=["timeout"])]
    message: str


class OutputShown(BaseModel):
    """An image of a job; `expires_at` is null when it does not expire."""

    model_config = ConfigDict(frozen=True)

    id: Annotated[str, Field(examples=["img_0193f0a27c3b7e4d8a1b2c3d4e5f6071"])]
    job_id: Annotated[str, Field(examples=["job_0193f0a27c3b7e4d8a1b2c3d4e5f6071"])]
    index: Annotated[int, Field(description="Position within the job, from 0")]
    url: Annotated[
        str | None,
        Field(
            description="Where to download it; null while it is private, then use …/download with your key"
        ),
    ]
    access: Annotated[
        Access,
        Field(description="`link`: whoever has the URL; `private`: you, with a key; `public`: published"),
    ]
    width: Annotated[int, Field(examples=[768])]
    height: Annotated[int, Field(examples=[512])]
    format: Annotated[ImageFormat, Field(examples=["png"])]
    size: Annotated[int, Field(description="Bytes", examples=[412_873])]
    seed: Annotated[int, Field(description="Reproduces this image alone")]
    sha256: str
    flagged: Annotated[
        bool | None,
        Field(description="What the safety checker found; null when nobody looked. A flagged image is blank"),
    ]
    persisted: bool
    expires_at: Moment | None
    expired: Annotated[bool, Field(description="Whether it is gone: its time is over, or you deleted it")]
    published_at: Moment | None


_DRAWN: Final = (
    *("prompt", "negative_prompt", "width", "height", "num_inference_steps", "guidance_scale", "seed"),
    *("num_images", "safety_checker"),
)
"""Members of a spec that count for everything that a model draws."""


class InputShown(BaseModel):
    """An input image of a job, as it was sent."""

    model_config = ConfigDict(frozen=True)

    width: int
    height: int
    sha256: str


class SpecShown(BaseModel):
    """What a job was asked to do, with what was chosen where the request named nothing.

    A member that does not count for the job's operation is null.
    """

    model_config = ConfigDict(frozen=True)

    prompt: str | None
    negative_prompt: str | None
    width: int | None
    height: int | None
    num_inference_steps: int | None
    guidance_scale: float | None
    strength: float | None
    seed: int | None
    num_images: int | None
    output_format: ImageFormat
    quality: int | None
    safety_checker: bool | None
    safety_checker_type: CensorKind | None
    image: InputShown | None
    mask_image: InputShown | None
    mask_from_alpha: bool | None
    transform: Annotated[
        dict[str, Any] | None, Field(description="Parameters of an operation that no model does")
    ]
    watermarks: list[InputShown] | None


class JobUrls(BaseModel):
    """Where there is more about a job."""

    model_config = ConfigDict(frozen=True)

    self: str
    events: Annotated[str, Field(description="Server-Sent Events")]
    timeline: str


class JobShown(BaseModel):
    """A job of yours; `error` is null unless it failed or was cancelled."""

    model_config = ConfigDict(frozen=True)

    id: Annotated[str, Field(examples=["job_0193f0a27c3b7e4d8a1b2c3d4e5f6071"])]
    number: Annotated[
        int | None, Field(description="Its integer id, where its dialect shows one (modelslab)")
    ]
    status: Status
    operation: Annotated[Operation, Field(examples=["text_to_image"])]
    model: str
    provider: Annotated[str, Field(description="Who does it")]
    dialect: Annotated[str, Field(description="The API it was submitted through", examples=["jobs"])]
    track_id: Annotated[str | None, Field(description="Your own word for it")]
    test: Annotated[bool, Field(description="Whether a test key submitted it; its images are watermarked")]
    spec: SpecShown
    priority: int
    position: Annotated[
        int | None,
        Field(
            description="Its place in the queue, 1: next; null unless it is queued and asked for by itself"
        ),
    ]
    estimated_completion: Annotated[
        Moment | None,
        Field(
            description="By the latest runs of its model; null at the end, while no worker takes jobs from "
            "its queue, and in lists unless it runs"
        ),
    ]
    unservable: Annotated[
        str | None,
        Field(
            description="Why nobody can draw it now, while it is queued; null: somebody can, be they busy. "
            "In lists always null",
            examples=["no live worker takes jobs from gpu.0"],
        ),
    ]
    stage: Annotated[
        str | None, Field(description="What the running attempt is at", examples=["loading", "generating"])
    ]
    step: Annotated[int | None, Field(description="Steps done, over all its images; null while unknown")]
    steps: int | None
    progress: Annotated[float, Field(ge=0, le=1)]
    attempt: Annotated[int, Field(description="Attempts begun so far")]
    max_attempts: int
    retain_seconds: Annotated[int | None, Field(description="As asked for; null: the installation's")]
    persist: bool
    private: bool
    retry_of: Annotated[str | None, Field(description="The job that this one repeats")]
    created_at: Moment
    started_at: Annotated[Moment | None, Field(description="When its latest attempt began")]
    finished_at: Moment | None
    cancel_requested_at: Moment | None
    error: JobError | None
    warnings: Annotated[
        list[str],
        Field(description="Sentences on parameters that had no effect or were changed, once it is completed"),
    ]
    cost: Annotated[
        float | None,
        Field(description="What its provider charges, in the operator's currency; null while unknown"),
    ]
    outputs: list[OutputShown]
    urls: JobUrls


def job_shown(
    job: JobRow,
    outputs: Sequence[OutputRow],
    *,
    base_url: str,
    position: int | None = None,
    estimated_completion: datetime | None = None,
    unservable: str | None = None,
) -> JobShown:
    """Give a job with its outputs; `base_url` is where customers reach us, without a slash at its end."""
    running = job.status is not Status.QUEUED
    return JobShown(
        id=JOB_PREFIX + job.id.hex,
        number=job.number,
        status=job.status,
        operation=Operation(job.operation),
        model=job.model,
        provider=job.provider,
        dialect=job.dialect,
        track_id=job.track_id,
        test=job.test,
        spec=_spec(JobSpec.model_validate(job.spec)),
        priority=job.priority,
        position=position,
        estimated_completion=estimated_completion,
        unservable=unservable,
        stage=job.stage,
        step=job.step,
        steps=job.steps,
        # A job that waits for its next attempt still has the progress of the last one.
        progress=round(job.progress, 3) if running else 0.0,
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        retain_seconds=job.retain_seconds,
        persist=job.persist,
        private=job.access == Access.PRIVATE,
        retry_of=None if job.retry_of is None else JOB_PREFIX + job.retry_of.hex,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        cancel_requested_at=job.cancel_requested_at,
        error=_error(job),
        warnings=job.warnings or [],
        cost=None if job.cost is None else float(job.cost),
        outputs=[output_shown(row, prefix=job.output_prefix, base_url=base_url) for row in outputs],
        urls=_urls(job.id, base_url),
    )


def _urls(job_id: UUID, base_url: str) -> JobUrls:
    at = f"{base_url}/v1/jobs/{JOB_PREFIX}{job_id.hex}"
    return JobUrls(self=at, events=f"{at}/events", timeline=f"{at}/timeline")


def output_shown(row: OutputRow, *, prefix: UUID, base_url: str) -> OutputShown:
    """Give an output of the job whose `output_prefix` this is."""
    copied = row.copy_state is CopyState.COPIED
    kept = row.persisted_at is not None or copied
    return OutputShown(
        id=IMAGE_PREFIX + row.id.hex,
        job_id=JOB_PREFIX + row.job_id.hex,
        index=row.index,
        url=output_url(row, prefix=prefix, base_url=base_url),
        access=row.access,
        width=row.width,
        height=row.height,
        format=ImageFormat(row.format),
        size=row.size,
        seed=row.seed,
        sha256=row.sha256,
        flagged=row.flagged,
        persisted=row.persisted_at is not None,
        expires_at=None if kept else row.expires_at,
        expired=row.expired and not copied,
        published_at=row.published_at,
    )


def _spec(spec: JobSpec) -> SpecShown:
    counts: dict[str, Any] = {"output_format": spec.output_format, "quality": spec.quality}
    counts["image"] = _input(spec.image)
    if spec.transform is not None:
        counts["transform"] = spec.transform.model_dump(mode="json", exclude={"operation"}, exclude_none=True)
        counts["watermarks"] = [_input(each) for each in spec.watermarks] or None
    else:
        counts |= {name: getattr(spec, name) for name in _DRAWN}
    if spec.transform is None and spec.image is not None:
        counts["strength"] = spec.strength
    if spec.mask_image is not None:
        counts |= {"mask_image": _input(spec.mask_image), "mask_from_alpha": spec.mask_from_alpha}
    if spec.safety_checker:
        counts["safety_checker_type"] = spec.safety_checker_type
    return SpecShown(**{**dict.fromkeys(SpecShown.model_fields), **counts})


def _input(image: StoredImage | None) -> InputShown | None:
    if image is None:
        return None
    return InputShown(width=image.width, height=image.height, sha256=image.sha256)


def output_url(row: OutputRow, *, prefix: UUID, base_url: str, as_base64: bool = False) -> str | None:
    """Give where an output is to be had: in its customer's bucket once it is there, else at our stable URL.

    None while only its account may fetch it, with a key.

    Args:
        prefix: the job's `output_prefix`.
        base_url: where customers reach us, without a slash at its end.
        as_base64: the address of the image as base64 text, which ModelsLab's clients may ask for.
    """
    if row.copy_state is CopyState.COPIED:
        return row.copy_url
    if row.access is Access.PRIVATE:
        return None
    extension = "base64" if as_base64 else ImageFormat(row.format).extension
    return f"{base_url}/outputs/{prefix.hex}-{row.index}.{extension}"


def _error(job: JobRow) -> JobError | None:
    """A queued job still has the error of the attempt before, which is no news to its owner."""
    if job.status not in {Status.FAILED, Status.CANCELLED}:
        return None
    message = (
        job.error_message or f"The job {'was cancelled' if job.status is Status.CANCELLED else 'failed'}."
    )
    return JobError(code=job.error_code or job.status.value, message=message)
