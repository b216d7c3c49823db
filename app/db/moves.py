"""Statements that take queued jobs from one target to another, or give them up when nobody can draw them.

Nothing of a job's spec is touched. A read proposes, a guarded statement writes: a job that a relay, a worker
or its owner moved on meanwhile is left alone, so that several relays at once move each job once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy.engine import Connection

from app.db.jobs import Place, to_json
from app.db.queues import ALIVE_WITHIN, DUE, accounts_with
from app.domain.job import Reason

WINDOW: Final = 200
"""Jobs looked at, and moved, in one statement."""
REST: Final = timedelta(minutes=1)
"""How long a job does not return to a target that it was moved away from."""
_COUNTED: Final = 10_000
"""Waiting jobs of a queue that are counted at most; more make no difference to where a job goes."""


@dataclass(frozen=True, kw_only=True)
class Crew:
    """Live workers' slots and the models they have in memory, on one queue."""

    slots: int
    warm: frozenset[str]


def crews(tx: Connection) -> dict[str, Crew]:
    """Give who takes jobs from each queue that has a live worker."""
    rows = tx.exec_driver_sql(
        "SELECT queues, slots, warm_models FROM workers "
        "WHERE draining_since IS NULL AND seen_at > now() - %(alive_within)s",
        {"alive_within": ALIVE_WITHIN},
    )
    found: dict[str, Crew] = {}
    for row in rows:
        for queue in row.queues:
            known = found.get(queue, Crew(slots=0, warm=frozenset()))
            found[queue] = Crew(slots=known.slots + row.slots, warm=known.warm.union(row.warm_models))
    return found


def depths(tx: Connection, queues: Sequence[str]) -> dict[str, int]:
    """Give how many jobs each of these queues holds, running ones included; waiting ones up to 10,000."""
    rows = tx.exec_driver_sql(
        f"""
        SELECT queue, (SELECT count(*) FROM jobs j WHERE j.queue = q.queue AND status = 'processing')
             + (SELECT count(*) FROM jobs j
                WHERE j.queue = q.queue AND status = 'queued' AND dispatched_at IS NOT NULL)
             + (SELECT count(*) FROM (
                    SELECT 1 FROM jobs j
                    WHERE j.queue = q.queue AND status = 'queued' AND dispatched_at IS NULL
                    LIMIT {_COUNTED}) AS waiting) AS depth
        FROM unnest(%(queues)s::text[]) AS q (queue)
        """,
        {"queues": list(queues)},
    )
    return {row.queue: row.depth for row in rows}


def _queues_of(alias: str, jobs: str) -> str:
    """Give a recursive table of the queues that have such jobs, by one index look-up each."""
    return f"""{alias} AS (
    (SELECT queue FROM jobs WHERE {jobs} ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT queue FROM jobs WHERE {jobs} AND queue > {alias}.queue ORDER BY queue LIMIT 1)
    FROM {alias} WHERE {alias}.queue IS NOT NULL
)"""


_STRAY: Final = f"""
WITH RECURSIVE {_queues_of("waits", "status = 'queued' AND dispatched_at IS NULL")},
{_queues_of("released", "status = 'queued' AND dispatched_at IS NOT NULL")}
SELECT queue FROM (SELECT queue FROM waits UNION SELECT queue FROM released) AS held
WHERE queue <> ALL (%(known)s::text[]) AND NOT EXISTS (
    SELECT 1 FROM workers WHERE held.queue = ANY (queues) AND seen_at > now() - %(alive_within)s)
ORDER BY queue
"""


def strays(tx: Connection, known: Sequence[str]) -> list[str]:
    """Give the queues that hold jobs, are none of the known ones, and have no worker."""
    rows = tx.exec_driver_sql(_STRAY, {"known": list(known), "alive_within": ALIVE_WITHIN})
    return [row.queue for row in rows]


