"""What went wrong, in OpenAI's envelope, with the header that tells its clients whether to try again.

They repeat a 408, 409, 429 or 5xx by themselves, twice, unless `x-should-retry` says false.
"""

from http import HTTPStatus
from typing import Final

from flask import Response

from app.api import http
from app.api.openai_models import ErrorBody, ErrorShown
from app.db.history import JobRow
from app.domain.job import Status
from app.errors import (
    DarkroomError,
    IdempotencyMismatch,
    InvalidFields,
    QueueFull,
    RateLimited,
    RequestError,
    Unauthenticated,
    UnknownModel,
)
from app.shown import JOB_PREFIX

_INVALID: Final = "invalid_request_error"
_CODES: Final[dict[type[DarkroomError], str]] = {
    Unauthenticated: "invalid_api_key",
    RateLimited: "rate_limit_exceeded",
    QueueFull: "rate_limit_exceeded",
}
"""OpenAI's words for what our tree calls otherwise."""
_CALLERS_FAULT: Final = frozenset({"invalid_fields", "unsupported_media_type", "provider_refused"})
"""Codes of failed jobs that the same request would meet again: only a worker looks at pixels."""
_NO_KEY: Final = "No API key was sent; send yours in the header Authorization: Bearer YOUR_KEY."


def present_error(error: DarkroomError) -> Response:
    """Give any error in this API's shape; what a field makes invalid is 400 here, as OpenAI's is."""
    status = error.http_status
    if status == HTTPStatus.UNPROCESSABLE_ENTITY and not isinstance(error, IdempotencyMismatch):
        status = HTTPStatus.BAD_REQUEST
    message, param, code = _told(error)
    answer = _envelope(status, message, kind=_kind(error), param=param, code=code)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and not error.retryable:
        answer.headers["x-should-retry"] = "false"
    return answer


def _told(error: DarkroomError) -> tuple[str, str | None, str]:
    """Give message, param and code."""
    if isinstance(error, InvalidFields) and error.problems:
        sentences = dict.fromkeys(f"{problem.field}: {problem.message}" for problem in error.problems)
        first = error.problems[0]
        missing = first.message.startswith("is required")
        return "; ".join(sentences), first.field, "missing_required_parameter" if missing else "invalid_value"
    message = error.message
    if isinstance(error, Unauthenticated) and message == Unauthenticated().message:
        message = _NO_KEY
    param = "model" if isinstance(error, UnknownModel) else None
    return message, param, _CODES.get(type(error), error.code)


def _kind(error: DarkroomError) -> str:
    if isinstance(error, RateLimited | QueueFull):
        return "requests"
    return _INVALID if isinstance(error, RequestError) else "server_error"


def failed(job: JobRow) -> Response:
    """Give the answer for a job that ended without images; sending it again would only buy the same end."""
    code = job.error_code or job.status
    message = job.error_message or "The job failed."
    if job.status is Status.CANCELLED:
        status, message = HTTPStatus.CONFLICT, "The job was cancelled before its images were done."
    elif code in _CALLERS_FAULT:
        status = HTTPStatus.BAD_REQUEST
    else:
        status = HTTPStatus.INTERNAL_SERVER_ERROR
    field = message.partition(": ")[0]
    answer = _envelope(
        status,
        message,
        kind="server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else _INVALID,
        param=field if field in {"image", "mask"} else None,
        code="invalid_value" if code in {"invalid_fields", "unsupported_media_type"} else code,
    )
    answer.headers["x-should-retry"] = "false"
    return answer


def unfinished(job: JobRow, *, waited: float) -> Response:
    """Give the answer for a job that goes on after `waited` seconds; the same request joins it."""
    job_id = JOB_PREFIX + job.id.hex
    answer = _envelope(
        HTTPStatus.GATEWAY_TIMEOUT,
        f"The images were not done within {waited:g} seconds, and the job goes on: send the same request "
        f"again to wait for it, or ask for GET /v1/jobs/{job_id}.",
        kind="server_error",
        param=None,
        code="not_done_in_time",
    )
    answer.headers["Retry-After"] = "1"
    answer.headers["x-should-retry"] = "true"
    return answer


def _envelope(status: int, message: str, *, kind: str, param: str | None, code: str) -> Response:
    body = ErrorShown(error=ErrorBody(message=message, type=kind, param=param, code=code))
    return http.json_response(body.model_dump(mode="json"), status)
