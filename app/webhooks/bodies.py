"""What a webhook says, in three forms: ModelsLab's, Realm's envelope, and our own.

A body is JSON below 20 kB, as Standard Webhooks advises: images are links, never base64 text.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import orjson

from app import realtime, shown
from app.db.history import JobRow, OutputRow
from app.domain.job import Status
from app.domain.spec import Operation
from app.domain.webhook import Event, Form

MAX_BODY: Final = 20_000
"""Bytes of a body at most."""
_SHORTER: Final = (2000, 500, 100)
"""Longest texts, in characters, of a body that is too long; tried in turn."""
_DATA_URI: Final = re.compile(r"data:[^,]{0,100},")
_TEST: Final = "This is a test of your webhook; no job has ended."


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a webhook tells of.

    Attributes:
        delivery_id: of the delivery that carries it.
        at: when the event happened.
        job: None for a test.
        base_url: where customers reach us, without a slash at its end.
    """

    delivery_id: UUID
    event: Event
    at: datetime
    job: JobRow | None
    outputs: Sequence[OutputRow] = ()
    base_url: str = ""


def render(form: Form, told: Told) -> str:
    """Give the body for an event; it says what the event says, though the job may have moved on since."""
    if told.event is Event.PROCESSING and told.job is not None:
        running = replace(
            told.job, status=Status.PROCESSING, finished_at=None, progress=0.0, stage=None, step=None
        )
        told = replace(told, job=running, outputs=())
    return _encode(_BUILDERS[form](told))


def _modelslab(told: Told) -> dict[str, Any]:
    job = told.job
    if job is None:
        return {"status": "test", "id": 0, "message": _TEST, "track_id": None}
    echo = job.echo or {}
    ids = {"id": job.number or f"{shown.JOB_PREFIX}{job.id.hex}"}
    track = {"track_id": echo.get("track_id", job.track_id)}
    if job.status is Status.PROCESSING:
        return {"status": "processing", **ids, **track}
    if job.status is not Status.COMPLETED:
        return {"status": "failed", **ids, "message": realtime.failure(job), **track}
    urls = [
        shown.output_url(
            row, prefix=job.output_prefix, base_url=told.base_url, as_base64=bool(echo.get("base64"))
        )
        for row in told.outputs
    ]
    return {
        "status": "success",
        **ids,
        "output": [url for url in urls if url is not None],
        "generationTime": realtime.generation_seconds(job),
        **track,
        "webhook_status": "",
        "meta": realtime.meta(job, checked=realtime.was_checked(told.outputs)),
    }


def _realm(told: Told) -> dict[str, Any]:
    # Realm knows no cancelled jobs: as when one polls, they show as failed.
    event = Event.FAILED if told.event is Event.CANCELLED else told.event
    return {
        "eventId": f"evt_{told.delivery_id.hex}",
        "eventType": event.value,
        "apiVersion": "v1",
        "createdAt": _moment(told.at),
        "data": {"object": "test", "message": _TEST} if told.job is None else _realm_job(told, told.job),
    }


def _realm_job(told: Told, job: JobRow) -> dict[str, Any]:
    drawn = job.operation == Operation.TEXT_TO_IMAGE
    data: dict[str, Any] = {
        "object": "job",
        "jobId": shown.JOB_PREFIX + job.id.hex,
        "jobType": "image_generation" if drawn else "image_modification",
        "createdAt": _moment(job.created_at),
    }
    if job.status is Status.PROCESSING:
        return {**data, "status": "processing"}
    data["completedAt"] = _moment(job.finished_at or told.at)
    if job.status is Status.COMPLETED:
        results = [_realm_result(row, job, told) for row in told.outputs]
        return {**data, "status": "completed", "results": results}
    code = (job.error_code or job.status.value).upper()
    return {**data, "status": "failed", "errorCode": code, "errorMessage": _message(job)}


def _realm_result(row: OutputRow, job: JobRow, told: Told) -> dict[str, Any]:
    output = shown.output_shown(row, prefix=job.output_prefix, base_url=told.base_url)
    result = {
        "imageId": output.id,
        "url": output.url,
        "seed": output.seed,
        "width": output.width,
        "height": output.height,
    }
    return result if output.expires_at is None else {**result, "expiresAt": _moment(output.expires_at)}


def _jobs(told: Told) -> dict[str, Any]:
    if told.job is None:
        data: dict[str, Any] = {"message": _TEST}
    else:
        job = shown.job_shown(told.job, told.outputs, base_url=told.base_url)
        data = job.model_dump(mode="json")
    return {"type": told.event.value, "timestamp": _moment(told.at), "data": data}


_BUILDERS: Final[dict[Form, Callable[[Told], dict[str, Any]]]] = {
    Form.MODELSLAB: _modelslab,
    Form.REALM: _realm,
    Form.JOBS: _jobs,
}


def _message(job: JobRow) -> str:
    return job.error_message or f"The job {'was cancelled' if job.status is Status.CANCELLED else 'failed'}."


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _encode(content: dict[str, Any]) -> str:
    body = orjson.dumps(_cut(content, None))
    for longest in _SHORTER:
        if len(body) <= MAX_BODY:
            break
        body = orjson.dumps(_cut(content, longest))
    return body.decode()


def _cut(value: Any, longest: int | None) -> Any:
    """Shorten texts, never links; what a request echoes may hold long prompts and even whole images."""
    if isinstance(value, dict):
        return {name: _cut(each, longest) for name, each in value.items()}
    if isinstance(value, list):
        return [_cut(each, longest) for each in value]
    if not isinstance(value, str) or value.startswith(("http://", "https://")):
        return value
    if found := _DATA_URI.match(value):
        return f"{found[0]}…"
    return value if longest is None or len(value) <= longest else f"{value[:longest]}…"
