"""From a wish to a promise: checks a request against the catalogue, stores its inputs, writes the job.

`submit` returns only after the job is committed; from then on nothing that dies loses it.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import orjson
from uuid_utils.compat import uuid7

from app import webhooks
from app.db import Database, bell, door, history
from app.db import jobs as job_rows
from app.db.door import Once
from app.db.history import JobRow
from app.db.together import Writer
from app.domain.catalog import PILLOW, Catalog, Model, Target
from app.domain.job import TERMINAL, Status
from app.domain.spec import ImageFormat, JobSpec, Operation
from app.domain.transform import problems_with, result_format
from app.errors import (
    AlreadyEnded,
    FieldProblem,
    IdempotencyMismatch,
    InvalidFields,
    StillRunning,
    UnknownJob,
)
from app.forecast import Forecast, Quotas
from app.inputs import Input, Inputs, watermarks_of, with_inputs
from app.settings import Settings
from app.storage import Storage
from app.vault import Vault
from app.wish import Wish

_SEEDS: Final = 2**32
"""Seeds are drawn below this, so that every JSON reader can hold them exactly."""
_LONGEST_RETAINED: Final = 2**31 - 1
"""Seconds, 68 years: the largest integer of the column."""


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A job we promised to fulfil."""

    job_id: UUID
    number: int | None
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
        self.forecast = Forecast(database)
        self._settings = settings
        self._database = database
        self._inputs = Inputs(storage)
        self._doorbell = doorbell
        self._vault = Vault(settings)
        self._quotas = Quotas(database, catalog.queues(), settings.max_unfinished_jobs)
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
        plan = _plan_transform(wish) if wish.operation.transforms else self._plan_drawing(wish)
        if once is not None and (replay := self._first_use(once, account_id, plan)) is not None:
            return replay
        self._quotas.take(account_id)
        endpoint_id = self._endpoint_of(wish, account_id)
        inputs = self._inputs.store(wish, account_id=account_id)
        spec = plan.spec(wish, inputs)
        terms = wish.terms
        row = door.NewJob(
            id=uuid7(),
            account_id=account_id,
            dialect=dialect,
            provider=plan.provider,
            queue=plan.queue,
            spec=spec.as_stored(),
            operation=spec.operation,
            model=spec.model,
            output_prefix=uuid4(),
            max_attempts=self._settings.max_attempts,
            priority=terms.priority,
            test=terms.test,
            numbered=terms.numbered,
            track_id=terms.track_id,
            webhook_endpoint_id=endpoint_id,
            base_url=terms.base_url,
            storage_target_id=terms.storage_target_id,
            retain_seconds=None if terms.retain is None else _whole_seconds(terms.retain),
            persist=terms.persist,
            access=terms.access,
            name=terms.name,
            echo=None if terms.echo is None else orjson.dumps(terms.echo).decode(),
            inputs=[stored.row for stored in inputs.values()],
        )
        return self._accept(row, once)

    def find(self, job_id: UUID, *, account_id: UUID) -> JobRow:
        """Give an account's job.

        Raises:
            UnknownJob: there is none, or it is somebody else's.
        """
        with self._database.autocommit() as tx:
            row = history.find_job(tx, job_id, account_id=account_id)
        if row is None:
            raise UnknownJob
        return row

    def cancel(self, job_id: UUID, *, account_id: UUID) -> JobRow:
        """End a queued job at once, or have a running one stop within a step; gives it as it stands then.

        Raises:
            UnknownJob: there is none, or it is somebody else's.
            AlreadyEnded: it had ended before.
        """
        with self._database.autocommit() as tx:
            status = job_rows.cancel(tx, job_id, account_id=account_id)
        job = self.find(job_id, account_id=account_id)
        if status is None and job.status is not Status.CANCELLED:
            raise AlreadyEnded(f"This job has {job.status} already; only an unfinished one can be cancelled.")
        # JOBS too: its webhooks are due.
        self._doorbell.ring(bell.JOBS, bell.PROGRESS, bell.CANCELS)
        return job

    def retry(self, job_id: UUID, *, account_id: UUID, test: bool, once: Once | None = None) -> Accepted:
        """Write down a new job with the spec and the terms of one that has ended, seed and inputs included.

        Args:
            test: whether a test key asks; then the images are marked, whatever those of the old job were.

        Raises:
            UnknownJob: there is none, or it is somebody else's.
            StillRunning: it has not ended.
            UnknownModel: its model has left the catalogue.
            Gone: its input images were deleted meanwhile.
            QueueFull, IdempotencyMismatch, StorageDown, DatabaseDown: see `submit`.
        """
        old = self.find(job_id, account_id=account_id)
        if old.status not in TERMINAL:
            raise StillRunning
        if once is not None and (replay := self._first_use(once, account_id, old)) is not None:
            return replay
        target = self._target_of(old)
        self._quotas.take(account_id)
        spec = JobSpec.model_validate(old.spec)
        inputs = self._inputs.copy(spec, account_id=account_id)
        row = door.NewJob(
            id=uuid7(),
            account_id=account_id,
            dialect=old.dialect,
            provider=target.provider,
            queue=target.queue,
            spec=with_inputs(spec, inputs).model_copy(update={"test": spec.test or test}).as_stored(),
            operation=old.operation,
            model=old.model,
            output_prefix=uuid4(),
            max_attempts=self._settings.max_attempts,
            priority=old.priority,
            test=old.test or test,
            numbered=old.number is not None,
            track_id=old.track_id,
            webhook_endpoint_id=old.webhook_endpoint_id,
            base_url=old.base_url,
            storage_target_id=old.storage_target_id,
            retain_seconds=old.retain_seconds,
            persist=old.persist,
            access=old.access,
            name=old.name,
            echo=None if old.echo is None else orjson.dumps(old.echo).decode(),
            retry_of=old.id,
            inputs=[stored.row for stored in inputs.values()],
        )
        return self._accept(row, once)

    def estimate(self, job: JobRow, *, ahead: int | None = None) -> datetime:
        """Give when an unfinished job is likely to be done, from recent run times and the queue's load.

        Args:
            ahead: jobs that start before it; None takes the load of the whole queue, so that the estimate of
                a job far ahead in it is too late.
        """
        now = datetime.now(UTC)
        if job.started_at is not None and job.status is Status.PROCESSING:
            return max(now, job.started_at + self.forecast.run(job.model))
        return now + self.forecast.until_done(model=job.model, queue=job.queue, ahead=ahead)

    def _plan_drawing(self, wish: Wish) -> "_Plan":
        model = self.catalog.find(wish.model) if wish.model is not None else self.catalog.models[0]
        width, height = _size(wish, model)
        _check(wish, model, width=width, height=height)
        return _Plan(
            model=model.id,
            provider=model.targets[0].provider,
            queue=model.targets[0].queue,
            chosen=_chosen(wish, model, width=width, height=height),
        )

    def _target_of(self, job: JobRow) -> Target:
        """Who does a job's work by today's catalogue: nobody may serve the queue any more that it was on."""
        if Operation(job.operation).transforms:
            return PILLOW
        return self.catalog.find(job.model).targets[0]

    def _endpoint_of(self, wish: Wish, account_id: UUID) -> UUID | None:
        hook = wish.terms.webhook
        if hook is None:
            return None
        return webhooks.endpoint_of_request(
            self._database, self._vault, account_id=account_id, url=hook.url, form=hook.form
        )

    def _first_use(self, once: Once, account_id: UUID, plan: "_Plan | JobRow") -> Accepted | None:
        """The job this Idempotency-Key made before; a full account gets it too, and nothing is uploaded."""
        with self._database.raw() as connection:
            written = door.first_use(connection, account_id=account_id, endpoint=once.endpoint, key=once.key)
        if written is None:
            return None
        until_done = self.forecast.until_done(model=plan.model, queue=plan.queue)
        return _accepted(written, once, until_done=until_done, replayed=True)

    def _accept(self, row: door.NewJob, once: Once | None) -> Accepted:
        try:
            accepted = self._write(row, once)
        except IdempotencyMismatch:
            self._inputs.forget(row.inputs)
            raise
        if accepted.replayed:
            self._inputs.forget(row.inputs)
        else:
            self._doorbell.ring()
        return accepted

    def _write(self, row: door.NewJob, once: Once | None) -> Accepted:
        # Before the commit: nothing that can be slow stands between it and the answer.
        until_done = self.forecast.until_done(model=row.model, queue=row.queue)
        if once is None and not row.inputs:
            written = self._writer.write(row)
        else:
            with self._database.raw() as connection:
                written = (
                    door.insert(connection, row) if once is None else door.insert_once(connection, row, once)
                )
        return _accepted(written, once, until_done=until_done, replayed=written.id != row.id)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Who does it, and the members of the spec that follow from the model and not from the request alone."""

    model: str
    provider: str
    queue: str
    chosen: Mapping[str, Any]

    def spec(self, wish: Wish, inputs: Mapping[str, Input]) -> JobSpec:
        images = {role: stored.image for role, stored in inputs.items()}
        return JobSpec(
            operation=wish.operation,
            model=self.model,
            prompt=wish.prompt,
            negative_prompt=wish.negative_prompt or "",
            image=images.get("image"),
            mask_image=images.get("mask_image"),
            mask_from_alpha=wish.mask_from_alpha,
            watermarks=watermarks_of(images),
            quality=wish.quality,
            safety_checker=wish.safety_checker,
            safety_checker_type=wish.safety_checker_type,
            test=wish.terms.test,
            **self.chosen,
        )


def _whole_seconds(duration: timedelta) -> int:
    """A duration as the column takes it; a setting may be a fraction of a second or a thousand years."""
    return min(max(1, int(duration.total_seconds())), _LONGEST_RETAINED)


def _accepted(written: door.Written, once: Once | None, *, until_done: timedelta, replayed: bool) -> Accepted:
    if once is not None and written.request_sha256 != once.request_sha256:
        raise IdempotencyMismatch
    return Accepted(
        job_id=written.id,
        number=written.number,
        output_prefix=written.output_prefix,
        created_at=written.created_at,
        estimated_completion=written.created_at + until_done,
        replayed=replayed,
    )


def _size(wish: Wish, model: Model) -> tuple[int, int]:
    """The size asked for; else the input image's as far as the model can; else the model's preferred one."""
    width, height = model.width, model.height
    if wish.image is not None:
        width, height = model.size.fit(*wish.image.size)
    return wish.width or width, wish.height or height


def _check(wish: Wish, model: Model, *, width: int, height: int) -> None:
    problems = model.problems_with(
        operation=wish.operation, width=width, height=height, num_images=wish.num_images or 1
    )
    _refuse(wish, problems)


def _refuse(wish: Wish, problems: Sequence[FieldProblem]) -> None:
    if problems:
        raise InvalidFields(
            *(FieldProblem(field=wish.fields.get(p.field, p.field), message=p.message) for p in problems)
        )


def _chosen(wish: Wish, model: Model, *, width: int, height: int) -> dict[str, Any]:
    """The model's defaults and a seed where the request named none, so that every attempt draws the same."""
    named: dict[str, Any] = {
        "num_inference_steps": wish.num_inference_steps,
        "guidance_scale": wish.guidance_scale,
        "strength": wish.strength,
    }
    chosen = {**model.defaults.model_dump(), **{k: v for k, v in named.items() if v is not None}}
    if wish.operation is Operation.TEXT_TO_IMAGE:
        chosen["strength"] = 1.0
    return {
        **chosen,
        "width": width,
        "height": height,
        "seed": secrets.randbelow(_SEEDS) if wish.seed is None else wish.seed,
        "num_images": wish.num_images or 1,
        "output_format": wish.output_format or ImageFormat.PNG,
    }


def _plan_transform(wish: Wish) -> _Plan:
    transform, image = wish.transform, wish.image
    assert transform is not None
    if image is None:
        raise InvalidFields(FieldProblem(field=wish.fields.get("image", "image"), message="is required"))
    width, height = image.size
    marks = [mark.size for mark in wish.watermarks]
    _refuse(wish, problems_with(transform, width, height, image.format, watermarks=marks))
    return _Plan(
        model=PILLOW.model,
        provider=PILLOW.provider,
        queue=PILLOW.queue,
        chosen={
            "transform": transform,
            "width": width,
            "height": height,
            "seed": 0,
            "output_format": wish.output_format or result_format(transform, image.format),
        },
    )
