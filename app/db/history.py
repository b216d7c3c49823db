"""What is read of jobs: one by its id or number, pages of them, their timelines, and where they stand."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from sqlalchemy.engine import Connection, Row

from app.domain.job import Access, CopyState, Status


@dataclass(frozen=True, kw_only=True)
class JobRow:
    """A job as its owner sees it."""

    id: UUID
    account_id: UUID
    number: int | None
    dialect: str
    status: Status
    operation: str
    model: str
    provider: str
    queue: str
    priority: int
    output_prefix: UUID
    progress: float
    stage: str | None
    step: int | None
    steps: int | None
    attempt: int
    max_attempts: int
    error_code: str | None
    error_message: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    spec: dict[str, Any]
    test: bool
    track_id: str | None
    base_url: str | None
    storage_target_id: UUID | None
    webhook_endpoint_id: UUID | None
    retain_seconds: int | None
    persist: bool
    access: str
    name: str | None
    echo: dict[str, Any] | None
    retry_of: UUID | None
    target_model: str | None = None
    warnings: list[str] | None = None
    cost: Decimal | None = None


@dataclass(frozen=True, kw_only=True)
class OutputRow:
    """An output, with what is needed to serve it."""

    id: UUID
    job_id: UUID
    account_id: UUID
    index: int
    key: str
    sha256: str
    size: int
    width: int
    height: int
    format: str
    seed: int
    state: str
    expires_at: datetime
    persisted_at: datetime | None
    published_at: datetime | None
    purged_at: datetime | None
    name: str | None
    test: bool
    access: Access
    flagged: bool | None
    copy_state: CopyState | None
    copy_url: str | None
    created_at: datetime
    expired: bool


_COLUMNS: Final = ", ".join(JobRow.__dataclass_fields__)


_CLOCKS_DIFFER: Final = timedelta(minutes=15)
"""How far a web process, which makes the ids, may be behind the database, which writes `created_at`."""
_FIRST: Final = datetime(1970, 1, 2, tzinfo=UTC)


def _job(row: Row[Any] | None) -> JobRow | None:
    return None if row is None else JobRow(**{**row._mapping, "status": Status(row.status)})


def find_job(tx: Connection, job_id: UUID, *, account_id: UUID) -> JobRow | None:
    """Give an account's job; None when there is no such job or it is somebody else's."""
    row = tx.exec_driver_sql(
        f"SELECT {_COLUMNS} FROM jobs WHERE id = %(job_id)s AND account_id = %(account_id)s",
        {"job_id": job_id, "account_id": account_id},
    ).first()
    return _job(row)


def find_by_number(tx: Connection, number: int, *, account_id: UUID) -> JobRow | None:
    """Give an account's job by its integer id; None when there is none, or it is somebody else's."""
    row = tx.exec_driver_sql(
        f"SELECT {_COLUMNS} FROM jobs WHERE number = %(number)s AND account_id = %(account_id)s",
        {"number": number, "account_id": account_id},
    ).first()
    return _job(row)


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which jobs a page shows; None does not filter."""

    status: Status | None = None
    operation: str | None = None
    model: str | None = None
    provider: str | None = None
    dialect: str | None = None
    track_id: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


_CONDITIONS: Final = {
    "status": "status = %(status)s",
    "operation": "operation = %(operation)s",
    "model": "model = %(model)s",
    "provider": "provider = %(provider)s",
    "dialect": "dialect = %(dialect)s",
    "track_id": "track_id = %(track_id)s",
    "created_after": "created_at >= %(created_after)s",
    "created_before": "created_at < %(created_before)s",
}


def first_id(moment: datetime) -> UUID:
    """Give the smallest id of a job made at this time: a UUIDv7 begins with its milliseconds since 1970."""
    return UUID(int=max(0, int(moment.timestamp() * 1000)) << 80)


def list_jobs(
    tx: Connection, *, account_id: UUID, filters: Filters, before: UUID | None, limit: int
) -> list[JobRow]:
    """Give an account's newest jobs, those older than `before`; a job's UUIDv7 is its age."""
    given = {name: value for name, value in vars(filters).items() if value is not None}
    conditions = ["account_id = %(account_id)s", *(_CONDITIONS[name] for name in given)]
    if before is not None:
        conditions.append("id < %(before)s")
    if filters.created_after is not None:
        # So that what is older is not read; whoever made the id may have been late, or its clock slow.
        conditions.append("id >= %(oldest)s")
        given["oldest"] = first_id(max(filters.created_after, _FIRST) - _CLOCKS_DIFFER)
    rows = tx.exec_driver_sql(
        f"SELECT {_COLUMNS} FROM jobs WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT %(limit)s",
        {**given, "account_id": account_id, "before": before, "limit": limit},
    )
    return [job for row in rows if (job := _job(row)) is not None]