# Fair order as in `queues.release`: each account's jobs get numbers by priority and age, the lowest go first.
# The two nested index scans keep the cost independent of the backlog's depth; the LIMITs stand in the text,
# so that the planner sees them.
_WAITING: Final = f"""
WITH RECURSIVE {accounts_with(DUE)}, numbered AS (
    SELECT due.id, due.run_at, row_number() OVER (
        PARTITION BY waiting.account_id ORDER BY due.priority DESC, due.run_at, due.id) AS turn
    FROM waiting CROSS JOIN LATERAL (
        SELECT id, priority, run_at FROM jobs
        WHERE {DUE} AND account_id = waiting.account_id AND run_at <= now() {{only}}
        ORDER BY priority DESC, run_at, id LIMIT {{most}}
    ) AS due
), window_ AS (
    SELECT id, turn, run_at FROM numbered ORDER BY turn, run_at, id OFFSET {{skip}} LIMIT {WINDOW}
)
SELECT id, queue, model, provider, target_model, spec, tried,
       extract(epoch FROM now() - created_at)::float AS age,
       attempt > 0 AND EXISTS (
           SELECT 1 FROM upstream_calls c WHERE c.job_id = jobs.id AND c.provider = jobs.provider
           AND c.state IN ('sending', 'accepted', 'completed')) AS bought,
       ARRAY(SELECT e.detail->>'from_queue' FROM job_events e
             WHERE e.job_id = jobs.id AND e.reason = '{Reason.REROUTED}' AND e.at > now() - %(rest)s
             AND e.detail ? 'from_queue') AS left_queues
FROM jobs WHERE id = ANY (ARRAY(SELECT id FROM window_))
ORDER BY array_position(ARRAY(SELECT id FROM window_ ORDER BY turn, run_at, id), id)
"""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A job that waits, not yet released to a worker.

    Attributes:
        position: its place among the waiting jobs of its queue, from 1.
        age: seconds since it was submitted.
        tried: targets that failed it, as provider/model.
        bought: whether a call for it, that cost or may have cost something, is with its present provider:
            there it is resumed, anywhere else it would be bought again.
        left_queues: queues that it was moved away from within the last minute.
    """

    id: UUID
    position: int
    queue: str
    model: str
    provider: str
    target_model: str | None
    spec: dict[str, Any]
    age: float
    tried: list[str]
    bought: bool
    left_queues: list[str]


def waiting(
    tx: Connection, queue: str, *, skip: int = 0, models: Sequence[str] | None = None
) -> list[Waiting]:
    """Give jobs of a queue that are due, in the order in which they would be released; at most 200.

    Args:
        skip: how many to leave out at the beginning.
        models: only jobs of these; None: all.
    """
    statement = _WAITING.format(
        only="" if models is None else "AND model = ANY (%(models)s)", most=skip + WINDOW, skip=skip
    )
    rows = tx.exec_driver_sql(statement, {"queue": queue, "models": models and list(models), "rest": REST})
    return [Waiting(**{**row._mapping, "position": skip + nth}) for nth, row in enumerate(rows, 1)]


_CHOSEN: Final = f"""chosen AS (
    SELECT id FROM jobs WHERE id = ANY (%(id)s::uuid[]) AND {DUE} ORDER BY id FOR UPDATE SKIP LOCKED
)"""
_MOVE: Final = f"""
WITH asked AS (
    SELECT * FROM unnest(%(id)s::uuid[], %(provider)s::text[], %(target_model)s::text[], %(to_queue)s::text[],
                         %(batch_key)s::text[], %(detail)s::text[])
           AS a (id, provider, target_model, to_queue, batch_key, detail)
), {_CHOSEN}, moved AS (
    UPDATE jobs SET provider = asked.provider, target_model = asked.target_model, queue = asked.to_queue,
           batch_key = asked.batch_key
    FROM asked
    WHERE jobs.id = asked.id AND jobs.id = ANY (ARRAY(SELECT id FROM chosen))
          AND jobs.queue = %(queue)s AND jobs.status = 'queued' AND jobs.dispatched_at IS NULL
    RETURNING jobs.id, jobs.attempt, asked.detail
), event AS (
    INSERT INTO job_events (job_id, from_status, to_status, attempt, reason, detail)
    SELECT id, 'queued', 'queued', attempt, '{Reason.REROUTED}', detail::jsonb FROM moved
)
SELECT id FROM moved
"""


@dataclass(frozen=True, kw_only=True)
class Move:
    """Where a job is drawn next, and what its event says of it."""

    place: Place
    detail: dict[str, object]


def move(tx: Connection, queue: str, asked: dict[UUID, Move]) -> list[UUID]:
    """Move jobs that wait on a queue to other targets; gives those that were moved.

    They keep their age and with it their turn.
    """
    places = [one.place for one in asked.values()]
    rows = tx.exec_driver_sql(
        _MOVE,
        {
            "queue": queue,
            "id": list(asked),
            "provider": [place.provider for place in places],
            "target_model": [place.target_model for place in places],
            "to_queue": [place.queue for place in places],
            "batch_key": [place.batch_key for place in places],
            "detail": [to_json(one.detail) for one in asked.values()],
        },
    )
    return [row.id for row in rows]


_GIVE_UP: Final = f"""
WITH asked AS (
    SELECT * FROM unnest(%(id)s::uuid[], %(message)s::text[]) AS a (id, message)
), {_CHOSEN}, failed AS (
    UPDATE jobs SET status = 'failed', finished_at = now(), error_code = %(code)s,
           error_message = asked.message
    FROM asked
    WHERE jobs.id = asked.id AND jobs.id = ANY (ARRAY(SELECT id FROM chosen))
          AND jobs.queue = %(queue)s AND jobs.status = 'queued' AND jobs.dispatched_at IS NULL
    RETURNING jobs.id, jobs.attempt, jobs.error_message
), event AS (
    INSERT INTO job_events (job_id, from_status, to_status, attempt, reason, detail)
    SELECT id, 'queued', 'failed', attempt, '{Reason.FAILED}',
           jsonb_build_object('error_code', %(code)s::text, 'error_message', error_message)
    FROM failed
)
SELECT id FROM failed
"""


def give_up(tx: Connection, queue: str, messages: dict[UUID, str], *, code: str) -> list[UUID]:
    """Fail jobs that wait on a queue, each with its message; gives those that were failed."""
    rows = tx.exec_driver_sql(
        _GIVE_UP, {"queue": queue, "id": list(messages), "message": list(messages.values()), "code": code}
    )
    return [row.id for row in rows]


def take_back_stranded(tx: Connection, queue: str, *, older_than: timedelta) -> int:
    """Mark as not dispatched what was released to workers that are gone; gives how many.

    A wake-up that comes to light later finds the job's row as it is then.
    """
    return tx.exec_driver_sql(
        "UPDATE jobs SET dispatched_at = NULL WHERE queue = %(queue)s AND status = 'queued' "
        "AND dispatched_at < now() - %(age)s",
        {"queue": queue, "age": older_than},
    ).rowcount


def is_bought(tx: Connection, job_id: UUID, *, provider: str) -> bool:
    """Whether a call for a job, that cost or may have cost something, can be resumed at this provider."""
    row = tx.exec_driver_sql(
        "SELECT 1 FROM upstream_calls WHERE job_id = %(job_id)s AND provider = %(provider)s "
        "AND state IN ('sending', 'accepted', 'completed')",
        {"job_id": job_id, "provider": provider},
    ).first()
    return row is not None
