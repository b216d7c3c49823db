"""Statements about upstream providers: their state, and the calls to them.

Only the database's clock is used.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from sqlalchemy.engine import Connection, Row
from uuid_utils.compat import uuid7

from app.db.jobs import to_json
from app.domain.breaker import BURST, FIRST_OPENING, LONGEST_OPENING, OPENS_AFTER, BreakerState, Condition
from app.domain.calls import CHARGED, FROM, CallState, Spent
from app.domain.job import Status

_STATE: Final = """
SELECT name, opened_until, reason, failures,
       greatest(0, extract(epoch FROM greatest(opened_until, paused_until) - now()))::float AS closed_for,
       opened_until > now() AS open,
       extract(epoch FROM now() - coalesce(next_call_at, now() - interval '1 day'))::float AS rested
FROM provider_state
"""


def ensure(tx: Connection, name: str) -> None:
    """Make the row of an upstream, if it has none."""
    tx.exec_driver_sql(
        "INSERT INTO provider_state (name) VALUES (%(name)s) ON CONFLICT DO NOTHING", {"name": name}
    )


def locked(tx: Connection, name: str, *, calls_per_minute: int | None) -> Condition:
    """Give how an upstream is doing, and keep its row until the transaction ends."""
    statement = f"{_STATE} WHERE name = %(name)s FOR UPDATE"
    row = tx.exec_driver_sql(statement, {"name": name}).first()
    if row is None:
        ensure(tx, name)
        row = tx.exec_driver_sql(statement, {"name": name}).one()
    return _condition(row, calls_per_minute)


def conditions(tx: Connection, rates: Mapping[str, int | None]) -> dict[str, Condition]:
    """Give how upstreams are doing; one that was never called is well.

    Args:
        rates: each one's name with its calls per minute.
    """
    rows = tx.exec_driver_sql(f"{_STATE} WHERE name = ANY (%(names)s)", {"names": list(rates)})
    found = {row.name: _condition(row, rates[row.name]) for row in rows}
    well = Condition(breaker=BreakerState.CLOSED, closed_for=0.0)
    return {name: found.get(name, well) for name in rates}


def _condition(row: Row[Any], calls_per_minute: int | None) -> Condition:
    state = BreakerState.CLOSED
    if row.opened_until is not None:
        state = BreakerState.OPEN if row.open else BreakerState.HALF_OPEN
    left = None
    if calls_per_minute is not None:
        interval = 60 / calls_per_minute
        left = max(0, int((row.rested + _burst(calls_per_minute)) / interval))
        left = min(left, max(1, int(_burst(calls_per_minute) / interval)))
    closed = state is not BreakerState.CLOSED or row.closed_for > 0
    return Condition(
        breaker=state,
        closed_for=row.closed_for,
        calls_left=left,
        reason=row.reason if closed else None,
    )


def _burst(calls_per_minute: int) -> float:
    """Seconds by which calls may run ahead of an even pace."""
    return max(BURST.total_seconds(), 60 / calls_per_minute)


# The time of the next call is a theoretical arrival time (generic cell rate algorithm, ITU-T I.371): each
# call moves it on by its share of a minute, and a call may go while it is not further ahead than the burst.
_ADMIT: Final = """
UPDATE provider_state SET next_call_at = greatest(coalesce(next_call_at, now()), now()) + %(share)s
WHERE name = %(name)s AND coalesce(greatest(paused_until, opened_until), now()) <= now()
      AND coalesce(next_call_at, now()) + %(share)s <= now() + %(burst)s
RETURNING name
"""
_NOT_BEFORE: Final = """
SELECT greatest(paused_until, opened_until, next_call_at + %(share)s - %(burst)s, now()) - now() AS wait
FROM provider_state WHERE name = %(name)s
"""


def admit(tx: Connection, name: str, *, calls_per_minute: int | None) -> timedelta | None:
    """Count a paid call about to be made; None: make it now, else how long to wait and then ask again.

    Raises nothing of its own; the row must be there (`ensure`).
    """
    per_minute = calls_per_minute or 60_000_000  # no limit: a microsecond each
    parameters = {
        "name": name,
        "share": timedelta(minutes=1) / per_minute,
        "burst": timedelta(seconds=_burst(per_minute)),
    }
    if tx.exec_driver_sql(_ADMIT, parameters).first() is not None:
        return None
    wait: timedelta = tx.exec_driver_sql(_NOT_BEFORE, parameters).scalar_one()
    return max(wait, timedelta(milliseconds=10))


_FAILED: Final = f"""
UPDATE provider_state SET
    failures = failures + 1, reason = %(reason)s, failed_at = now(),
    openings = openings + (opens)::int,
    opened_until = CASE WHEN opens
        THEN now() + least(%(first)s * power(2, least(openings, 20)), %(longest)s) ELSE opened_until END,
    paused_until = greatest(paused_until, now() + %(pause)s)
