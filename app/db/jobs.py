"""The guarded statements: claim, heartbeat, settle, end_attempt, rescue.

Each repeats its condition in the UPDATE and says through its result whether it held. Whatever a worker
writes carries `attempt` as the fence: a worker presumed dead that wakes up finds no row. Only the
database's clock is used. Each writes the job and its event in one statement, so in autocommit each is a
transaction of its own and costs one round trip.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy.engine import Connection

from app.domain.job import MAX_CRASHES, Reason, Status, sources
from app.errors import Deferred, ProviderBusy


def _sql_list(statuses: frozenset[Status]) -> str:
    return "(" + ", ".join(f"'{status}'" for status in sorted(statuses)) + ")"


FROM_TO_PROCESSING: Final = _sql_list(sources(Status.PROCESSING))
FROM_TO_COMPLETED: Final = _sql_list(sources(Status.COMPLETED))
FROM_TO_QUEUED: Final = _sql_list(sources(Status.QUEUED))
FROM_TO_CANCELLED: Final = _sql_list(sources(Status.CANCELLED))
_UNLEASED: Final = (
    "lease_owner = NULL, lease_until = NULL, deadline_at = NULL, stage = NULL, step = NULL, steps = NULL"
)
_CANCELLED: Final = "'The job was cancelled while it ran.'"


def to_json(value: object) -> str:
    """Give JSON text for a `jsonb` parameter."""
    return orjson.dumps(value).decode()


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A job this process now owns, until its lease runs out."""

    job_id: UUID
    account_id: UUID
    created_at: datetime
    attempt: int
    failures: int
    max_attempts: int
    provider: str
    model: str
    target_model: str | None
    queue: str
    batch_key: str | None
    tried: list[str]
    spec: dict[str, Any]
    output_prefix: UUID
    storage_target_id: UUID | None
    echo: dict[str, Any] | None


CLAIMED: Final = (
    "id AS job_id, account_id, created_at, attempt, failures, max_attempts, provider, model, target_model, "
    "queue, batch_key, tried, spec, output_prefix, storage_target_id, echo"
)
"""The columns of a `Claim`."""
TAKE: Final = (
    "status = 'processing', attempt = attempt + 1, started_at = now(), progress = 0, "
    "lease_owner = %(worker)s, lease_until = now() + %(lease)s, deadline_at = now() + %(deadline)s"
)
_CLAIM: Final = f"""
WITH claimed AS (
    UPDATE jobs SET {TAKE}
    WHERE id = %(job_id)s AND status IN {FROM_TO_PROCESSING} AND run_at <= now()
          AND cancel_requested_at IS NULL AND (%(queues)s::text[] IS NULL OR queue = ANY (%(queues)s))
    RETURNING {CLAIMED}
), event AS (
    INSERT INTO job_events (job_id, from_status, to_status, attempt, reason, worker)
    SELECT job_id, 'queued', 'processing', attempt, '{Reason.CLAIMED}', %(worker)s FROM claimed
)
SELECT * FROM claimed
"""


def claim(
    tx: Connection,
    job_id: UUID,
    *,
    worker: str,
    lease: timedelta,
    deadline: timedelta,
    queues: Sequence[str] | None = None,
) -> Claim | None:
    """Take a queued job that is due; None when somebody else has it or it is not due.

    Args:
        worker: unique name of this process; written to `lease_owner`.
        lease: how long the job stays ours without a heartbeat.
        deadline: how long this attempt may take altogether.
        queues: those this process serves: a late wake-up may name a job that was moved to another; None:
            all of them.
    """
    row = tx.exec_driver_sql(
        _CLAIM,
        {
            "job_id": job_id,
            "worker": worker,
            "lease": lease,
            "deadline": deadline,
            "queues": None if queues is None else list(queues),
        },
    ).first()
    return None if row is None else Claim(**row._mapping)


@dataclass(frozen=True, kw_only=True)
class Beat:
    """What a heartbeat learned of one job that is still ours."""

    cancel_requested: bool
    overdue: bool


@dataclass(frozen=True, kw_only=True)
class Held:
    """A job that a process runs, as its heartbeat writes it: how much of it is done, 0 to 1, and at what.

    `step` of `steps` counts over all its images; both are None while that is unknown.
    """

    job_id: UUID
    attempt: int
    progress: float
    stage: str | None = None
    step: int | None = None
    steps: int | None = None


