"""The endpoints of Darkroom's own dialect, described for the OpenAPI document."""

from typing import Any, Final

from app.api.jobs_models import (
    JOB_PATTERN,
    EventShown,
    EventsQuery,
    JobsQuery,
    JobsShown,
    TimelineShown,
    WaitQuery,
)
from app.api.jobs_request import JobRequest
from app.api.operations import EventStream, HeaderPart, Operation, PathPart
from app.api.outputs import ErrorShown
from app.shown import JobShown

_ERRORS: Final = dict.fromkeys((401, 403, 429, 503), ErrorShown)
_OF_ONE: Final = {**_ERRORS, 404: ErrorShown}
_JOB: Final = (
    PathPart(
        name="id",
        description="A job's `id`, of whichever API it was submitted through",
        example="job_0193f0a27c3b7e4d8a1b2c3d4e5f6071",
        pattern=JOB_PATTERN,
    ),
)
_PREFER: Final = HeaderPart(
    name="Prefer",
    description="`wait=n`: wait up to n seconds for the job's end (RFC 7240), as far as this installation "
    "allows. A wish: while too many requests wait already, the answer comes at once",
    pattern="^.{0,200}$",
    example="wait=20",
)
_LAST_EVENT: Final = HeaderPart(
    name="Last-Event-ID",
    description="The `id` of the last event you have; only later ones are sent. Browsers send it themselves",
    pattern="^[0-9]{1,18}$",
    example="4711",
)
_NEW: Final = ("Location", "Retry-After", "Preference-Applied", "Idempotent-Replayed")


def _described(name: str, method: Any, path: str, answers: dict[int, Any], **more: Any) -> Operation:
    return Operation(
        name=name, method=method, path=path, answers=answers, bearer=True, counted=True, tag="Jobs", **more
    )


OPERATIONS: Final = (
    _described(
        "submitJob",
        "POST",
        "/v1/jobs",
        {200: JobShown, 202: JobShown, **_OF_ONE, **dict.fromkeys((400, 413, 415, 422), ErrorShown)},
        summary="Submit a job",
        description="Any operation, in one form. Answers 202 as soon as the job is written down; asked to "
        "wait, 200 with the finished job if it ends in time. Then `GET` it, watch its `events`, or name a "
        "`webhook`. A member that is not known or does not count for the operation is refused, as ignoring "
        "it would make another picture. Operations that no model does take an `image` and their parameters "
        'in `transform`: `{"operation": "resize", "image": "https://…", "transform": {"width": 640}}`.',
        request=JobRequest,
        example={
            "operation": "text_to_image",
            "model": "sketch",
            "prompt": "a lighthouse on a cliff at sunset, calm sea",
            "width": 768,
            "height": 512,
            "seed": 42,
            "track_id": "order-1138",
        },
        query=WaitQuery,
        takes=(_PREFER,),
        headers={200: _NEW, 202: _NEW},
        idempotent=True,
    ),
    _described(
        "listJobs",
        "GET",
        "/v1/jobs",
        {200: JobsShown, **_ERRORS, 422: ErrorShown},
        summary="List jobs",
        description="Newest first, of all APIs. Follow `next` until it is null. Places in the queue are told "
        "by `GET /v1/jobs/{id}` only.",
        query=JobsQuery,
    ),
    _described(
        "readJob",
        "GET",
        "/v1/jobs/{id}",
        {200: JobShown, **_OF_ONE, 422: ErrorShown},
        summary="Get a job",
        description="With its place in the queue and when it is likely to be done. Asked to wait, it answers "
        "when the job has ended, or when the time is over.",
        parts=_JOB,
        query=WaitQuery,
        takes=(_PREFER,),
        headers={200: ("Retry-After", "Preference-Applied")},
    ),
    _described(
        "watchJob",
        "GET",
        "/v1/jobs/{id}/events",
        {200: EventStream(item=EventShown), 204: None, **_OF_ONE, 422: ErrorShown},
        summary="Watch a job",
        description="Server-Sent Events, from the job's first until it has ended. `queued` (with `position`; "
        "again when that changes, and when an attempt is repeated), `processing`, `stage` (loading a model, "
        "generating, storing), `progress` (step i of n), and at the end `completed`, `failed` or `cancelled` "
        "with the whole `job`. Those with an `id` are the transitions: come back with it as `Last-Event-ID` "
        "and you get what you missed. 204 when nothing is left to tell. A comment is sent every 15 s.",
        parts=_JOB,
        query=EventsQuery,
        takes=(_LAST_EVENT,),
    ),
    _described(
        "cancelJob",
        "DELETE",
        "/v1/jobs/{id}",
        {200: JobShown, **_OF_ONE, 409: ErrorShown},
        summary="Cancel a job",
        description="A queued job ends at once, a running one within a step: until then it is `processing` "
        "with `cancel_requested_at`. Harmless when repeated; 409 when it has completed or failed.",
        parts=_JOB,
        headers={200: ("Retry-After",)},
    ),
    _described(
        "retryJob",
        "POST",
        "/v1/jobs/{id}/retry",
        {200: JobShown, 202: JobShown, **_OF_ONE, **dict.fromkeys((409, 410, 422), ErrorShown)},
        summary="Do a job once more",
        description="A new job with the same spec, seed and terms, and `retry_of`. 409 while the job has not "
        "ended; 410 when its input images are gone. Needs no body.",
        parts=_JOB,
        query=WaitQuery,
        takes=(_PREFER,),
        headers={200: _NEW, 202: _NEW},
        idempotent=True,
    ),
    _described(
        "readTimeline",
        "GET",
        "/v1/jobs/{id}/timeline",
        {200: TimelineShown, **_OF_ONE},
        summary="Get a job's timeline",
        description="Every transition with its reason, how long after the one before, and what it took.",
        parts=_JOB,
    ),
)