FROM (SELECT name AS failed,
             (failures + 1 >= {OPENS_AFTER} OR opened_until IS NOT NULL OR %(at_once)s)
             AND coalesce(opened_until, now()) <= now() AS opens
      FROM provider_state WHERE name = %(name)s FOR UPDATE) AS before
WHERE name = before.failed
RETURNING opens, openings, opened_until IS NOT NULL AS unwell
"""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """What a failed call did to its upstream."""

    opened: bool
    """Whether it opened the breaker."""
    unwell: bool
    """Whether the breaker is not closed: then the failure is the provider's, not the job's."""


def failed(
    tx: Connection, name: str, *, reason: str, pause: timedelta | None = None, at_once: bool = False
) -> Failed:
    """Count a failed call; opens the breaker when there were enough in a row, or when it was the probe.

    Args:
        reason: what an operator should read.
        pause: how long the provider asked not to be called.
        at_once: open the breaker whatever the count, as the next call would fail too.
    """
    row = tx.exec_driver_sql(
        _FAILED,
        {
            "name": name,
            "reason": reason[:500],
            "pause": pause,
            "at_once": at_once,
            "first": FIRST_OPENING,
            "longest": LONGEST_OPENING,
        },
    ).one()
    return Failed(opened=row.opens, unwell=row.unwell)


def succeeded(tx: Connection, name: str) -> None:
    """Count a successful call: the breaker closes. What the provider asked to wait for stays."""
    tx.exec_driver_sql(
        "UPDATE provider_state SET failures = 0, openings = 0, opened_until = NULL, succeeded_at = now() "
        "WHERE name = %(name)s AND (failures > 0 OR opened_until IS NOT NULL OR succeeded_at IS NULL "
        "OR succeeded_at < now() - interval '10 seconds')",
        {"name": name},
    )


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call as the table has it; `age` in seconds since right before it was sent."""

    id: UUID
    attempt: int
    first_index: int
    images: int
    reference: str
    state: CallState
    upstream_id: str | None
    detail: dict[str, Any]
    age: float


# One that the provider took goes before a newer one: its answer may have come after it was given up.
_NEWEST: Final = f"""
SELECT DISTINCT ON (first_index) id, attempt, first_index, images, reference, state, upstream_id,
       coalesce(detail, '{{}}') AS detail, extract(epoch FROM now() - created_at)::float AS age
FROM upstream_calls WHERE job_id = %(job_id)s AND provider = %(provider)s
ORDER BY first_index, state = '{CallState.ACCEPTED}' DESC, created_at DESC, id DESC
"""


def newest_calls(tx: Connection, job_id: UUID, *, provider: str) -> dict[int, Call]:
    """Give the call of a job to this provider to go on with, for each position by its first image's index.

    It is the newest one that the provider took and has not ended, else the newest one.
    """
    rows = tx.exec_driver_sql(_NEWEST, {"job_id": job_id, "provider": provider})
    return {row.first_index: Call(**{**row._mapping, "state": CallState(row.state)}) for row in rows}


_SPENT: Final = """
SELECT count(DISTINCT CASE WHEN %(idempotent)s THEN reference ELSE id::text END)
           FILTER (WHERE state = ANY (%(charged)s) AND NOT same) AS purchases,
       coalesce(bool_or(same AND cost IS NOT NULL), false) AS is_counted,
       coalesce((SELECT max_attempts FROM jobs WHERE id = %(job_id)s), 1) AS max_attempts
FROM upstream_calls
     CROSS JOIN LATERAL (SELECT %(idempotent)s AND reference = %(reference)s AS same) AS sameness
WHERE job_id = %(job_id)s AND provider = %(provider)s AND first_index = %(first_index)s
"""


