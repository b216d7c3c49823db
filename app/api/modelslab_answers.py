"""How the ModelsLab dialect shows a job, in its direct answers and to `fetch`, and every error."""

import base64
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from flask import Response, request
from pydantic import BaseModel

from app import realtime
from app.api import http
from app.api.modelslab_families import Family, family_of
from app.api.modelslab_models import (
    ErrorShown,
    RealtimeDone,
    RealtimeFailed,
    RealtimeFetched,
    RealtimeNotYet,
    RealtimeQueued,
)
from app.api.services import Services
from app.buckets import public_link
from app.db import buckets, history
from app.db import outputs as output_rows
from app.db.history import JobRow, OutputRow
from app.domain.copies import object_name
from app.domain.job import CopyState, Status
from app.domain.spec import ImageFormat
from app.errors import (
    DarkroomError,
    FieldProblem,
    ForbiddenAddress,
    InvalidFields,
    NotOffered,
    QueueFull,
    TooLarge,
    UnknownModel,
    Unreachable,
)
from app.shown import output_url

_BAD_REQUEST, _FORBIDDEN = 400, 403
_STATUSES: Final[dict[type[DarkroomError], int]] = {
    InvalidFields: _BAD_REQUEST,
    ForbiddenAddress: _BAD_REQUEST,
    Unreachable: _BAD_REQUEST,
    TooLarge: _BAD_REQUEST,
    UnknownModel: _BAD_REQUEST,
    NotOffered: _FORBIDDEN,
}
"""Where this API's documented status is not ours."""
_VERBS: Final = ("must ", "is ", "cannot ", "names ", "has ")
"""How a message begins that goes on from a field's name."""
_LATER: Final = "Try to fetch request after seconds estimated"
_NOT_YET: Final = "try again later."
_UNCHECKED: Final = (
    "No safety checker is configured on this installation, so nobody looked at the images; "
    "ask your Darkroom operator."
)
_PRIVATE: Final = "The images were made private; only requests with your key can fetch them."
_NOT_COPIED: Final = (
    "Your bucket has not taken every image. Darkroom keeps those itself, links to its own copy, and goes on "
    "trying for 3 days; check the bucket and its details, and send them again with update_s3."
)