_HEARTBEAT: Final = """
UPDATE jobs SET progress = held.progress, stage = held.stage, step = held.step, steps = held.steps,
       lease_until = CASE WHEN jobs.deadline_at > now() THEN now() + %(lease)s ELSE jobs.lease_until END
FROM unnest(%(job_id)s::uuid[], %(attempt)s::int[], %(progress)s::real[], %(stage)s::text[], %(step)s::int[],
            %(steps)s::int[]) AS held (id, attempt, progress, stage, step, steps)
WHERE jobs.id = held.id AND jobs.attempt = held.attempt AND jobs.status = 'processing'
RETURNING jobs.id, jobs.cancel_requested_at IS NOT NULL AS cancel_requested,
          jobs.deadline_at <= now() AS overdue
"""


def heartbeat(tx: Connection, held: Sequence[Held], *, lease: timedelta) -> dict[UUID, Beat]:
    """Renew the leases of the jobs a process runs; those missing from the answer are no longer its own.

    Args:
        held: the jobs.
        lease: how long they stay ours from now; not renewed for a job past its deadline.
    """
    arrays = {name: [getattr(one, name) for one in held] for name in Held.__dataclass_fields__}
    rows = tx.exec_driver_sql(_HEARTBEAT, {**arrays, "lease": lease})
    return {row.id: Beat(cancel_requested=row.cancel_requested, overdue=row.overdue) for row in rows}


_COMPLETE: Final = f"""
WITH won AS (
    UPDATE jobs SET status = 'completed', finished_at = now(), progress = 1, error_code = NULL,
           error_message = NULL, warnings = %(warnings)s::jsonb,
           cost = coalesce(cost + %(cost)s, cost, %(cost)s), {_UNLEASED}
    WHERE id = %(job_id)s AND status IN {FROM_TO_COMPLETED} AND attempt = %(attempt)s
    RETURNING id, account_id, attempt, name, test, access,
              now() + coalesce(make_interval(secs => retain_seconds), %(retention)s) AS expires_at,
              CASE WHEN persist THEN now() END AS persisted_at
), placed AS (
    INSERT INTO outputs (id, job_id, account_id, attempt, index, key, sha256, size, width, height, format,
                         seed, flagged, expires_at, persisted_at, name, test, access,
                         copy_state, copy_url, copy_attempts, copy_run_at, copy_error)
    SELECT o.id, won.id, won.account_id, won.attempt, o.index, o.key, o.sha256, o.size, o.width, o.height,
           o.format, o.seed, o.flagged, won.expires_at,
           CASE WHEN o.copy_state = 'pending' THEN now() ELSE won.persisted_at END,
           won.name, won.test, won.access,
           o.copy_state, o.copy_url, coalesce(o.copy_attempts, 0),
           CASE WHEN o.copy_state = 'pending' THEN now() + make_interval(secs => o.copy_wait_seconds) END,
           o.copy_error
    FROM won, jsonb_to_recordset(%(outputs)s::jsonb)
         AS o (id uuid, index int, key text, sha256 text, size bigint, width int, height int, format text,
               seed bigint, flagged boolean, copy_state text, copy_url text, copy_attempts int,
               copy_wait_seconds double precision, copy_error text)
), event AS (
    INSERT INTO job_events (job_id, from_status, to_status, attempt, reason, worker, detail)
    SELECT id, 'processing', 'completed', attempt, '{Reason.COMPLETED}', %(worker)s, %(detail)s::jsonb
    FROM won
)
SELECT count(*) AS won FROM won
"""


def settle_completed(  # noqa: PLR0913 - the columns it writes
    tx: Connection,
    job_id: UUID,
    *,
    attempt: int,
    worker: str,
    outputs: Sequence[dict[str, object]],
    retention: timedelta,
    detail: dict[str, object],
    warnings: Sequence[str] = (),
    cost: Decimal | None = None,
) -> bool:
    """Make an attempt's outputs the job's, visible from this statement on; False when the job moved on.

    Args:
        outputs: one dict per image: id, index, key, sha256, size, width, height, format, seed, flagged, and
            for a customer's own bucket copy_state, copy_url, copy_attempts, copy_wait_seconds, copy_error.
            An image whose copy is still pending is kept by us until it has succeeded.
        retention: how long they are served unless persisted, or unless the job says otherwise.
        detail: kept with the event, for instance seconds per stage.
        warnings: sentences for the customer.
        cost: what it cost beside what was written down while the job ran.
    """
    parameters = {
        "job_id": job_id,
        "attempt": attempt,
        "worker": worker,
        "outputs": to_json(outputs),
        "retention": retention,
        "detail": to_json(detail),
        "warnings": to_json(list(warnings)) if warnings else None,
        "cost": cost,
    }
    return bool(tx.exec_driver_sql(_COMPLETE, parameters).scalar_one())


