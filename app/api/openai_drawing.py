"""From a wish to its images within one request: submitted or joined, waited for, shown.

OpenAI's clients repeat a request whose answer does not come, without an Idempotency-Key. So a repetition
joins the job that the request made before; see `_twins` for what counts as one.
"""

import base64
import hashlib
import re
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, Literal
from uuid import UUID

import orjson
from flask import Response, request

from app.api import http
from app.api.openai_errors import failed, unfinished
from app.api.openai_models import CompletedEvent, Image, ImageRequest, ImagesResponse
from app.api.services import Services
from app.db import outputs, twins
from app.db.door import Once
from app.db.history import JobRow, OutputRow
from app.domain.job import TERMINAL, Status
from app.errors import Gone
from app.log import get_logger
from app.shown import IMAGE_PREFIX, JOB_PREFIX, output_url
from app.wish import Wish

DIALECT: Final = "openai"
_RESENT: Final = "x-stainless-retry-count"
"""How often its client sent this request before; all of OpenAI's own libraries say so."""
_ABOVE_ZERO: Final = re.compile("0*[1-9][0-9]*")
_STILL_WANTED: Final = timedelta(minutes=1)
"""How long after its end a job's answer may have got lost, so that a repetition is meant to fetch it."""

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Order:
    """A request for images: what is to be drawn, how it is answered, and what makes it the same again."""

    kind: Literal["image_generation", "image_edit"]
    wish: Wish
    asked: ImageRequest
    parts: Sequence[bytes]

    @property
    def fingerprint(self) -> str:
        """Hash of the key and of all that was sent."""
        content = hashlib.sha256(http.caller().key_id.bytes + self.kind.encode())
        for part in self.parts:
            content.update(len(part).to_bytes(8, "big") + part)
        return content.hexdigest()

    def without_images(self) -> "Order":
        """Give what is left to know once it is written down, as images take many megabytes."""
        named = dict.fromkeys({"image", "images", "mask"} & self.asked.model_fields_set)
        return replace(
            self,
            wish=replace(self.wish, image=None, mask_image=None),
            asked=self.asked.model_copy(update=named),
            parts=(),
        )

    @property
    def once(self) -> Once | None:
        """The request's Idempotency-Key."""
        return http.read_once(request, endpoint=f"openai {self.kind}", parts=self.parts)