class Presenter:
    """Shows jobs of the current request's caller, at the address of one family."""

    def __init__(self, family: Family, services: Services) -> None:
        self._family = family
        self._services = services
        self._base_url = http.base_url(services.settings)

    def direct(self, job: JobRow) -> BaseModel:
        """Give the answer to the request that made the job: done, processing, or failed."""
        if job.status in {Status.FAILED, Status.CANCELLED}:
            return self._failed(job)
        if job.status is not Status.COMPLETED:
            return self._queued(job)
        outputs = self._outputs(job)
        links = self._links(job, outputs)
        if not links:
            return self._gone(outputs)
        return RealtimeDone(
            status="success",
            generation_time=realtime.generation_seconds(job),
            id=self._number(job),
            output=links,
            meta=realtime.meta(job, checked=realtime.was_checked(outputs)),
            **self._besides(job, outputs, links),
            **({"webhook_status": ""} if self._family.is_community else {}),
        )

    def fetched(self, job: JobRow) -> BaseModel:
        """Give the answer to fetch."""
        if job.status in {Status.FAILED, Status.CANCELLED}:
            return self._failed(job)
        if job.status is not Status.COMPLETED:
            eta = self._eta(job)
            return RealtimeNotYet(
                status="processing",
                **self._message(_NOT_YET),
                output="",
                eta=eta,
                tip=f"The images are likely to be there in {eta} seconds.",
            )
        outputs = self._outputs(job)
        links = self._links(job, outputs)
        if not links:
            return self._gone(outputs)
        return RealtimeFetched(
            status="success", id=self._number(job), output=links, **self._besides(job, outputs, links)
        )

    def _queued(self, job: JobRow) -> RealtimeQueued:
        asked = bool(job.spec.get("safety_checker"))
        checked = asked and self._services.settings.checks_safety
        number = self._number(job)
        return RealtimeQueued(
            status="processing",
            **({"tip": _UNCHECKED} if asked and not checked else {}),
            eta=self._eta(job),
            **self._message(_LATER),
            fetch_result=f"{self._base_url}{self._family.prefix}fetch/{number}",
            id=number,
            output=[],
            **({"webhook_status": ""} if self._family.is_community else {}),
            meta=realtime.meta(job, checked=checked),
            future_links=self._future_links(job),
        )

    def _failed(self, job: JobRow) -> RealtimeFailed:
        return RealtimeFailed(
            status="error", **self._message(realtime.failure(job)), code=job.error_code or job.status.value
        )

    def _gone(self, outputs: Sequence[OutputRow]) -> RealtimeFailed:
        if not all(output.expired for output in outputs):
            return RealtimeFailed(status="error", **self._message(_PRIVATE), code="private")
        since = max((output.purged_at or output.expires_at for output in outputs), default=datetime.now(UTC))
        message = f"output expired: the images are gone since {since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}."
        return RealtimeFailed(status="error", **self._message(message), code="gone")

    def _message(self, text: str) -> dict[str, str]:
        return {"message": text, "messege": text} if self._family.is_community else {"message": text}

    def _besides(self, job: JobRow, outputs: Sequence[OutputRow], links: Sequence[str]) -> dict[str, Any]:
        """What a success says only where there is something to say."""
        made: dict[str, Any] = {"proxy_links": list(links)} if self._family.is_public else {}
        tips = []
        if realtime.was_checked(outputs):
            made["nsfw_content_detected"] = any(output.flagged for output in outputs)
        elif job.spec.get("safety_checker"):
            tips.append(_UNCHECKED)
        if any(output.copy_state in {CopyState.PENDING, CopyState.GIVEN_UP} for output in outputs):
            tips.append(_NOT_COPIED)
        return {**made, "tip": " ".join(tips)} if tips else made

    def _eta(self, job: JobRow) -> int:
        ahead = None
        if job.status is Status.QUEUED:
            with self._services.database.autocommit() as tx:
                ahead = history.jobs_ahead(tx, job.id)
        left = self._services.intake.estimate(job, ahead=ahead) - datetime.now(UTC)
        return max(1, math.ceil(left.total_seconds()))

    def _outputs(self, job: JobRow) -> list[OutputRow]:
        with self._services.database.autocommit() as tx:
            return output_rows.of_job(tx, job.id)

    def _links(self, job: JobRow, outputs: Sequence[OutputRow]) -> list[str]:
        """Where the images are that are still to be had, or their base64 text itself."""
        as_text = _as_text(job)
        found = []
        for output in outputs:
            copied = output.copy_state is CopyState.COPIED
            if output.expired and not copied:
                continue
            if as_text and self._services.settings.modelslab_inline_base64 and not output.expired:
                data = self._services.storage.get_verified(output.key, sha256=output.sha256)
                found.append(base64.b64encode(data).decode())
            elif url := output_url(
                output, prefix=job.output_prefix, base_url=self._base_url, as_base64=as_text
            ):
                found.append(url)
        return found

    def _future_links(self, job: JobRow) -> list[str]:
        image_format = ImageFormat(job.spec["output_format"])
        names = [
            object_name(job.output_prefix, index, image_format=image_format, as_text=_as_text(job))
            for index in range(job.spec["num_images"])
        ]
        if job.storage_target_id is None:
            return [f"{self._base_url}/outputs/{name}" for name in names]
        with self._services.database.autocommit() as tx:
            target = buckets.by_id(tx, job.storage_target_id)
        assert target is not None
        return [public_link(target, name) for name in names]

    @staticmethod
    def _number(job: JobRow) -> int:
        assert job.number is not None
        return job.number


def _as_text(job: JobRow) -> bool:
    return bool((job.echo or {}).get("base64"))


def shown(body: BaseModel, status: int = 200) -> Response:
    """Give an answer in JSON; members that were not set are left out."""
    return http.json_response(body.model_dump(mode="json", by_alias=True, exclude_unset=True), status)


def present_error(error: DarkroomError) -> Response:
    """Give any error in this API's shape, with the HTTP status that it documents.

    A refused field is named in `message`, as `The width field must be at most 1024.`, and again in `errors`.
    """
    message, errors = _told(error)
    body: dict[str, Any] = {"status": "error", "message": message}
    if family_of(request.path).is_community:
        body["messege"] = message
    if errors:
        body["errors"] = errors
    if error.retry_after is not None:
        body["retry_after"] = math.ceil(error.retry_after.total_seconds())
    return shown(ErrorShown(**body), _STATUSES.get(type(error), error.http_status))


def _told(error: DarkroomError) -> tuple[str, dict[str, list[str]]]:
    """The error's sentence, in that API's own words where it documents them, and one per field."""
    if isinstance(error, InvalidFields):
        errors: dict[str, list[str]] = {}
        for problem in error.problems:
            errors.setdefault(problem.field, []).append(_sentence(problem))
        return " ".join(each for told in errors.values() for each in told), errors
    if isinstance(error, QueueFull):
        return f"Rate limit exceeded. Maximum {error.limit} queued requests allowed.", {}
    return error.message, {}


def _sentence(problem: FieldProblem) -> str:
    message = problem.message if problem.message.endswith((".", "?")) else f"{problem.message}."
    goes_on = message.startswith(_VERBS)
    return f"The {problem.field} field {message}" if goes_on else f"{problem.field}: {message}"
