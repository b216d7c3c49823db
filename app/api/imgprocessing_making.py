"""Making an image while its sender waits, as IMG Processing does: written down once, waited for, shown.

That API has no jobs to ask for, and its client sends a request again when it had no answer for 60 seconds.
So an equal request joins the job of the one before, while that is unfinished and for a minute at least.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from flask import request

from app.api import http
from app.api.services import Services
from app.db import library, outputs
from app.db.door import Once
from app.db.history import JobRow, OutputRow
from app.domain.job import Access, Status
from app.errors import (
    Gone,
    InvalidFields,
    JobCancelled,
    JobFailed,
    JobRefused,
    ProviderRefused,
    StillWorking,
    UnsupportedMedia,
)
from app.intake import Accepted
from app.settings import Settings
from app.wish import Terms, Wish

_PATIENCE: Final = timedelta(seconds=55)
"""Longest wait, whatever the setting: the vendor's client gives up after 60 s."""
_JOINED: Final = timedelta(seconds=60)
_AGAIN: Final = timedelta(seconds=1)
_AUTOMATIC: Final = "auto: "
"""How keys of ours begin; with its space, no Idempotency-Key header can hold one."""
_REFUSALS: Final = frozenset({ProviderRefused.code, InvalidFields.code, UnsupportedMedia.code})
"""Why a job fails whose request is at fault: what only shows when the pixels are looked at."""


def terms(settings: Settings, *, name: str) -> Terms:
    """Give how an image of the caller's is kept: privately, and for as long as its key's kind says."""
    test = http.caller().test
    retention = settings.test_retention if test else settings.library_retention
    return Terms(
        test=test,
        name=name,
        access=Access.PRIVATE,
        persist=retention is None,
        retain=retention,
        base_url=http.base_url(settings),
    )


def once_for(operation: str, parts: Sequence[bytes]) -> Once:
    """Give what makes a request one that is sent again: its Idempotency-Key, else all that it says.

    Args:
        operation: what is asked for.
        parts: everything that makes the request what it is.

    Raises:
        InvalidFields: the Idempotency-Key is malformed.
    """
    endpoint = f"imgprocessing {operation}"
    if given := http.read_once(request, endpoint=endpoint, parts=parts):
        return given
    content = hashlib.sha256(http.caller().key_id.bytes)
    for part in parts:
        content.update(len(part).to_bytes(8, "big") + part)
    return Once(
        endpoint=endpoint,
        key=_AUTOMATIC + content.hexdigest(),
        request_sha256=content.digest(),
        lasts=_JOINED,
    )


def make(services: Services, wish: Callable[[], Wish], once: Once, *, places: int = 0) -> OutputRow:
    """Have an image made and give it.

    Args:
        wish: reads the inputs; called once there is a place to wait in.
        places: of those that the account has for bodies, how many reading them takes.

    Raises:
        Busy, RateLimited: as many wait, or read images, as may; nothing was written down.
        StillWorking: it takes longer than anybody waits; the same request goes on waiting.
        JobRefused, JobFailed, JobCancelled: there will be no image.
        Gone: this Idempotency-Key made an image that was deleted since.
        RequestError, Unavailable: what `wish` and `Intake.submit` raise.
    """
    account_id = http.caller().account_id
    end = time.monotonic() + min(_PATIENCE, services.settings.longest_wait).total_seconds()
    with services.waits.place(account_id):
        with services.bodies.reading(account_id, places=places):
            accepted = _submit(services, wish(), once, account_id=account_id)
        left = timedelta(seconds=max(0.0, end - time.monotonic()))
        services.waits.until_ended(accepted.job_id, timeout=left)
    job = services.intake.find(accepted.job_id, account_id=account_id)
    row = _image_of(job, services)
    if row is not None:
        return row
    if job.status in {Status.QUEUED, Status.PROCESSING} and _is_automatic(once):
        with services.database.autocommit() as tx:
            library.prolong(tx, once, account_id=account_id, job_id=job.id, lasts=_JOINED)
    raise _why_not(job)


def _submit(services: Services, wish: Wish, once: Once, *, account_id: UUID) -> Accepted:
    def submit() -> Accepted:
        return services.intake.submit(wish, account_id=account_id, dialect="imgprocessing", once=once)

    accepted = submit()
    if not (accepted.replayed and _is_automatic(once)):
        return accepted
    job = services.intake.find(accepted.job_id, account_id=account_id)
    if not _came_to_nothing(job, services):
        return accepted
    # Whoever deleted the image, or met a failure of ours, and asks again, wants it made anew.
    with services.database.autocommit() as tx:
        library.release(tx, once, account_id=account_id, job_id=job.id)
    return submit()


def _is_automatic(once: Once) -> bool:
    return once.key.startswith(_AUTOMATIC)


def _came_to_nothing(job: JobRow, services: Services) -> bool:
    if job.status is Status.COMPLETED:
        return _image_of(job, services) is None
    return job.status is Status.FAILED and job.error_code not in _REFUSALS


def _image_of(job: JobRow, services: Services) -> OutputRow | None:
    """The image that a job made, while it is there."""
    if job.status is not Status.COMPLETED:
        return None
    with services.database.autocommit() as tx:
        found = outputs.of_job(tx, job.id)
    return next((row for row in found if not row.expired), None)


def _why_not(job: JobRow) -> Gone | JobRefused | JobCancelled | JobFailed | StillWorking:
    match job.status:
        case Status.COMPLETED:
            return Gone("The image that this request made was deleted since; send it with another key.")
        case Status.CANCELLED:
            return JobCancelled()
        case Status.FAILED if job.error_code in _REFUSALS:
            return JobRefused(job.error_message)
        case Status.FAILED:
            return JobFailed(job.error_message)
        case Status.QUEUED | Status.PROCESSING:
            return StillWorking(retry_after=_AGAIN)