class Studio:
    """Has orders drawn and answers them; one per web process, thread-safe."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._attended = _Attended()

    def answer(self, order: Order) -> Response:
        """Wait for the order's images, at most `longest_wait`, and show them.

        Raises:
            Busy: too many wait already; nothing was submitted.
            Gone: a repeated Idempotency-Key names images that have expired.
            UnknownModel, InvalidFields, QueueFull, IdempotencyMismatch, StorageDown, DatabaseDown: see
                `Intake.submit`.
        """
        services, account_id = self._services, http.caller().account_id
        longest = services.settings.longest_wait
        # Before anything is submitted: whoever is turned away has bought nothing.
        with services.waits.place(account_id):
            candidates = self._candidates(order, account_id)
            order = order.without_images()
            with self._attended.one_of(candidates) as job_id:
                services.waits.until_ended(job_id, timeout=longest)
            job = services.intake.find(job_id, account_id=account_id)
            if job.status not in TERMINAL:
                return unfinished(job, waited=longest.total_seconds())
            if job.status is not Status.COMPLETED:
                return failed(job)
            # Still in the place: ten images as base64 text are many megabytes.
            return self._shown(order, job)

    def _candidates(self, order: Order, account_id: UUID) -> list[UUID]:
        once, fingerprint = order.once, order.fingerprint
        if once is None and (found := self._twins(fingerprint, account_id)):
            log.info("request_joined", job_id=str(found[0]), candidates=len(found))
            return found
        wish = replace(order.wish, terms=replace(order.wish.terms, echo={twins.MEMBER: fingerprint}))
        submit = self._services.intake.submit
        return [submit(wish, account_id=account_id, dialect=DIALECT, once=once).job_id]

    def _twins(self, fingerprint: str, account_id: UUID) -> list[UUID]:
        """Jobs that this request may be waiting for again, best first.

        Two equal requests can both be meant, above all with a random seed. So one joins another's job only
        when its client says that it sent it before, or when that job is unfinished after so long that its
        own request has been told to come back.
        """
        resent = _ABOVE_ZERO.fullmatch(request.headers.get(_RESENT, "")) is not None
        same: dict[str, Any] = {"account_id": account_id, "dialect": DIALECT, "request": fingerprint}
        older = timedelta(0) if resent else self._services.settings.longest_wait
        with self._services.database.autocommit() as tx:
            queues = self._services.intake.catalog.queues()
            found = twins.unfinished(tx, **same, queues=queues, older=older)
            return found or (twins.just_ended(tx, **same, within=_STILL_WANTED) if resent else [])

    def _shown(self, order: Order, job: JobRow) -> Response:
        with self._services.database.autocommit() as tx:
            rows = outputs.of_job(tx, job.id)
        if any(row.expired for row in rows):
            raise Gone("The images of this request have expired; send it with a fresh Idempotency-Key.")
        if order.asked.stream:
            return self._events(order, job, rows)
        as_url = order.asked.response_format == "url"
        body = ImagesResponse(
            created=_ended(job),
            data=[self._image(row, job, as_url=as_url) for row in rows],
            background="opaque",
            output_format=order.asked.output_format or "png",
            size=_size(rows[0]),
            model=job.model,
            job_id=JOB_PREFIX + job.id.hex,
        )
        return http.json_response(body.model_dump(mode="json", exclude_none=True))

    def _image(self, row: OutputRow, job: JobRow, *, as_url: bool) -> Image:
        told: dict[str, Any] = {"id": IMAGE_PREFIX + row.id.hex, "seed": row.seed}
        if not as_url:
            return Image(**told, b64_json=self._base64(row))
        base_url = http.base_url(self._services.settings)
        return Image(**told, url=output_url(row, prefix=job.output_prefix, base_url=base_url))

    def _base64(self, row: OutputRow) -> str:
        return base64.b64encode(self._services.storage.get_verified(row.key, sha256=row.sha256)).decode()

    def _events(self, order: Order, job: JobRow, rows: Sequence[OutputRow]) -> Response:
        """The same images as Server-Sent Events, which are all written down before the first goes out."""
        text = b"".join(self._event(order, job, row) for row in rows)
        answer = Response(text, mimetype="text/event-stream")
        answer.headers["Cache-Control"] = "no-store"
        answer.headers["X-Content-Type-Options"] = "nosniff"
        return answer

    def _event(self, order: Order, job: JobRow, row: OutputRow) -> bytes:
        event = CompletedEvent(
            type="image_generation.completed" if order.kind == "image_generation" else "image_edit.completed",
            b64_json=self._base64(row),
            created_at=_ended(job),
            background="opaque",
            output_format=order.asked.output_format or "png",
            size=_size(row),
            id=IMAGE_PREFIX + row.id.hex,
            seed=row.seed,
            model=job.model,
            job_id=JOB_PREFIX + job.id.hex,
        )
        return b"event: %b\ndata: %b\n\n" % (event.type.encode(), orjson.dumps(event.model_dump(mode="json")))


class _Attended:
    """Counts the requests of this process that wait for each job, so that equal ones share the jobs out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[UUID] = Counter()

    @contextmanager
    def one_of(self, jobs: Sequence[UUID]) -> Iterator[UUID]:
        """Give the first of the jobs that nobody waits for, else the first of all."""
        with self._lock:
            chosen = next((job for job in jobs if not self._requests[job]), jobs[0])
            self._requests[chosen] += 1
        try:
            yield chosen
        finally:
            with self._lock:
                self._requests[chosen] -= 1
                self._requests += Counter()  # drops what nobody waits for


def _ended(job: JobRow) -> int:
    return int((job.finished_at or job.created_at).timestamp())


def _size(row: OutputRow) -> str:
    return f"{row.width}x{row.height}"