@dataclass(frozen=True, kw_only=True)
class EventRow:
    """One transition of a job."""

    id: int
    at: datetime
    from_status: str | None
    to_status: str
    attempt: int
    reason: str
    worker: str | None
    detail: dict[str, Any] | None


def timeline(tx: Connection, job_id: UUID, *, after: int = 0) -> list[EventRow]:
    """Give a job's transitions in order, those with an id above `after`."""
    rows = tx.exec_driver_sql(
        "SELECT id, at, from_status, to_status, attempt, reason, worker, detail FROM job_events "
        "WHERE job_id = %(job_id)s AND id > %(after)s ORDER BY id",
        {"job_id": job_id, "after": after},
    )
    return [EventRow(**row._mapping) for row in rows]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a job stands, as whoever waits for it wants to know."""

    id: UUID
    status: Status
    attempt: int
    progress: float
    stage: str | None
    step: int | None
    steps: int | None


def standings(tx: Connection, job_ids: Sequence[UUID]) -> dict[UUID, Standing]:
    """Give where each of these jobs stands; one statement, however many."""
    rows = tx.exec_driver_sql(
        "SELECT id, status, attempt, progress, stage, step, steps FROM jobs WHERE id = ANY(%(ids)s)",
        {"ids": list(job_ids)},
    )
    return {row.id: Standing(**{**row._mapping, "status": Status(row.status)}) for row in rows}


_WAITS: Final = "queue = (SELECT queue FROM mine) AND status = 'queued' AND dispatched_at IS NULL"
_MINE: Final = "account_id = (SELECT account_id FROM mine)"
# Relay's own index answers each part, and no part reads more rows than it counts: accounts are found one by
# one, as in `queues`, and of each no more jobs are read than go before this one. Counted whole, a backlog of
# 225,000 jobs cost 35 ms for everybody who asked.
_AHEAD: Final = f"""
WITH RECURSIVE mine AS (
    SELECT queue, account_id, priority, run_at, dispatched_at, id FROM jobs
    WHERE id = %(job_id)s AND status = 'queued'
), own AS (
    SELECT least(%(most)s, (
        SELECT count(*) FROM (
            SELECT 1 FROM jobs WHERE {_WAITS} AND {_MINE} AND priority > (SELECT priority FROM mine)
            LIMIT %(most)s) AS preferred
    ) + (
        SELECT count(*) FROM (
            SELECT 1 FROM jobs WHERE {_WAITS} AND {_MINE} AND priority = (SELECT priority FROM mine)
                   AND (run_at, id) < ((SELECT run_at FROM mine), (SELECT id FROM mine))
            LIMIT %(most)s) AS due_before
    )) AS jobs
), waiting AS (
    (SELECT account_id FROM jobs WHERE {_WAITS} ORDER BY account_id LIMIT 1)
    UNION ALL
    SELECT (SELECT account_id FROM jobs WHERE {_WAITS} AND account_id > waiting.account_id
            ORDER BY account_id LIMIT 1)
    FROM waiting WHERE waiting.account_id IS NOT NULL
), others AS (
    SELECT coalesce(sum(counted.jobs), 0) AS jobs
    FROM waiting CROSS JOIN LATERAL (
        SELECT count(*) AS jobs FROM (
            SELECT 1 FROM jobs WHERE {_WAITS} AND account_id = waiting.account_id
            LIMIT (SELECT jobs + 1 FROM own)) AS first) AS counted
    WHERE waiting.account_id <> (SELECT account_id FROM mine)
), released AS (
    SELECT count(*) AS jobs FROM jobs
    WHERE queue = (SELECT queue FROM mine) AND status = 'queued' AND dispatched_at IS NOT NULL
          AND dispatched_at < coalesce((SELECT dispatched_at FROM mine), 'infinity')
)
SELECT CASE WHEN dispatched_at IS NULL
            THEN (SELECT jobs FROM own) + (SELECT jobs FROM others) ELSE 0 END
       + (SELECT jobs FROM released) AS ahead
FROM mine
"""


def jobs_ahead(tx: Connection, job_id: UUID, *, most: int = 10_000) -> int | None:
    """Give how many queued jobs are likely to start before a queued one; None when it is not queued.

    Relay hands out jobs account by account: so before a job go those of its account that are due before it,
    about as many of each other account, and those released already. Own jobs are counted up to `most`.
    """
    row = tx.exec_driver_sql(_AHEAD, {"job_id": job_id, "most": most}).first()
    return None if row is None else int(row.ahead)


def attempt_won(tx: Connection, job_id: UUID, *, attempt: int) -> bool:
    """Whether this attempt completed the job: asked when the answer to the settle got lost."""
    row = tx.exec_driver_sql(
        "SELECT 1 FROM jobs WHERE id = %(job_id)s AND status = 'completed' AND attempt = %(attempt)s",
        {"job_id": job_id, "attempt": attempt},
    ).first()
    return row is not None
