"""Statements of the relay: which jobs are due, in fair order, and what lies with the broker."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.engine import Connection

ALIVE_WITHIN: Final = timedelta(seconds=30)
"""A worker whose last heartbeat is older than this has no slots any more."""
COLD_FOR: Final = timedelta(seconds=10)
"""How long jobs whose model some worker has in memory may go before one whose model nobody has, between
accounts whose turn it is alike. A model is brought into memory in 1 to 50 s."""
DEPTH_PER_SLOT: Final = 2
"""Wake-ups kept with the broker per live slot, beside the job that runs in it."""

DUE: Final = "queue = %(queue)s AND status = 'queued' AND dispatched_at IS NULL"


def accounts_with(jobs: str) -> str:
    """Give a recursive `waiting (account_id)`: each account that has such jobs, by one index look-up each.

    Args:
        jobs: a condition on table jobs that an index beginning with its columns and `account_id` serves.
    """
    return f"""waiting AS (
    (SELECT account_id FROM jobs WHERE {jobs} ORDER BY account_id LIMIT 1)
    UNION ALL
    SELECT (SELECT account_id FROM jobs WHERE {jobs} AND account_id > waiting.account_id
            ORDER BY account_id LIMIT 1)
    FROM waiting WHERE waiting.account_id IS NOT NULL
)"""


# Fair order: every account's jobs get numbers 1, 2, 3 … by priority and age, counted on from what the
# account already has running or released; the lowest numbers go first, whatever priority others gave theirs.
# So an account with five jobs waits for about five of another's, not for its ten thousand. The two nested
# index scans (accounts one by one, then the first few jobs of each) keep the cost independent of the depth of
# the backlog. Arrays instead of joins, because the planner takes a LIMIT it cannot see for a tenth of the
# table and then reads all of it.
_RELEASE: Final = f"""
WITH RECURSIVE {accounts_with(DUE)}, slots AS (
    SELECT coalesce(sum(slots), 0) AS live FROM workers
    WHERE %(queue)s = ANY (queues) AND draining_since IS NULL AND seen_at > now() - %(alive_within)s
), occupied AS (
    SELECT account_id, count(*) AS jobs FROM (
        SELECT account_id FROM jobs WHERE queue = %(queue)s AND status = 'processing'
        UNION ALL
        SELECT account_id FROM jobs
        WHERE queue = %(queue)s AND status = 'queued' AND dispatched_at IS NOT NULL
    ) AS taken GROUP BY account_id
), room AS (
    SELECT least(%(batch)s, greatest(0,
        {DEPTH_PER_SLOT} * (SELECT live FROM slots) - (
            SELECT count(*) FROM jobs
            WHERE queue = %(queue)s AND status = 'queued' AND dispatched_at IS NOT NULL
        ))) AS free
), warm AS (
    SELECT coalesce(array_agg(DISTINCT model), '{{}}') AS models FROM workers, unnest(warm_models) AS model
    WHERE %(queue)s = ANY (queues) AND draining_since IS NULL AND seen_at > now() - %(alive_within)s
), numbered AS (
    SELECT due.id, due.priority, due.run_at,
           due.target_model = ANY ((SELECT models FROM warm)::text[])
               OR due.run_at < now() - %(cold_for)s AS ready,
           coalesce(occupied.jobs, 0) + row_number() OVER (
               PARTITION BY waiting.account_id ORDER BY due.priority DESC, due.run_at, due.id
           ) AS turn
    FROM waiting
    LEFT JOIN occupied USING (account_id)
    CROSS JOIN LATERAL (
        SELECT id, priority, run_at, target_model FROM jobs
        WHERE {DUE} AND account_id = waiting.account_id AND run_at <= now()
        ORDER BY priority DESC, run_at, id LIMIT (SELECT free FROM room)
    ) AS due
), chosen AS (
    SELECT id FROM jobs
    WHERE id = ANY (ARRAY(SELECT id FROM numbered ORDER BY turn, ready DESC NULLS LAST, run_at, id
                          LIMIT (SELECT free FROM room)))
          AND status = 'queued' AND dispatched_at IS NULL
    FOR UPDATE SKIP LOCKED
)
UPDATE jobs SET dispatched_at = now() WHERE id = ANY (ARRAY(SELECT id FROM chosen))
RETURNING id
"""


def release(tx: Connection, queue: str, *, batch: int) -> list[UUID]:
    """Mark due jobs of a queue as dispatched, in fair order, as many as its live slots have room for.

    Safe to run in several relays at once: each job goes to one of them. Without a live worker there is no
    room, and the backlog stays in SQL.
    """
    rows = tx.exec_driver_sql(
        _RELEASE, {"queue": queue, "batch": batch, "alive_within": ALIVE_WITHIN, "cold_for": COLD_FOR}
    )
    return [row.id for row in rows]


def any_due(tx: Connection, queue: str) -> bool:
    """Whether a queue has jobs that are not released; one index look-up."""
    statement = f"SELECT EXISTS (SELECT 1 FROM jobs WHERE {DUE} AND run_at <= now())"
    return bool(tx.exec_driver_sql(statement, {"queue": queue}).scalar_one())


def occupied(tx: Connection, queue: str) -> int:
    """Count the jobs of a queue that run, or were released to a worker."""
    count = tx.exec_driver_sql(
        "SELECT (SELECT count(*) FROM jobs WHERE queue = %(queue)s AND status = 'processing') + "
        "(SELECT count(*) FROM jobs WHERE queue = %(queue)s AND status = 'queued' "
        "AND dispatched_at IS NOT NULL)",
        {"queue": queue},
    ).scalar_one()
    return int(count)


def take_back(tx: Connection, job_ids: Sequence[UUID]) -> None:
    """Mark jobs as not dispatched, those that a worker has not claimed meanwhile."""
    tx.exec_driver_sql(
        "UPDATE jobs SET dispatched_at = NULL WHERE id = ANY(%(ids)s) AND status = 'queued'",
        {"ids": list(job_ids)},
    )


@dataclass(frozen=True, kw_only=True)
class Outstanding:
    """What the table believes to lie with the broker for one queue."""

    queue: str
    wake_ups: int
    stale: list[UUID]
    """Those older than asked for, oldest first."""


def outstanding(tx: Connection, *, older_than: timedelta) -> list[Outstanding]:
    """Give, for each queue with a stale wake-up, how many are out and which are stale."""
    rows = tx.exec_driver_sql(
        "SELECT queue, count(*) AS wake_ups, "
        "array_agg(id ORDER BY dispatched_at) FILTER (WHERE dispatched_at < now() - %(age)s) AS stale "
        "FROM jobs WHERE status = 'queued' AND dispatched_at IS NOT NULL "
        "GROUP BY queue HAVING min(dispatched_at) < now() - %(age)s",
        {"age": older_than},
    )
    return [Outstanding(queue=row.queue, wake_ups=row.wake_ups, stale=row.stale) for row in rows]


@dataclass(frozen=True, kw_only=True)
class QueueLoad:
    """How busy a queue is now, and how long its recent jobs took to run."""

    queue: str
    queued: int
    processing: int
    slots: int
    oldest_seconds: float


def loads(tx: Connection) -> dict[str, QueueLoad]:
    """Give the load of every queue that has unfinished jobs or live workers. Linear in the backlog."""
    rows = tx.exec_driver_sql(
        """
        SELECT coalesce(j.queue, w.queue) AS queue, coalesce(j.queued, 0) AS queued,
               coalesce(j.processing, 0) AS processing, coalesce(w.slots, 0) AS slots,
               coalesce(j.oldest_seconds, 0)::float AS oldest_seconds
        FROM (SELECT queue, sum(queued)::int AS queued, sum(processing)::int AS processing,
                     greatest(0, extract(epoch FROM now() - min(oldest))) AS oldest_seconds
              FROM (
                  SELECT queue, count(*) AS queued, 0 AS processing, min(run_at) AS oldest FROM jobs
                  WHERE status = 'queued' AND dispatched_at IS NULL GROUP BY queue
                  UNION ALL
                  SELECT queue, count(*), 0, min(dispatched_at) FROM jobs
                  WHERE status = 'queued' AND dispatched_at IS NOT NULL GROUP BY queue
                  UNION ALL
                  SELECT queue, 0, count(*), NULL FROM jobs WHERE status = 'processing' GROUP BY queue
              ) AS parts GROUP BY queue) AS j
        FULL JOIN (SELECT unnest(queues) AS queue, sum(slots)::int AS slots FROM workers
                   WHERE draining_since IS NULL AND seen_at > now() - %(alive_within)s GROUP BY 1) AS w
             ON w.queue = j.queue
        """,
        {"alive_within": ALIVE_WITHIN},
    )
    return {row.queue: QueueLoad(**row._mapping) for row in rows}


def run_seconds(tx: Connection) -> dict[tuple[str, str], float]:
    """Give the mean run time in seconds by model and queue: the last 50 completed jobs of the newest 500."""
    rows = tx.exec_driver_sql(
        """
        SELECT model, queue, avg(seconds)::float AS seconds FROM (
            SELECT model, queue, extract(epoch FROM finished_at - started_at) AS seconds,
                   row_number() OVER (PARTITION BY model, queue ORDER BY id DESC) AS nth
            FROM (SELECT * FROM jobs ORDER BY id DESC LIMIT 500) AS recent
            WHERE status = 'completed' AND started_at IS NOT NULL
        ) AS numbered WHERE nth <= 50 GROUP BY model, queue
        """
    )
    return {(row.model, row.queue): row.seconds for row in rows}
