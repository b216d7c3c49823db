"""A job as a stream of Server-Sent Events: what happened to it so far, and then what happens to it.

Each transition carries the id of its row in `job_events`, so that a client which comes back with it as
Last-Event-ID gets what it missed, whichever process it comes back to. A stream holds a thread of the web
server and one of the places of `app.waits` for its whole life, and no connection to Postgres: it reads when
the job moved on, and while it is queued its place in the queue every few seconds.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Final

import orjson
from flask import Response

from app.api import http
from app.api.jobs_answers import delay_seconds, error_code, estimate, present, target, unservable, why
from app.api.jobs_models import EventShown
from app.api.services import Services
from app.db import history
from app.db.history import EventRow, JobRow, Standing
from app.domain.job import TERMINAL, Reason, Status
from app.errors import DatabaseDown
from app.log import get_logger

log = get_logger(__name__)

MEDIA_TYPE: Final = "text/event-stream"
HEARTBEAT: Final = timedelta(seconds=15)
"""Silence after which a comment is sent: proxies cut quiet connections after a minute or so, and a client
that has left is noticed when something is written to it."""
_RECONNECT: Final = b"retry: 2000\n\n"
_COMMENT: Final = b": still here\n\n"
_SOONEST: Final = 2.0
_LATEST: Final = 15.0
"""Seconds between two looks at a place in the queue: the further back, the longer."""
_PER_PLACE: Final = 0.2
_AWAY: Final = 1.0
"""Seconds until a stream looks again when Postgres was away."""
_At = tuple[Status, int]
"""Where a job stands: its status and its attempt, which together change with every transition."""


def answer(services: Services, job: JobRow, *, after: int, base_url: str, bodiless: bool) -> Response:
    """Give the stream of a job's events, or 204 when it has ended and there is nothing left to tell.

    A browser's EventSource comes back whenever a stream ends, and 204 is what tells it not to.

    Args:
        after: the last event that the client has; 0 for none.
        base_url: where customers reach us, for the URLs of outputs.
        bodiless: whether only the headers are asked for.

    Raises:
        Busy: as many streams are open as may be; nothing was sent yet.
    """
    if job.status in TERMINAL:
        with services.database.autocommit() as tx:
            if not history.timeline(tx, job.id, after=after):
                return http.empty()
    made = Response(mimetype=MEDIA_TYPE, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
    if bodiless:
        return made
    with ExitStack() as opened:
        opened.enter_context(services.waits.place(job.account_id))
        leave = opened.pop_all().close
    made.response = _until_the_end(Watch(services, job, after=after, base_url=base_url), leave)
    made.call_on_close(leave)
    return made


def _until_the_end(watch: "Watch", leave: Callable[[], None]) -> Iterator[bytes]:
    """Give the frames, and leave with the last one or with the client: not every server closes a body."""
    try:
        yield from watch.frames()
    finally:
        leave()


class Watch:
    """One client's view of one job.

    Args:
        after: the last event that the client has; 0 for none.
        heartbeat: how long it is silent at most.
    """

    def __init__(
        self,
        services: Services,
        job: JobRow,
        *,
        after: int,
        base_url: str,
        heartbeat: timedelta = HEARTBEAT,
    ) -> None:
        self._services = services
        self._job_id, self._account_id = job.id, job.account_id
        self._base_url = base_url
        self._heartbeat = heartbeat.total_seconds()
        self._ready: list[bytes] = []
        self._last_id = after
        self._reason: Reason | None = None
        self._told: _At | None = None
        """Where the job stood by the newest transition that was told."""
        self._looked: _At | None = None
        """Where it stood when the transitions were read; a look that failed is repeated."""
        self._told_stage: str | None = None
        self._told_progress: tuple[float, int | None, int | None] | None = None
        self._told_position: int | None = None
        self._told_unservable: str | None = None
        self._told_queue: str | None = None
        """On which queue it was by the newest transition: to be moved to another changes nothing else."""
        self._next_position = 0.0

    def frames(self) -> Iterator[bytes]:
        """Give all that is sent, piece by piece, up to the event that ends the job."""
        yield _RECONNECT
        standing: Standing | None = None
        last_sent = time.monotonic()
        waits = self._services.waits
        with waits.watching(self._job_id, until_let_go=True) as waiter:
            while not self._has_ended(standing) and not waits.letting_go:
                standing = waiter.wait(standing, timeout=self._pause(standing, last_sent))
                try:
                    if standing is not None:
                        self._look(standing)
                except DatabaseDown:
                    log.warning("stream_looks_again")
                if not self._ready and time.monotonic() - last_sent >= self._heartbeat:
                    self._ready.append(_COMMENT)
                if self._ready:
                    sent, self._ready = b"".join(self._ready), []
                    last_sent = time.monotonic()
                    yield sent

    def _has_ended(self, standing: Standing | None) -> bool:
        if self._told is not None and self._told[0] in TERMINAL:
            return True
        return standing is not None and standing.status in TERMINAL and self._looked == _at(standing)

    def _pause(self, standing: Standing | None, last_sent: float) -> timedelta:
        """How long to wait for the job to move on, at most."""
        now, until = time.monotonic(), last_sent + self._heartbeat
        if standing is not None and self._looked != _at(standing):
            until = min(until, now + _AWAY)
        elif standing is not None and self._is_queued(standing):
            until = min(until, self._next_position)
        return timedelta(seconds=max(0.0, until - now))

    def _look(self, standing: Standing) -> None:
        """Put into `_ready` what is new; when a read fails, what it would have told is told later."""
        if self._looked != _at(standing):
            self._ready.extend(self._transitions())
            self._looked = _at(standing)
        if self._is_queued(standing) and time.monotonic() >= self._next_position:
            self._ready.extend(self._place(standing))
        if standing.status is Status.PROCESSING and self._is_news(standing):
            self._ready.extend(self._progress(standing))

    def _is_news(self, standing: Standing) -> bool:
        """Whether no transition was told that is newer than the standing."""
        return self._told in {None, _at(standing)}

    def _is_queued(self, standing: Standing) -> bool:
        return standing.status is Status.QUEUED and self._is_news(standing)

    def _transitions(self) -> list[bytes]:
        """What has happened since the last look, in order."""
        with self._services.database.autocommit() as tx:
            events = history.timeline(tx, self._job_id, after=self._last_id)
            job = history.find_job(tx, self._job_id, account_id=self._account_id)
        if not events or job is None:
            return []
        newest = events[-1]
        frames = [_frame(event.to_status, _data(event), event.id) for event in events[:-1]]
        frames.append(_frame(newest.to_status, self._newest(newest, job), newest.id))
        self._last_id, self._reason = newest.id, Reason(newest.reason)
        self._told = Status(newest.to_status), newest.attempt
        self._told_queue = job.queue
        self._told_stage = self._told_progress = None
        return frames

    def _newest(self, event: EventRow, job: JobRow) -> EventShown:
        """The transition that leads to where the job stands, with all that is known of that."""
        data = _data(event)
        if job.status != event.to_status:
            return data  # it has moved on since; what it is at now comes with the next look
        shown = present(job, self._services, base_url=self._base_url)
        if job.status in TERMINAL:
            return data.model_copy(update={"error": shown.error, "job": shown})
        self._note_position(shown.position)
        self._told_unservable = shown.unservable
        return data.model_copy(
            update={
                "position": shown.position,
                "estimated_completion": shown.estimated_completion,
                "unservable": shown.unservable,
            }
        )

    def _place(self, standing: Standing) -> Iterator[bytes]:
        """Its place in the queue and whether anybody can draw it, if that has changed."""
        self._next_position = time.monotonic() + _SOONEST
        with self._services.database.autocommit() as tx:
            ahead = history.jobs_ahead(tx, self._job_id)
            job = history.find_job(tx, self._job_id, account_id=self._account_id)
        if job is not None:
            before_it, self._told_queue = self._told_queue, job.queue
            if before_it not in {None, job.queue}:
                yield from self._transitions()
                return
        before = self._told_position, self._told_unservable
        self._note_position(None if ahead is None else ahead + 1)
        self._told_unservable = None if job is None else unservable(job, self._services)
        if ahead is None or job is None or (ahead + 1, self._told_unservable) == before:
            return
        data = EventShown(
            status=Status.QUEUED,
            attempt=standing.attempt,
            reason=self._reason,
            position=ahead + 1,
            estimated_completion=estimate(job, self._services, ahead=ahead),
            unservable=self._told_unservable,
        )
        yield _frame(Status.QUEUED, data)

    def _note_position(self, position: int | None) -> None:
        self._told_position = position
        pause = min(max(_SOONEST, (position or 0) * _PER_PLACE), _LATEST)
        self._next_position = time.monotonic() + pause

    def _progress(self, standing: Standing) -> Iterator[bytes]:
        if standing.stage is not None and standing.stage != self._told_stage:
            self._told_stage = standing.stage
            data = EventShown(status=standing.status, attempt=standing.attempt, stage=standing.stage)
            yield _frame("stage", data)
        progress = (round(standing.progress, 3), standing.step, standing.steps)
        if progress not in {self._told_progress, (0.0, None, None)}:
            self._told_progress = progress
            share, step, steps = progress
            data = EventShown(
                status=standing.status, attempt=standing.attempt, progress=share, step=step, steps=steps
            )
            yield _frame("progress", data)


def _at(standing: Standing) -> _At:
    return standing.status, standing.attempt


def _data(event: EventRow) -> EventShown:
    return EventShown(
        status=Status(event.to_status),
        attempt=event.attempt,
        at=event.at,
        reason=Reason(event.reason),
        error_code=error_code(event),
        delay_seconds=delay_seconds(event),
        target=target(event),
        why=why(event),
    )


def _frame(kind: str, data: EventShown, event_id: int | None = None) -> bytes:
    """One event in the form of the HTML standard, section 9.2; JSON has no line breaks of its own."""
    number = b"" if event_id is None else b"id: %d\n" % event_id
    told = data.model_dump(mode="json", exclude_none=True, exclude={"job"})
    if data.job is not None:
        told["job"] = data.job.model_dump(mode="json")  # to the letter what GET answers
    content = orjson.dumps(told)
    return b"event: %b\n%bdata: %b\n\n" % (kind.encode(), number, content)
