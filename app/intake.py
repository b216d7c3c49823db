"""From a wish to a promise: checks a request against the catalogue, stores its inputs, writes the job.

`submit` returns only after the job is committed; from then on nothing that dies loses it.
"""

import hashlib
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from uuid_utils.compat import uuid7

from app import imaging
from app.db import Database, bell, door, queues
from app.db import jobs as job_rows
from app.db.jobs import JobRow
from app.db.together import Writer
from app.domain.catalog import Catalog, Model
from app.domain.spec import ImageFormat, JobSpec, Operation, StoredImage
from app.errors import DatabaseDown, FieldProblem, IdempotencyMismatch, InvalidFields, QueueFull, UnknownJob
from app.log import get_logger
from app.settings import Settings
from app.storage import Storage, input_key

log = get_logger(__name__)

_SEEDS: Final = 2**32
"""Seeds are drawn below this, so that every JSON reader can hold them exactly."""
_LOADS_KEPT: Final = 2.0
"""Seconds for which the queues' loads are believed; counting them is linear in the backlog."""
_USUAL_RUN: Final = 5.0
"""Seconds a job is taken to run while a model has no history."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    """An input image as it came in: public field name, whole file, and what its header says."""

    field: str
    data: bytes
    header: imaging.Header


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a dialect understood of a request; None where the request named nothing.

    `fields` maps the spec's names to the dialect's, so that an error names the field the caller wrote.
    """

    operation: Operation
    model: str
    prompt: str
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    strength: float | None = None
    seed: int | None = None
    num_images: int | None = None
    output_format: ImageFormat = ImageFormat.PNG
    image: Upload | None = None
    mask_image: Upload | None = None
    fields: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Once:
    """An Idempotency-Key: the first request with it makes the job, the others get that job.

    Args:
        endpoint: the operation it was sent to; the same key elsewhere is another key.
        request_sha256: hash of everything that makes the request what it is.
    """

    endpoint: str
    key: str
    request_sha256: bytes


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A job we promised to fulfil."""

    job_id: UUID
    output_prefix: UUID
    created_at: datetime
    estimated_completion: datetime
    replayed: bool
    """Whether an earlier request with the same Idempotency-Key made it."""


class Intake:
    """The door, shared by all dialects of a web process; thread-safe."""

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        storage: Storage,
        catalog: Catalog,
        doorbell: bell.Doorbell,
    ) -> None:
        self.catalog = catalog
        self._settings = settings
        self._database = database
        self._storage = storage
        self._doorbell = doorbell
        self._quotas = _Quotas(database, catalog.queues(), settings.max_unfinished_jobs)
        self._forecast = _Forecast(database)
        self._writer = Writer(database)

    def submit(self, wish: Wish, *, account_id: UUID, dialect: str, once: Once | None = None) -> Accepted:
        """Write a job down and give its id.

        Raises:
            UnknownModel: the catalogue has no such model.
            InvalidFields: the model cannot do it; each problem under the name the caller used.
            QueueFull: the account has too many unfinished jobs.
            IdempotencyMismatch: the Idempotency-Key was used with another request.
            StorageDown: nothing was accepted; the same request works later.
            DatabaseDown: the same, except when the answer to the commit got lost; an Idempotency-Key makes
                repeating safe.
        """
        model = self.catalog.find(wish.model)
        width, height = _size(wish, model)
        _check(wish, model, width=width, height=height)
        if once is not None and (replay := self._first_use(once, account_id, model)) is not None:
            return replay
        self._quotas.take(account_id)
        job_id = uuid7()
        inputs = self._store_inputs(wish, account_id=account_id)
        spec = _complete(wish, model, width=width, height=height, inputs=inputs)
        target = model.targets[0]
        row = door.NewJob(
            id=job_id,
            account_id=account_id,
            dialect=dialect,
            provider=target.provider,
            queue=target.queue,
            spec=spec.model_dump_json(),
            operation=spec.operation,
            model=model.id,
            output_prefix=uuid4(),
            max_attempts=self._settings.max_attempts,
            inputs=[
                _input_row(stored, role=role, upload=upload) for role, (stored, upload) in inputs.items()
            ],
        )
        try:
            accepted = self._write(row, once)
        except IdempotencyMismatch:
            self._forget(row.inputs)
            raise
        if accepted.replayed:
            self._forget(row.inputs)
        else:
            self._doorbell.ring()
        return accepted

    def find(self, job_id: UUID, *, account_id: UUID) -> JobRow:
        """Give an account's job.

        Raises:
            UnknownJob: there is none, or it is somebody else's.
        """
        with self._database.autocommit() as tx:
            row = job_rows.find_job(tx, job_id, account_id=account_id)
        if row is None:
            raise UnknownJob
        return row

    def estimate(self, job: JobRow) -> datetime:
        """Give when an unfinished job is likely to be done, from recent run times and the queue's load.

        The load is that of the whole queue, so the estimate of a job far ahead in it is too late.
        """
        now = datetime.now(UTC)
        if job.started_at is not None:
            return max(now, job.started_at + self._forecast.run(job.model))
        return now + self._forecast.until_done(model=job.model, queue=job.queue)

    def _first_use(self, once: Once, account_id: UUID, model: Model) -> Accepted | None:
        """The job this Idempotency-Key made before; a full account gets it too, and nothing is uploaded."""
        with self._database.raw() as connection:
            written = door.first_use(connection, account_id=account_id, endpoint=once.endpoint, key=once.key)
        if written is None:
            return None
        until_done = self._forecast.until_done(model=model.id, queue=model.targets[0].queue)
        return _accepted(written, once, until_done=until_done, replayed=True)

    def _write(self, row: door.NewJob, once: Once | None) -> Accepted:
        # Before the commit: nothing that can be slow stands between it and the answer.
        until_done = self._forecast.until_done(model=row.model, queue=row.queue)
        if once is None and not row.inputs:
            written = self._writer.write(row)
        else:
            with self._database.raw() as connection:
                if once is None:
                    written = door.insert(connection, row)
                else:
                    written = door.insert_once(
                        connection,
                        row,
                        endpoint=once.endpoint,
                        key=once.key,
                        request_sha256=once.request_sha256,
                    )
        return _accepted(written, once, until_done=until_done, replayed=written.id != row.id)

    def _forget(self, inputs: Sequence[dict[str, object]]) -> None:
        """Delete the uploads of a request that made no job of its own."""
        if inputs:
            self._storage.delete([str(row["key"]) for row in inputs])

    def _store_inputs(self, wish: Wish, *, account_id: UUID) -> dict[str, tuple[StoredImage, Upload]]:
        stored = {}
        upload_id = uuid7()
        for role, upload in (("image", wish.image), ("mask_image", wish.mask_image)):
            if upload is None:
                continue
            sha256 = hashlib.sha256(upload.data).hexdigest()
            header = upload.header
            key = input_key(
                account_id,
                datetime.now(UTC).date(),
                upload_id=upload_id,
                role=role,
                sha256=sha256,
                extension=header.format.lower(),
            )
            self._storage.put(key, upload.data, media_type=f"image/{header.format.lower()}")
            image = StoredImage(key=key, sha256=sha256, width=header.width, height=header.height)
            stored[role] = (image, upload)
        return stored


def _accepted(written: door.Written, once: Once | None, *, until_done: timedelta, replayed: bool) -> Accepted:
    if once is not None and written.request_sha256 != once.request_sha256:
        raise IdempotencyMismatch
    return Accepted(
        job_id=written.id,
        output_prefix=written.output_prefix,
        created_at=written.created_at,
        estimated_completion=written.created_at + until_done,
        replayed=replayed,
    )


def _size(wish: Wish, model: Model) -> tuple[int, int]:
    """The size asked for; else the input image's as far as the model can; else the model's preferred one."""
    width, height = model.width, model.height
    if wish.image is not None:
        width, height = model.size.fit(*wish.image.header.upright_size)
    return wish.width or width, wish.height or height


def _check(wish: Wish, model: Model, *, width: int, height: int) -> None:
    problems = model.problems_with(
        operation=wish.operation, width=width, height=height, num_images=wish.num_images or 1
    )
    if problems:
        raise InvalidFields(
            *(FieldProblem(field=wish.fields.get(p.field, p.field), message=p.message) for p in problems)
        )


def _complete(
    wish: Wish,
    model: Model,
    *,
    width: int,
    height: int,
    inputs: Mapping[str, tuple[StoredImage, Upload]],
) -> JobSpec:
    """The spec with the model's defaults and a seed filled in, so that every attempt draws the same."""
    named: dict[str, Any] = {
        "num_inference_steps": wish.num_inference_steps,
        "guidance_scale": wish.guidance_scale,
        "strength": wish.strength,
    }
    chosen = {**model.defaults.model_dump(), **{k: v for k, v in named.items() if v is not None}}
    if wish.operation is Operation.TEXT_TO_IMAGE:
        chosen["strength"] = 1.0
    return JobSpec(
        operation=wish.operation,
        model=model.id,
        prompt=wish.prompt,
        negative_prompt=wish.negative_prompt or "",
        width=width,
        height=height,
        seed=secrets.randbelow(_SEEDS) if wish.seed is None else wish.seed,
        num_images=wish.num_images or 1,
        output_format=wish.output_format,
        image=inputs["image"][0] if "image" in inputs else None,
        mask_image=inputs["mask_image"][0] if "mask_image" in inputs else None,
        **chosen,
    )


