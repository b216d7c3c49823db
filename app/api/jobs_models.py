"""What the endpoints of Darkroom's own dialect answer, and the parameters they take; errors are `outputs`'.

The job itself, which webhooks show too, is in `app.shown`.
"""

import re
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.api import http
from app.api.strict import one_of
from app.api.webhook_models import AskedMoment
from app.domain.job import Reason, Status
from app.domain.spec import Operation
from app.shown import JOB_PREFIX, JobError, JobShown, Moment

JOB_PATTERN: Final = f"^{JOB_PREFIX}[0-9a-f]{{32}}$"
_PLUS_AS_SPACE: Final = re.compile(r"([0-9W-]{1,12}T[0-9:.,]{1,24}) ([0-9]{2}(?::?[0-9]{2})?)")
"""ISO 8601 with a space before its zone; each part ends where the next begins, so it is read once."""


class WaitQuery(BaseModel):
    """Query of an answer that may wait for the job's end."""

    wait: Annotated[
        Annotated[float, Field(ge=0, allow_inf_nan=False), http.FORM_NUMBER] | None,
        Field(
            description="Seconds to wait for the job's end, as far as this installation allows (55 s by "
            "default); as good as the header `Prefer: wait=n`, which it overrides"
        ),
    ] = None


def _repaired(value: object) -> object:
    """In a query string a + is a space, and many clients send the + of a time zone as it is."""
    found = _PLUS_AS_SPACE.fullmatch(value) if isinstance(value, str) else None
    return f"{found[1]}+{found[2]}" if found else value


QueryMoment = Annotated[AskedMoment, BeforeValidator(_repaired)]
Word = Annotated[str, Field(min_length=1, max_length=255), http.NO_NUL]


class JobsQuery(BaseModel):
    """Query of GET /v1/jobs."""

    model_config = ConfigDict(frozen=True)

    limit: Annotated[int, Field(ge=1, le=100, description="Most jobs in the answer"), http.FORM_NUMBER] = 20
    before: Annotated[
        Annotated[str, Field(json_schema_extra={"pattern": JOB_PATTERN})] | None,
        Field(description="Only jobs older than this one, by its id; what `next` says"),
    ] = None
    status: Annotated[Annotated[Status, one_of(Status)] | None, Field(description="In this status")] = None
    operation: Annotated[
        Annotated[Operation, one_of(Operation)] | None, Field(description="Of this operation")
    ] = None
    model: Annotated[Word | None, Field(description="Of this model, by its id or alias")] = None
    provider: Annotated[Word | None, Field(description="Done by this provider")] = None
    dialect: Annotated[
        Literal["realm", "imgprocessing", "modelslab", "openai", "jobs"] | None,
        Field(description="Submitted through this API"),
    ] = None
    track_id: Annotated[Word | None, Field(description="With this `track_id`")] = None
    created_after: Annotated[QueryMoment | None, Field(description="Submitted then or later")] = None
    created_before: Annotated[QueryMoment | None, Field(description="Submitted before then")] = None


class EventsQuery(BaseModel):
    """Query of a job's event stream."""

    last_event_id: Annotated[
        str | None,
        Field(
            description="As good as the header `Last-Event-ID`, which it overrides",
            json_schema_extra={"pattern": "^[0-9]{1,18}$"},
        ),
    ] = None


class JobsShown(BaseModel):
    """Your newest jobs; `next` is the URL of the page after, null on the last one."""

    jobs: list[JobShown]
    next: str | None


class TransitionShown(BaseModel):
    """One step in a job's life."""

    id: int
    at: Moment
    seconds: Annotated[float, Field(ge=0, description="Since the one before; 0 for the first")]
    from_status: Status | None
    to_status: Status
    attempt: int
    reason: Reason
    worker: Annotated[str | None, Field(description="A word that is the same for the same worker process")]
    error_code: Annotated[str | None, Field(description="Why the attempt ended, if it was an error")]
    delay_seconds: Annotated[float | None, Field(description="Until it is due again, of a retry")]
    target: Annotated[
        str | None,
        Field(
            description="Who draws it from then on, as provider/model; null: nothing was changed about that",
            examples=["openai/gpt-image-1"],
        ),
    ]
    why: Annotated[str | None, Field(description="Why it is not drawn by whom it would have been")]
    spent: Annotated[
        dict[str, float] | None,
        Field(
            description="Seconds per part of the work: read, generate, finish", examples=[{"generate": 1.25}]
        ),
    ]


class TimelineShown(BaseModel):
    """All that happened to a job, in order."""

    job_id: str
    events: list[TransitionShown]


class EventShown(BaseModel):
    """`data` of an event; a member that does not count for its kind is left out."""

    status: Status
    attempt: int
    at: Annotated[Moment | None, Field(description="When it happened; of a transition")] = None
    reason: Annotated[Reason | None, Field(description="Why; of a transition")] = None
    position: Annotated[int | None, Field(description="Place in the queue, 1: next; of queued")] = None
    estimated_completion: Annotated[
        Moment | None,
        Field(description="Of queued and processing; left out while nobody takes jobs from its queue"),
    ] = None
    unservable: Annotated[
        str | None, Field(description="Why nobody can draw it now; of queued, left out while somebody can")
    ] = None
    target: Annotated[
        str | None, Field(description="Who draws it from then on, as provider/model; of a transition")
    ] = None
    why: Annotated[
        str | None, Field(description="Why it is not drawn by whom it would have been; of a transition")
    ] = None
    stage: Annotated[str | None, Field(description="loading, generating or storing; of stage")] = None
    progress: Annotated[float | None, Field(description="Share done, 0 to 1; of progress")] = None
    step: Annotated[int | None, Field(description="Steps done; of progress, where known")] = None
    steps: int | None = None
    error: Annotated[JobError | None, Field(description="Of failed and cancelled")] = None
    error_code: Annotated[str | None, Field(description="Why it is queued again")] = None
    delay_seconds: Annotated[float | None, Field(description="Until it is due again")] = None
    job: Annotated[JobShown | None, Field(description="The whole job with its outputs, once it ended")] = None
