"""Darkroom's own dialect: any operation as a job, to be waited for, watched, cancelled and repeated.

What no hosted API has: one spec for all operations, the place in the queue, an honest estimate, events while
the job runs, and its whole timeline. Jobs of the other dialects can be read and cancelled here too.
"""

import math
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

import orjson
from flask import Blueprint, Response, request
from pydantic import BaseModel

from app.api import events, http, jobs_described, outputs
from app.api.jobs_answers import present, present_page, present_timeline
from app.api.jobs_models import JOB_PATTERN, EventsQuery, JobsQuery, JobsShown, WaitQuery
from app.api.jobs_wish import ask, wish_of
from app.api.services import Services
from app.api.strict import read_query
from app.db import door, history
from app.db.door import Once
from app.db.history import JobRow
from app.domain.job import TERMINAL
from app.errors import (
    Busy,
    DarkroomError,
    FieldProblem,
    IdempotencyMismatch,
    InvalidFields,
    UnknownJob,
    UnknownModel,
)
from app.shown import JOB_PREFIX

OPERATIONS: Final = jobs_described.OPERATIONS
_DIALECT: Final = "jobs"
_WAIT: Final = re.compile(r'wait\s*=\s*"?([0-9]{1,9})"?', re.IGNORECASE)
_EVENT_ID: Final = re.compile(r"[0-9]{1,18}")
_LONGEST_RETRY_AFTER: Final = 60
"""Seconds after which to ask again at the latest: a cancelled job ends long before its estimate."""


def blueprint(services: Services) -> Blueprint:
    """Give the endpoints, bound to a web process's services."""
    made = Blueprint("jobs", __name__)

    @made.before_request
    def authenticate() -> None:
        services.enter(bearer=True)

    _add_making(made, services)
    _add_reading(made, services)
    return made


def present_error(error: DarkroomError) -> Response:
    """Give any error in the shape of Darkroom's own endpoints."""
    return outputs.present_error(error)


def _add_making(made: Blueprint, services: Services) -> None:
    @made.post("/v1/jobs")
    def submit() -> Response:
        wait = _asked_wait(services)
        job_id, replayed = _submit(services)
        return _accepted(job_id, wait, services, replayed=replayed)

    @made.post("/v1/jobs/<job_id>/retry")
    def retry(job_id: str) -> Response:
        wait = _asked_wait(services)
        old = _parse_id(job_id)
        once = http.read_once(request, endpoint="jobs retry", parts=[old.bytes])
        caller = http.caller()
        accepted = services.intake.retry(old, account_id=caller.account_id, test=caller.test, once=once)
        return _accepted(accepted.job_id, wait, services, replayed=accepted.replayed)

    @made.delete("/v1/jobs/<job_id>")
    def cancel(job_id: str) -> Response:
        job = services.intake.cancel(_parse_id(job_id), account_id=http.caller().account_id)
        return _shown_job(job, services)


def _add_reading(made: Blueprint, services: Services) -> None:
    @made.get("/v1/jobs")
    def list_jobs() -> Response:
        query = read_query(JobsQuery)
        before = None if query.before is None else _parse_cursor(query.before)
        account_id = http.caller().account_id
        with services.searches.reading(account_id), services.database.autocommit() as tx:
            found = history.list_jobs(
                tx,
                account_id=account_id,
                filters=_filters(query, services),
                before=before,
                limit=query.limit + 1,
            )
        base_url = http.base_url(services.settings)
        page = present_page(found[: query.limit], services, base_url=base_url)
        more = _next_page(base_url, page[-1].id) if len(found) > query.limit else None
        return _shown(JobsShown(jobs=page, next=more))

    @made.get("/v1/jobs/<job_id>")
    def read(job_id: str) -> Response:
        wait = _asked_wait(services)
        job = services.intake.find(_parse_id(job_id), account_id=http.caller().account_id)
        job, waited = _waited_for(job, wait, services)
        return _shown_job(job, services, wait=wait if waited else None)

    @made.get("/v1/jobs/<job_id>/events")
    def watch(job_id: str) -> Response:
        query = read_query(EventsQuery)
        job = services.intake.find(_parse_id(job_id), account_id=http.caller().account_id)
        return events.answer(
            services,
            job,
            after=_last_event(query.last_event_id),
            base_url=http.base_url(services.settings),
            bodiless=request.method == "HEAD",
        )

    @made.get("/v1/jobs/<job_id>/timeline")
    def timeline(job_id: str) -> Response:
        job = services.intake.find(_parse_id(job_id), account_id=http.caller().account_id)
        with services.database.autocommit() as tx:
            found = history.timeline(tx, job.id)
        return _shown(present_timeline(job.id, found))


def _submit(services: Services) -> tuple[UUID, bool]:
    """Give the request's job, and whether an earlier one made it; all that the body held is let go."""
    account_id = http.caller().account_id
    with services.bodies.reading(account_id):
        content = http.read_json(
            request, limit=_longest_body(services), small=services.settings.max_json_bytes
        )
    asked = ask(content, longest=services.settings.max_retention)
    body = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    once = http.read_once(request, endpoint="jobs submit", parts=[body])
    known = _first_use(once, services) if once is not None and asked.names_images else None
    if known is not None:
        return known, True
    with services.bodies.reading(account_id, places=asked.addresses):
        accepted = services.intake.submit(
            wish_of(asked, services), account_id=account_id, dialect=_DIALECT, once=once
        )
    return accepted.job_id, accepted.replayed