def _input_row(stored: StoredImage, *, role: str, upload: Upload) -> dict[str, object]:
    return {"key": stored.key, "role": role, "sha256": stored.sha256, "size": len(upload.data)}


class _Quotas:
    """Unfinished jobs per account: counted at most once a second, in between added up.

    Several web processes may together overshoot by what they accept in a second, and never by more.
    """

    def __init__(self, database: Database, queues: Sequence[str], limit: int) -> None:
        self._database = database
        self._queues = queues
        self._limit = limit
        self._lock = threading.Lock()
        self._counts: dict[UUID, tuple[float, int]] = {}

    def take(self, account_id: UUID) -> None:
        now = time.monotonic()
        with self._lock:
            until, count = self._counts.get(account_id, (0.0, 0))
            if is_old := until < now:
                # One thread counts, the others go on with the number there is.
                until = now + 1.0
                self._counts[account_id] = (until, count)
        if is_old:
            with self._database.autocommit() as tx:
                count = door.count_unfinished(tx, account_id, queues=self._queues, up_to=self._limit)
        if count >= self._limit:
            raise QueueFull(
                f"This account has {self._limit:,} unfinished jobs, the most allowed; wait for some to end.",
                retry_after=timedelta(seconds=5),
            )
        with self._lock:
            self._counts[account_id] = (until, count + 1)


class _Forecast:
    """When a job submitted now is likely to be done; from numbers at most two seconds old."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._until = 0.0
        self._loads: dict[str, queues.QueueLoad] = {}
        self._seconds: dict[str, float] = {}

    def until_done(self, *, model: str, queue: str) -> timedelta:
        run = self.run(model)
        load = self._loads.get(queue)
        waiting = load.queued + load.processing if load else 0
        slots = max(1, load.slots if load else 0)
        return run * (1 + waiting // slots)

    def run(self, model: str) -> timedelta:
        self._refresh()
        return timedelta(seconds=self._seconds.get(model, _USUAL_RUN))

    def _refresh(self) -> None:
        # One thread counts; the others go on with the numbers there are.
        if time.monotonic() < self._until or not self._lock.acquire(blocking=False):
            return
        try:
            self._until = time.monotonic() + _LOADS_KEPT
            with self._database.autocommit() as tx:
                self._loads, self._seconds = queues.loads(tx), queues.run_seconds(tx)
        except DatabaseDown:
            # A forecast is no reason to refuse a job, least of all one that was just committed.
            log.warning("forecast_is_old")
        finally:
            self._lock.release()
