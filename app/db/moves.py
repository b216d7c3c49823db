"""Statements that take queued jobs from one target to another, or give them up when nobody can draw them.

Nothing of a job's spec is touched. A read proposes, a guarded statement writes: a job that a relay, a worker
or its owner moved on meanwhile is left alone, so that several relays at once move each job once.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy.engine import Connection

from app.db.jobs import Place, to_json
from app.db.queues import ALIVE_WITHIN, DUE, accounts_with
from app.domain.job import Reason

WINDOW: Final = 200
"""Jobs looked at, and moved, in one statement."""
STRIDE: Final = 1000
"""Jobs passed in one statement on a walk through a queue."""
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


_LEFT: Final = f"""
SELECT e.detail->>'from_queue' AS queue FROM job_events e
WHERE e.job_id = {{job_id}} AND e.reason = '{Reason.REROUTED}' AND e.at > now() - %(rest)s
      AND e.detail ? 'from_queue'
"""
_LOOK: Final = f"""
SELECT id, queue, model, provider, target_model, spec, tried,
       extract(epoch FROM now() - created_at)::float AS age,
       attempt > 0 AND EXISTS (
           SELECT 1 FROM upstream_calls c WHERE c.job_id = jobs.id AND c.provider = jobs.provider
           AND c.state IN ('sending', 'accepted', 'completed')) AS bought,
       ARRAY({_LEFT.format(job_id="jobs.id")}) AS left_queues
FROM jobs
"""
# Fair order as in `queues.release`: each account's jobs get numbers by priority and age, the lowest go first.
# The two nested index scans keep the cost independent of the backlog's depth; the LIMITs stand in the text,
# so that the planner sees them.
_WAITING: Final = f"""
WITH RECURSIVE {accounts_with(DUE)}, numbered AS (
    SELECT due.id, due.run_at, row_number() OVER (
        PARTITION BY waiting.account_id ORDER BY due.priority DESC, due.run_at, due.id) AS turn
    FROM waiting CROSS JOIN LATERAL (
        SELECT id, priority, run_at FROM jobs
        WHERE {DUE} AND account_id = waiting.account_id AND run_at <= now()
        ORDER BY priority DESC, run_at, id LIMIT {{most}}
    ) AS due
), window_ AS (
    SELECT id, turn, run_at FROM numbered ORDER BY turn, run_at, id OFFSET {{skip}} LIMIT {WINDOW}
)
{_LOOK} WHERE id = ANY (ARRAY(SELECT id FROM window_))
ORDER BY array_position(ARRAY(SELECT id FROM window_ ORDER BY turn, run_at, id), id)
"""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A job that waits, not yet released to a worker.

    Attributes:
        position: its place among the waiting jobs of its queue, from 1; 0 where that was not asked.
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


def waiting(tx: Connection, queue: str, *, skip: int = 0) -> list[Waiting]:
    """Give jobs of a queue that are due, in the order in which they would be released; at most 200.

    Args:
        skip: how many to leave out at the beginning. They are read all the same.
    """
    statement = _WAITING.format(most=skip + WINDOW, skip=skip)
    rows = tx.exec_driver_sql(statement, {"queue": queue, "rest": REST})
    return [Waiting(**{**row._mapping, "position": skip + nth}) for nth, row in enumerate(rows, 1)]


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """How far a walk through a queue has come: the last job that it passed."""

    account_id: UUID
    priority: int
    run_at: datetime
    id: UUID


START: Final = Cursor(
    account_id=UUID(int=0), priority=0, run_at=datetime.min.replace(tzinfo=UTC), id=UUID(int=0)
)
"""Before all jobs: no account has this id."""
_IN_INDEX_ORDER: Final = f"ORDER BY account_id, priority DESC, run_at, id LIMIT {STRIDE}"
_PASSED: Final = f"SELECT id, account_id, priority, run_at, model, created_at FROM jobs WHERE {DUE}"
# What comes after a row in the index is three ranges of it, as its columns do not all go in one direction.
_WALK: Final = f"""
SELECT id, account_id, priority, run_at, run_at <= now() AND (
       %(models)s::text[] IS NULL OR model = ANY (%(models)s::text[])
       OR coalesce(created_at < now() - %(older_than)s::interval, false)) AS wanted
FROM (
    ({_PASSED} AND account_id = %(account_id)s AND priority = %(priority)s
     AND (run_at, id) > (%(run_at)s, %(id)s) {_IN_INDEX_ORDER})
    UNION ALL ({_PASSED} AND account_id = %(account_id)s AND priority < %(priority)s {_IN_INDEX_ORDER})
    UNION ALL ({_PASSED} AND account_id > %(account_id)s {_IN_INDEX_ORDER})
) AS ranges {_IN_INDEX_ORDER}
"""
_THESE: Final = f"{_LOOK} WHERE id = ANY (%(ids)s::uuid[]) ORDER BY array_position(%(ids)s::uuid[], id)"


def walk(
    tx: Connection,
    queue: str,
    *,
    after: Cursor,
    models: Sequence[str] | None = None,
    older_than: timedelta | None = None,
) -> tuple[list[Waiting], Cursor | None]:
    """Go on with a walk through a queue, account by account, which reads no job twice.

    At most 1,000 jobs are passed, however few of them are wanted, so the cost does not grow with the queue.

    Args:
        models: only jobs of these; None: all.
        older_than: beside them, those that were submitted so long ago.

    Returns:
        At most 200 jobs that are due, and where to go on; None: the queue is at its end.
    """
    wanted = {"models": None if models is None else list(models), "older_than": older_than}
    passed = tx.exec_driver_sql(_WALK, {"queue": queue, **asdict(after), **wanted}).all()
    chosen = [nth for nth, row in enumerate(passed) if row.wanted][:WINDOW]
    last = chosen[-1] if len(chosen) == WINDOW else len(passed) - 1
    rows = tx.exec_driver_sql(_THESE, {"ids": [passed[nth].id for nth in chosen], "rest": REST})
    jobs = [Waiting(**row._mapping, position=0) for row in rows]
    if last == len(passed) - 1 and len(passed) < STRIDE:
        return jobs, None
    return jobs, Cursor(**{name: getattr(passed[last], name) for name in Cursor.__dataclass_fields__})


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


def left_queues(tx: Connection, job_id: UUID) -> frozenset[str]:
    """Give the queues that a job was moved away from within the last minute."""
    rows = tx.exec_driver_sql(_LEFT.format(job_id="%(job_id)s"), {"job_id": job_id, "rest": REST})
    return frozenset(row.queue for row in rows)


_CALLED_OFF: Final = """
WITH orphaned AS (
    SELECT c.id FROM upstream_calls c JOIN jobs ON jobs.id = c.job_id
    WHERE c.state IN ('sending', 'accepted') AND jobs.finished_at < now() - %(after)s
    ORDER BY c.id LIMIT 200 FOR UPDATE OF c SKIP LOCKED
)
UPDATE upstream_calls SET state = CASE state WHEN 'accepted' THEN 'failed' ELSE 'unknown' END,
       ended_at = now(), error = coalesce(error, 'The job ended before it was asked what came of this call.')
WHERE id = ANY (ARRAY(SELECT id FROM orphaned))
"""


def end_orphaned_calls(tx: Connection, *, after: timedelta) -> int:
    """End the paid calls of jobs that ended so long ago, as nobody asks for them any more; gives how many.

    A job may end between two attempts, where it is cancelled or given up. What its calls cost stays.
    """
    return tx.exec_driver_sql(_CALLED_OFF, {"after": after}).rowcount