# Asked of the very row that is written. A joined copy of it was that of before a cancel which this statement
# had to wait for, and such a job was queued for ever, as nobody may claim what is to be cancelled.
_DUE_AGAIN: Final = "%(to_status)s = 'queued' AND cancel_requested_at IS NULL"
_CANCELLED_INSTEAD: Final = "%(to_status)s = 'queued' AND cancel_requested_at IS NOT NULL"
_MOVED: Final = f"%(provider)s::text IS NOT NULL AND {_DUE_AGAIN}"
_END: Final = f"""
WITH ended AS (
    UPDATE jobs SET status = CASE WHEN {_CANCELLED_INSTEAD} THEN 'cancelled' ELSE %(to_status)s END,
           error_code = CASE WHEN {_CANCELLED_INSTEAD} THEN 'cancelled' ELSE %(error_code)s END,
           error_message = CASE WHEN {_CANCELLED_INSTEAD} THEN {_CANCELLED} ELSE %(error_message)s END,
           finished_at = CASE WHEN {_DUE_AGAIN} THEN NULL ELSE now() END,
           run_at = CASE WHEN {_DUE_AGAIN} THEN now() + %(delay)s ELSE run_at END,
           dispatched_at = CASE WHEN {_DUE_AGAIN} THEN NULL ELSE dispatched_at END,
           provider = CASE WHEN {_MOVED} THEN %(provider)s ELSE provider END,
           queue = CASE WHEN {_MOVED} THEN %(queue)s ELSE queue END,
           target_model = CASE WHEN {_MOVED} THEN %(target_model)s ELSE target_model END,
           tried = CASE WHEN {_MOVED} AND %(failed_it)s
                        THEN tried || (provider || '/' || coalesce(target_model, '')) ELSE tried END,
           batch_key = CASE WHEN {_MOVED} THEN %(batch_key)s WHEN %(alone)s THEN NULL ELSE batch_key END,
           failures = failures + %(charge)s, {_UNLEASED}
    WHERE id = %(job_id)s AND status IN {FROM_TO_QUEUED} AND attempt = %(attempt)s
    RETURNING id, attempt, status
), event AS (
    INSERT INTO job_events (job_id, from_status, to_status, attempt, reason, worker, detail)
    SELECT id, 'processing', status, attempt,
           CASE WHEN status = 'cancelled' THEN '{Reason.CANCELLED}' ELSE %(reason)s END,
           %(worker)s, %(detail)s::jsonb
    FROM ended
)
SELECT count(*) AS ended FROM ended
"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a job is to be drawn."""

    provider: str
    target_model: str
    queue: str
    batch_key: str | None


def end_attempt(  # noqa: PLR0913 - the columns it writes
    tx: Connection,
    job_id: UUID,
    *,
    attempt: int,
    worker: str,
    to_status: Status,
    reason: Reason,
    charge: bool,
    error_code: str | None = None,
    error_message: str | None = None,
    delay: timedelta = timedelta(0),
    detail: dict[str, object] | None = None,
    move: Place | None = None,
    alone: bool = False,
) -> bool:
    """End an attempt without a result: failed, cancelled, or back to queued; False when the job moved on.

    A job that is to be cancelled does not go back to queued, it is cancelled.

    Args:
        charge: whether the attempt counts against `max_attempts`; a drain does not.
        delay: for queued: how long until the job is due again.
        move: for queued: where it is drawn next; the target it leaves is noted in `tried` unless too busy.
        alone: for queued: that it is not drawn together with others any more.
    """
    assert to_status in {Status.QUEUED, Status.FAILED, Status.CANCELLED}
    parameters = {
        "job_id": job_id,
        "attempt": attempt,
        "worker": worker,
        "to_status": to_status.value,
        "reason": reason.value,
        "charge": int(charge),
        "error_code": error_code,
        "error_message": error_message,
        "delay": delay,
        "detail": to_json(detail) if detail else None,
        "failed_it": error_code not in {Deferred.code, ProviderBusy.code},  # who is busy may be asked again
        "provider": move and move.provider,
        "queue": move and move.queue,
        "target_model": move and move.target_model,
        "batch_key": move and move.batch_key,
        "alone": alone,
    }
    return bool(tx.exec_driver_sql(_END, parameters).scalar_one())


