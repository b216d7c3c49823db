"""Jobs as this dialect answers them: alone with their place in the queue, as pages, and as timelines."""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from app.api.jobs_models import TimelineShown, TransitionShown
from app.api.services import Services
from app.db import history, outputs
from app.db.history import EventRow, JobRow
from app.domain.job import TERMINAL, Reason, Status
from app.domain.spec import JobSpec
from app.errors import UnknownModel
from app.shown import JOB_PREFIX, JobShown, job_shown

_WORKERS_WORD: Final = 8
"""Characters of the word for a worker: enough to tell some thousand of them apart."""


def present(job: JobRow, services: Services, *, base_url: str) -> JobShown:
    """Give the whole job, with its place in the queue and when it is likely to be done."""
    ahead, images = None, []
    with services.database.autocommit() as tx:
        if job.status is Status.QUEUED:
            ahead = history.jobs_ahead(tx, job.id)
        if job.status is Status.COMPLETED:
            images = outputs.of_job(tx, job.id)
    return job_shown(
        job,
        images,
        base_url=base_url,
        position=None if ahead is None else ahead + 1,
        estimated_completion=estimate(job, services, ahead=ahead),
        unservable=unservable(job, services),
    )


def estimate(job: JobRow, services: Services, *, ahead: int | None = None) -> datetime | None:
    """Give when a job is likely to be done; None when it has ended, or waits where nobody takes jobs."""
    intake = services.intake
    if job.status in TERMINAL or (job.status is Status.QUEUED and not intake.forecast.is_served(job.queue)):
        return None
    return intake.estimate(job, ahead=ahead)


def unservable(job: JobRow, services: Services) -> str | None:
    """Give why nobody can do a queued job now; None: it is not queued, or somebody can."""
    forecast = services.intake.forecast
    if job.status is not Status.QUEUED or (away := forecast.away_reason(job.queue)) is None:
        return None
    spec = JobSpec.model_validate(job.spec)
    if spec.operation.transforms:
        return away
    try:
        model = services.intake.catalog.find(job.model)
    except UnknownModel:
        return away
    return forecast.unservable_reason(model, spec)


def present_page(jobs: Sequence[JobRow], services: Services, *, base_url: str) -> list[JobShown]:
    """Give jobs with their outputs, without places in the queue: those cost a statement for each."""
    with services.database.autocommit() as tx:
        images = outputs.of_jobs(tx, [job.id for job in jobs])
    return [
        job_shown(
            job,
            images[job.id],
            base_url=base_url,
            estimated_completion=estimate(job, services) if job.status is Status.PROCESSING else None,
        )
        for job in jobs
    ]


def present_timeline(job_id: UUID, events: Sequence[EventRow]) -> TimelineShown:
    """Give a job's transitions; of what an event keeps for admins only what names nothing of ours."""
    before = [events[0], *events[:-1]] if events else []
    return TimelineShown(
        job_id=JOB_PREFIX + job_id.hex,
        events=[_transition(event, earlier) for event, earlier in zip(events, before, strict=True)],
    )


def _transition(event: EventRow, earlier: EventRow) -> TransitionShown:
    return TransitionShown(
        id=event.id,
        at=event.at,
        seconds=round(max(0.0, (event.at - earlier.at).total_seconds()), 3),
        from_status=None if event.from_status is None else Status(event.from_status),
        to_status=Status(event.to_status),
        attempt=event.attempt,
        reason=Reason(event.reason),
        worker=None if event.worker is None else _word(event.worker),
        error_code=error_code(event),
        delay_seconds=delay_seconds(event),
        target=target(event),
        why=why(event),
        spent=_numbers((event.detail or {}).get("seconds")),
    )


def error_code(event: EventRow) -> str | None:
    """Give why an attempt ended, if it was an error."""
    return _text((event.detail or {}).get("error_code"))


def target(event: EventRow) -> str | None:
    """Give who draws the job from then on, as provider/model, of an event that says so."""
    return _text((event.detail or {}).get("to"))


def why(event: EventRow) -> str | None:
    """Give why it is not drawn by whom it would have been."""
    return _text((event.detail or {}).get("why"))


def delay_seconds(event: EventRow) -> float | None:
    """Give how long a job waits for its next attempt."""
    return _number((event.detail or {}).get("delay_seconds"))


def _word(worker: str) -> str:
    """A worker's id holds the name of its host, which is nothing to customers."""
    return hashlib.sha256(worker.encode()).hexdigest()[:_WORKERS_WORD]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _numbers(value: Any) -> dict[str, float] | None:
    if not isinstance(value, dict):
        return None
    return {name: number for name, each in value.items() if (number := _number(each)) is not None}