def _longest_body(services: Services) -> int:
    """Images may come as base64 text, which is a third longer than they are."""
    return services.settings.max_json_bytes + services.settings.max_upload_bytes * 4 // 3


@dataclass(frozen=True, kw_only=True)
class _Wait:
    """A wish to wait, already cut to what this installation allows; `preferred` if by the Prefer header."""

    time: timedelta
    preferred: bool


def _asked_wait(services: Services) -> _Wait | None:
    """The wait that the request asks for; a preference that cannot be read is none, by RFC 7240.

    Raises:
        InvalidFields: `?wait=` is no number of seconds.
    """
    query, longest = read_query(WaitQuery), services.settings.longest_wait
    if query.wait is not None:
        return _Wait(time=min(timedelta(seconds=min(query.wait, 1e6)), longest), preferred=False)
    for preference in ",".join(request.headers.getlist("Prefer")).split(","):
        if found := _WAIT.fullmatch(preference.partition(";")[0].strip()):
            return _Wait(time=min(timedelta(seconds=int(found[1])), longest), preferred=True)
    return None


def _waited_for(job: JobRow, wait: _Wait | None, services: Services) -> tuple[JobRow, bool]:
    """The job after the wait, and whether there was one: while all places are taken there is none."""
    if wait is None or job.status in TERMINAL:
        return job, wait is not None
    try:
        with services.waits.place(job.account_id):
            services.waits.until_ended(job.id, timeout=wait.time)
    except Busy:
        return job, False
    return services.intake.find(job.id, account_id=job.account_id), True


def _accepted(job_id: UUID, wait: _Wait | None, services: Services, *, replayed: bool) -> Response:
    """202 with the whole job; 200 when it was waited for and has ended."""
    job = services.intake.find(job_id, account_id=http.caller().account_id)
    job, waited = _waited_for(job, wait, services)
    status = 200 if waited and job.status in TERMINAL else 202
    answer = _shown_job(job, services, status, wait=wait if waited else None)
    answer.headers["Location"] = f"{http.base_url(services.settings)}/v1/jobs/{JOB_PREFIX}{job.id.hex}"
    if replayed:
        answer.headers["Idempotent-Replayed"] = "true"
    return answer


def _shown_job(job: JobRow, services: Services, status: int = 200, *, wait: _Wait | None = None) -> Response:
    shown = present(job, services, base_url=http.base_url(services.settings))
    answer = _shown(shown, status)
    if job.status not in TERMINAL:
        answer.headers["Retry-After"] = str(_seconds_until(shown.estimated_completion))
    if wait is not None and wait.preferred:
        answer.headers["Preference-Applied"] = f"wait={wait.time.total_seconds():.0f}"
    return answer


def _seconds_until(done: datetime | None) -> int:
    if done is None:
        return _LONGEST_RETRY_AFTER
    return min(max(1, math.ceil((done - datetime.now(UTC)).total_seconds())), _LONGEST_RETRY_AFTER)


def _first_use(once: Once, services: Services) -> UUID | None:
    """The job that this key made before: then the images that the request names need not be had again."""
    with services.database.raw() as connection:
        found = door.first_use(
            connection, account_id=http.caller().account_id, endpoint=once.endpoint, key=once.key
        )
    if found is not None and found.request_sha256 != once.request_sha256:
        raise IdempotencyMismatch
    return None if found is None else found.id


def _filters(query: JobsQuery, services: Services) -> history.Filters:
    model = query.model
    if model is not None:
        with suppress(UnknownModel):  # jobs of a model that has left the catalogue are still there
            model = services.intake.catalog.find(model).id
    return history.Filters(
        status=query.status,
        operation=query.operation,
        model=model,
        provider=query.provider,
        dialect=query.dialect,
        track_id=query.track_id,
        created_after=query.created_after,
        created_before=query.created_before,
    )


def _next_page(base_url: str, last: str) -> str:
    query = {**{name: text for name, text in request.args.items() if text}, "before": last}
    return f"{base_url}/v1/jobs?{urlencode(query)}"


def _last_event(asked: str | None) -> int:
    text = asked or request.headers.get("Last-Event-ID") or "0"
    if not _EVENT_ID.fullmatch(text):
        message = "must be the `id` of an event of this job, digits only"
        raise InvalidFields(FieldProblem(field="Last-Event-ID", message=message))
    return int(text)


def _parse_id(shown: str) -> UUID:
    if not re.fullmatch(JOB_PATTERN, shown):
        raise UnknownJob
    return UUID(hex=shown.removeprefix(JOB_PREFIX))


def _parse_cursor(shown: str) -> UUID:
    try:
        return _parse_id(shown)
    except UnknownJob:
        problem = FieldProblem(field="before", message="must be the id of a job: job_ and 32 digits")
        raise InvalidFields(problem) from None


def _shown(body: BaseModel, status: int = 200) -> Response:
    return http.json_response(body.model_dump(mode="json"), status)