def spent(
    tx: Connection, job_id: UUID, *, provider: str, first_index: int, reference: str, idempotent: bool
) -> Spent:
    """Give what was bought of a provider for these images of a job before.

    Args:
        reference: of the call that is to be made.
        idempotent: whether the provider takes calls of one reference for one.
    """
    row = tx.exec_driver_sql(
        _SPENT,
        {
            "job_id": job_id,
            "provider": provider,
            "first_index": first_index,
            "reference": reference,
            "idempotent": idempotent,
            "charged": [state.value for state in CHARGED],
        },
    ).one()
    return Spent(**row._mapping)


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What came of writing down a call that is about to be made.

    Attributes:
        id: the call's; None: it must not be made, as the job is not this attempt's any more.
        is_cancelled: whether that is because somebody asked to cancel the job.
        left: seconds that the attempt may still run.
    """

    id: UUID | None
    is_cancelled: bool = False
    left: float = 0.0


# The fence: a worker that was paused, and whose job another attempt has by now, buys nothing for it.
_BEGIN: Final = f"""
WITH job AS (
    SELECT cancel_requested_at IS NOT NULL AS cancelled,
           extract(epoch FROM deadline_at - now())::float AS "left"
    FROM jobs
    WHERE id = %(job_id)s AND attempt = %(attempt)s AND status = '{Status.PROCESSING}'
), call AS (
    INSERT INTO upstream_calls (id, job_id, attempt, provider, first_index, images, reference, state)
    SELECT %(id)s, %(job_id)s, %(attempt)s, %(provider)s, %(first_index)s, %(images)s, %(reference)s,
           '{CallState.SENDING}'
    FROM job WHERE NOT cancelled
)
SELECT cancelled, "left" FROM job
"""


def begin_call(
    tx: Connection,
    job_id: UUID,
    *,
    attempt: int,
    provider: str,
    first_index: int,
    images: int,
    reference: str,
) -> Begun:
    """Write down a call that is about to be made, if its job is still this attempt's and wanted."""
    call_id = uuid7()
    row = tx.exec_driver_sql(
        _BEGIN,
        {
            "id": call_id,
            "job_id": job_id,
            "attempt": attempt,
            "provider": provider,
            "first_index": first_index,
            "images": images,
            "reference": reference,
        },
    ).first()
    if row is None or row.cancelled:
        return Begun(id=None, is_cancelled=row is not None)
    return Begun(id=call_id, left=row.left)


# The cost goes to the job in the statement that learns of it, once: however the attempt ends, it was spent.
_CHARGE: Final = """
WITH call AS (
    UPDATE upstream_calls SET {changes}, cost = coalesce(cost, %(cost)s)
    WHERE id = %(id)s AND state = ANY (%(from)s)
    RETURNING job_id, CASE WHEN %(fresh)s THEN cost END AS spent
), charged AS (
    UPDATE jobs SET cost = coalesce(jobs.cost, 0) + call.spent FROM call
    WHERE jobs.id = call.job_id AND call.spent IS NOT NULL
)
SELECT 1 FROM call
"""


def accept_call(
    tx: Connection,
    call_id: UUID,
    *,
    upstream_id: str,
    detail: Mapping[str, object] | None = None,
    cost: Decimal | None = None,
) -> None:
    """Save the provider's own id for a call, before its images are waited for; and what it costs."""
    statement = _CHARGE.format(
        changes="state = 'accepted', upstream_id = %(upstream_id)s, detail = %(detail)s::jsonb, "
        "accepted_at = now(), ended_at = NULL"
    )
    tx.exec_driver_sql(
        statement,
        {
            "id": call_id,
            "from": [state.value for state in FROM[CallState.ACCEPTED]],
            "upstream_id": upstream_id,
            "detail": to_json(dict(detail)) if detail else None,
            "cost": cost,
            "fresh": cost is not None,
        },
    )


def end_call(
    tx: Connection,
    call_id: UUID,
    state: CallState,
    *,
    error: str | None = None,
    cost: Decimal | None = None,
) -> bool:
    """End a call: its images are there, or why they are not. False: it stood so that it cannot end like this.

    Args:
        cost: what it costs, where that was not said when it was accepted.
    """
    statement = _CHARGE.format(changes="state = %(state)s, error = %(error)s, ended_at = now()")
    row = tx.exec_driver_sql(
        statement,
        {
            "id": call_id,
            "from": [source.value for source in FROM[state]],
            "state": state.value,
            "error": None if error is None else error[:500],
            "cost": cost,
            "fresh": cost is not None,
        },
    ).first()
    return row is not None
