"""From a wish to a promise: checks a request against the catalogue, stores its inputs, writes the job.

`submit` returns only after the job is committed; from then on nothing that dies loses it.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypedDict
from uuid import UUID, uuid4

import orjson
from uuid_utils.compat import uuid7

from app import webhooks
from app.db import Database, bell, door, history
from app.db import jobs as job_rows
from app.db.door import Once
from app.db.history import JobRow
from app.db.together import Writer
from app.domain.catalog import PILLOW, Catalog
from app.domain.job import TERMINAL, Status
from app.domain.spec import JobSpec
from app.errors import (
    AlreadyEnded,
    IdempotencyMismatch,
    StillRunning,
    UnknownJob,
)
from app.forecast import Forecast, Quotas
from app.inputs import Inputs, with_inputs
from app.plans import Plan, plan_drawing, plan_transform
from app.routes import Route, Routes
from app.settings import Settings
from app.storage import Storage
from app.vault import Vault
from app.wish import Wish

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
    """The door, shared by all dialects of a web process; thread-safe.

    Args:
        chance: gives random numbers in [0, 1), for models that share their jobs by weight.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        storage: Storage,
        catalog: Catalog,
        doorbell: bell.Doorbell,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.catalog = catalog
        self.forecast = Forecast(settings, database, catalog)
        self._routes = Routes(settings, catalog, self.forecast, chance=chance)
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
            InvalidFields: the model cannot do it, or nobody who draws it; each problem under the name the
                caller used.
            Unservable: nobody who can draw it is there, and DARKROOM_UNSERVABLE_AFTER is 0.
            QueueFull: the account has too many unfinished jobs.
            IdempotencyMismatch: the Idempotency-Key was used with another request.
            StorageDown: nothing was accepted; the same request works later.
            DatabaseDown: the same, except when the answer to the commit got lost; an Idempotency-Key makes
                repeating safe.
        """
        plan = self._plan(wish)
        if once is not None and (replay := self._first_use(once, account_id, plan)) is not None:
            return replay
        route = self._route(plan, wish)
        self._quotas.take(account_id)
        endpoint_id = self._endpoint_of(wish, account_id)
        inputs = self._inputs.store(wish, account_id=account_id)
        spec = plan.spec(wish, inputs)
        terms = wish.terms
        row = door.NewJob(
            id=uuid7(),
            account_id=account_id,
            dialect=dialect,
            **self._place(route, spec),
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
            InvalidFields, Unservable: see `submit`; those who draw its model may be others by now.
            Gone: its input images were deleted meanwhile.
            QueueFull, IdempotencyMismatch, StorageDown, DatabaseDown: see `submit`.
        """
        old = self.find(job_id, account_id=account_id)
        if old.status not in TERMINAL:
            raise StillRunning
        if once is not None and (replay := self._first_use(once, account_id, old)) is not None:
            return replay
        spec = JobSpec.model_validate(old.spec)
        route = self._route_of(old, spec)
        self._quotas.take(account_id)
        inputs = self._inputs.copy(spec, account_id=account_id)
        row = door.NewJob(
            id=uuid7(),
            account_id=account_id,
            dialect=old.dialect,
            **self._place(route, spec),
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
            return max(now, job.started_at + self.forecast.run(job.model, job.queue))
        return now + self.forecast.until_done(model=job.model, queue=job.queue, ahead=ahead)

    def _plan(self, wish: Wish) -> Plan:
        if wish.operation.transforms:
            return plan_transform(wish)
        return plan_drawing(
            wish, self.catalog.find(wish.model) if wish.model is not None else self.catalog.models[0]
        )

    def _route(self, plan: Plan, wish: Wish) -> Route:
        if plan.draws is None:
            return Route(target=PILLOW)
        return self._routes.choose(plan.draws, plan.draft(wish), fields=wish.fields)

    def _route_of(self, job: JobRow, spec: JobSpec) -> Route:
        """Who does a job's work by today's catalogue: nobody may serve the queue any more that it was on."""
        if spec.operation.transforms:
            return Route(target=PILLOW)
        return self._routes.choose(self.catalog.find(job.model), spec, fields={})

    def _place(self, route: Route, spec: JobSpec) -> "_Placed":
        target = route.target
        return {
            "provider": target.provider,
            "target_model": target.model,
            "queue": target.queue,
            "batch_key": self.catalog.batch_key(spec, target),
            "routed": route.routed,
        }

    def _endpoint_of(self, wish: Wish, account_id: UUID) -> UUID | None:
        hook = wish.terms.webhook
        if hook is None:
            return None
        return webhooks.endpoint_of_request(
            self._database, self._vault, account_id=account_id, url=hook.url, form=hook.form
        )

    def _first_use(self, once: Once, account_id: UUID, plan: Plan | JobRow) -> Accepted | None:
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


class _Placed(TypedDict):
    """Columns that say who does a job."""

    provider: str
    target_model: str
    queue: str
    batch_key: str | None
    routed: str | None


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