_CANCEL: Final = f"""
WITH asked AS (
    UPDATE jobs SET cancel_requested_at = coalesce(cancel_requested_at, now()),
           status = CASE WHEN status = 'queued' THEN 'cancelled' ELSE status END,
           finished_at = CASE WHEN status = 'queued' THEN now() END,
           error_code = CASE WHEN status = 'queued' THEN 'cancelled' ELSE error_code END,
           error_message = CASE WHEN status = 'queued' THEN 'The job was cancelled before it ran.'
                           ELSE error_message END
    WHERE id = %(job_id)s AND account_id = %(account_id)s AND status IN {FROM_TO_CANCELLED}
    RETURNING id, status, attempt
), event AS (
    INSERT INTO job_events (job_id, from_status, to_status, attempt, reason)
    SELECT id, 'queued', 'cancelled', attempt, '{Reason.CANCELLED}' FROM asked WHERE status = 'cancelled'
)
SELECT status FROM asked
"""


def cancel(tx: Connection, job_id: UUID, *, account_id: UUID) -> Status | None:
    """End a queued job at once, or ask whoever runs it to stop; gives its status after that.

    None when it had ended already, or is no job of this account.
    """
    row = tx.exec_driver_sql(_CANCEL, {"job_id": job_id, "account_id": account_id}).first()
    return None if row is None else Status(row.status)


_RESCUE: Final = f"""
WITH silent AS (
    SELECT id, crashes + 1 AS crashes, failures + 1 AS failures, attempt, lease_owner,
           deadline_at <= lease_until AS overdue, cancel_requested_at IS NOT NULL AS cancelled,
           crashes + 1 >= {MAX_CRASHES} OR failures + 1 >= max_attempts AS spent
    FROM jobs WHERE status = 'processing' AND lease_until < now()
    ORDER BY lease_until LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), rescued AS (
    UPDATE jobs SET
        status = CASE WHEN cancelled THEN 'cancelled' WHEN overdue OR spent THEN 'failed' ELSE 'queued' END,
        finished_at = CASE WHEN cancelled OR overdue OR spent THEN now() END,
        error_code = CASE WHEN cancelled THEN 'cancelled' WHEN overdue THEN 'timeout'
            WHEN spent THEN 'worker_crashed' ELSE 'lease_lost' END,
        error_message = CASE WHEN cancelled THEN {_CANCELLED}
            WHEN overdue THEN 'The job ran longer than its deadline allows.'
            WHEN spent THEN 'The worker died ' || silent.crashes || ' times while it ran this job.'
            ELSE 'The worker fell silent; the job is tried again.' END,
        crashes = silent.crashes, failures = silent.failures,
        run_at = now(), dispatched_at = NULL,
        -- One that keeps killing its worker takes no others with it the third time.
        batch_key = CASE WHEN silent.crashes + 1 >= {MAX_CRASHES} THEN NULL ELSE batch_key END, {_UNLEASED}
    FROM silent
    WHERE jobs.id = silent.id AND jobs.status IN {FROM_TO_QUEUED} AND jobs.lease_until < now()
    RETURNING jobs.id, jobs.status, jobs.attempt, jobs.error_code, silent.lease_owner
), event AS (
    INSERT INTO job_events (job_id, from_status, to_status, attempt, reason, worker, detail)
    SELECT id, 'processing', status, attempt, '{Reason.LEASE_LOST}', lease_owner,
           jsonb_build_object('error_code', error_code) FROM rescued
)
SELECT count(*) FILTER (WHERE status = 'queued') AS requeued,
       count(*) FILTER (WHERE status = 'failed') AS failed FROM rescued
"""


@dataclass(frozen=True, kw_only=True)
class Rescued:
    """How many jobs of silent workers became due again, and how many failed for good."""

    requeued: int
    failed: int


def rescue(tx: Connection, *, limit: int = 500) -> Rescued:
    """Give back the jobs whose lease ran out; those that crashed too often, or are overdue, fail.

    Overdue is a job whose worker was alive at its deadline: heartbeats stop there, so the lease ends at least
    two heartbeats behind it. One that fell silent before did not run too long, however late this comes.
    """
    row = tx.exec_driver_sql(_RESCUE, {"limit": limit}).one()
    return Rescued(requeued=row.requeued, failed=row.failed)
