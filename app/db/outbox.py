"""Statements of the relay about deliveries: which are due, what lies with the broker, whose worker died.

A pending delivery is waiting (not dispatched), released (dispatched) or being posted (leased).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.engine import Connection

from app.db.deliveries import DISABLED
from app.db.queues import ALIVE_WITHIN, DEPTH_PER_SLOT, QueueLoad
from app.domain.webhook import GIVEN_UP_UNTRIED, MAX_IN_FLIGHT, SCHEDULE

_WAITS: Final = "status = 'pending' AND dispatched_at IS NULL"
_OUT: Final = "status = 'pending' AND dispatched_at IS NOT NULL"
# The endpoints that something waits for, one index probe each, however much waits for them.
_WAITING: Final = f"""
waiting AS (
    (SELECT endpoint_id FROM deliveries WHERE {_WAITS} ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT endpoint_id FROM deliveries WHERE {_WAITS} AND endpoint_id > waiting.endpoint_id
            ORDER BY endpoint_id LIMIT 1)
    FROM waiting WHERE waiting.endpoint_id IS NOT NULL
)"""
_MAY_BE_SENT_TO: Final = "e.disabled_at IS NULL AND (e.opened_until IS NULL OR e.opened_until <= now())"

_IS_DUE: Final = f"lease_until IS NULL AND run_at <= now() AND {_MAY_BE_SENT_TO}"

_ANY_DUE: Final = f"""
WITH RECURSIVE {_WAITING}
SELECT EXISTS (
    SELECT 1 FROM waiting JOIN webhook_endpoints e ON e.id = waiting.endpoint_id
    WHERE {_MAY_BE_SENT_TO}
          -- Not EXISTS, of which the planner may make a join that reads the whole table.
          AND (SELECT run_at FROM deliveries WHERE {_WAITS} AND endpoint_id = e.id
               ORDER BY run_at LIMIT 1) <= now()
)"""


def any_due(tx: Connection) -> bool:
    """Whether a delivery is due at an endpoint that may be sent to; one index probe when none waits."""
    return bool(tx.exec_driver_sql(_ANY_DUE).scalar_one())


# Who goes first: `nth` counts an endpoint's deliveries from those it has out, so that endpoints take turns.
# Doubtful are endpoints whose last try failed: together they get at most half of the slots, whosever they
# are. Of the rest an account gets at most three quarters, so that no account's hanging receivers, however
# many, hold up another's.
_RELEASE: Final = f"""
WITH RECURSIVE {_WAITING}, slots AS (
    SELECT coalesce(sum(slots), 0)::int AS live FROM workers
    WHERE %(queue)s = ANY (queues) AND draining_since IS NULL AND seen_at > now() - %(alive_within)s
), out AS MATERIALIZED (
    SELECT d.endpoint_id, d.account_id, e.failures > 0 AS doubtful
    FROM deliveries d JOIN webhook_endpoints e ON e.id = d.endpoint_id
    WHERE d.status = 'pending' AND d.dispatched_at IS NOT NULL
), room AS (
    SELECT least(%(batch)s, greatest(0, {DEPTH_PER_SLOT} * live - (SELECT count(*) FROM out))) AS free,
           greatest(1, live / 2) - (SELECT count(*) FROM out WHERE doubtful) AS for_doubtful,
           greatest(1, live * 3 / 4) AS for_account
    FROM slots
), ready AS (
    SELECT e.id, e.account_id, e.failures > 0 AS doubtful, taken.deliveries AS taken,
           CASE WHEN e.failures > 0 THEN 1 ELSE {MAX_IN_FLIGHT} END - taken.deliveries AS free
    FROM waiting JOIN webhook_endpoints e ON e.id = waiting.endpoint_id
         CROSS JOIN LATERAL (SELECT count(*) AS deliveries FROM out WHERE out.endpoint_id = e.id) AS taken
    WHERE {_MAY_BE_SENT_TO}
), due AS (
    SELECT due.id, due.run_at, ready.account_id, ready.doubtful,
           ready.taken + row_number() OVER (PARTITION BY ready.id ORDER BY due.run_at, due.id) AS nth
    FROM ready CROSS JOIN LATERAL (
        SELECT id, run_at FROM deliveries
        WHERE {_WAITS} AND endpoint_id = ready.id AND run_at <= now()
        ORDER BY run_at LIMIT greatest(0, ready.free)
    ) AS due
), by_account AS (
    SELECT due.*, (SELECT count(*) FROM out WHERE out.account_id = due.account_id) AS taken,
           row_number() OVER (PARTITION BY account_id, doubtful ORDER BY nth, run_at, id) AS among_own
    FROM due
), by_kind AS (
    SELECT by_account.*,
           row_number() OVER (PARTITION BY doubtful ORDER BY taken + among_own, run_at, id) AS among_all
    FROM by_account
), numbered AS (
    SELECT id, run_at,
           taken + row_number() OVER (PARTITION BY account_id ORDER BY nth, run_at, id) AS turn
    FROM by_kind WHERE NOT doubtful OR among_all <= (SELECT for_doubtful FROM room)
), chosen AS (
    SELECT id FROM deliveries
    WHERE id = ANY (ARRAY(SELECT id FROM numbered WHERE turn <= (SELECT for_account FROM room)
                          ORDER BY turn, run_at, id LIMIT (SELECT free FROM room)))
          AND {_WAITS}
    FOR UPDATE SKIP LOCKED
)
UPDATE deliveries SET dispatched_at = now() WHERE id = ANY (ARRAY(SELECT id FROM chosen))
RETURNING id
"""
_RELEASING: Final = "SELECT pg_try_advisory_xact_lock(hashtextextended('darkroom releases deliveries', 0))"


def release(tx: Connection, *, queue: str, batch: int) -> list[UUID]:
    """Mark due deliveries as dispatched, as many as endpoints and the live slots of `queue` have room for.

    In a transaction, not in autocommit: one relay at a time counts what each endpoint has out, so that it
    never gets more than its four. Gives nothing while another relay does.
    """
    if not tx.exec_driver_sql(_RELEASING).scalar_one():
        return []
    rows = tx.exec_driver_sql(_RELEASE, {"queue": queue, "batch": batch, "alive_within": ALIVE_WITHIN})
    return [row.id for row in rows]


def load(tx: Connection, *, queue: str) -> QueueLoad:
    """Give how many deliveries are due or being posted on this queue. Linear in those that wait.

    What waits for an endpoint whose breaker is open is not due: nobody should post it now.
    """
    row = tx.exec_driver_sql(
        f"""
        SELECT count(*) FILTER (WHERE {_IS_DUE})::int AS queued,
               count(*) FILTER (WHERE lease_until IS NOT NULL)::int AS processing,
               coalesce(extract(epoch FROM now() - min(run_at) FILTER (WHERE {_IS_DUE})), 0)::float
                   AS oldest_seconds,
               (SELECT coalesce(sum(slots), 0)::int FROM workers
                WHERE %(queue)s = ANY (queues) AND draining_since IS NULL
                      AND seen_at > now() - %(alive_within)s) AS slots
        FROM deliveries d JOIN webhook_endpoints e ON e.id = d.endpoint_id WHERE d.status = 'pending'
        """,
        {"queue": queue, "alive_within": ALIVE_WITHIN},
    ).one()
    return QueueLoad(queue=queue, **row._mapping)


def take_back(tx: Connection, delivery_ids: Sequence[UUID]) -> None:
    """Mark deliveries as not dispatched, those that no worker is posting."""
    tx.exec_driver_sql(
        "UPDATE deliveries SET dispatched_at = NULL "
        "WHERE id = ANY (%(ids)s) AND status = 'pending' AND lease_until IS NULL",
        {"ids": list(delivery_ids)},
    )


@dataclass(frozen=True, kw_only=True)
class Outstanding:
    """How many wake-ups the table believes to lie with the broker, and which are older than asked for."""

    wake_ups: int
    stale: list[UUID]


def outstanding(tx: Connection, *, older_than: timedelta) -> Outstanding | None:
    """Give what is out when some of it is stale, oldest first; None when nothing is."""
    row = tx.exec_driver_sql(
        "SELECT count(*) AS wake_ups, "
        "array_agg(id ORDER BY dispatched_at) FILTER (WHERE dispatched_at < now() - %(age)s) AS stale "
        f"FROM deliveries WHERE {_OUT} AND lease_until IS NULL "
        "HAVING min(dispatched_at) < now() - %(age)s",
        {"age": older_than},
    ).first()
    return None if row is None else Outstanding(wake_ups=row.wake_ups, stale=row.stale)


_RESCUE: Final = f"""
WITH silent AS (
    SELECT id, attempts FROM deliveries WHERE {_OUT} AND lease_until < now()
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), freed AS (
    UPDATE deliveries d SET
        status = CASE WHEN d.attempts - d.attempts_before_replay >= {len(SCHEDULE)} THEN 'failed'
                      ELSE 'pending' END,
        finished_at = CASE WHEN d.attempts - d.attempts_before_replay >= {len(SCHEDULE)} THEN now() END,
        run_at = now(), dispatched_at = NULL, lease_until = NULL, last_status = NULL, last_error = %(error)s
    FROM silent WHERE d.id = silent.id AND d.attempts = silent.attempts AND {_OUT} AND d.lease_until < now()
    RETURNING d.id, d.attempts
), noted AS (
    INSERT INTO delivery_attempts (delivery_id, number, seconds, error)
    SELECT id, attempts, 0, %(error)s FROM freed
)
SELECT count(*) FROM freed
"""
_FELL_SILENT: Final = "Darkroom's worker fell silent; whether the request arrived is not known."


def rescue(tx: Connection, *, limit: int = 500) -> int:
    """Make due again what workers were posting that fell silent; gives how many.

    It may have arrived: then it arrives once more, under the same id.
    """
    return int(tx.exec_driver_sql(_RESCUE, {"limit": limit, "error": _FELL_SILENT}).scalar_one())


_GIVE_UP: Final = f"""
UPDATE deliveries d SET
    status = 'failed', finished_at = now(), dispatched_at = NULL,
    last_error = CASE WHEN hopeless.reason IS NOT NULL THEN '{DISABLED}' || hopeless.reason
                      WHEN d.last_error IS NULL THEN %(untried)s
                      ELSE d.last_error END
FROM (
    SELECT w.id, e.disabled_reason AS reason
    FROM deliveries w JOIN webhook_endpoints e ON e.id = w.endpoint_id
    WHERE w.status = 'pending' AND w.lease_until IS NULL
          AND (e.disabled_at IS NOT NULL
               OR w.dispatched_at IS NULL AND w.run_at < now() - %(untried_for)s)
    FOR UPDATE OF w SKIP LOCKED
) AS hopeless
WHERE d.id = hopeless.id
"""


def give_up_hopeless(tx: Connection) -> int:
    """Fail what waits for disabled endpoints, and what was due for three days without a try; gives how many.

    The first happens when a job ended in the very moment in which the endpoint was disabled.
    """
    parameters = {
        "untried": f"Not tried for {GIVEN_UP_UNTRIED.days} days, as the endpoint took nothing else either.",
        "untried_for": GIVEN_UP_UNTRIED,
    }
    return tx.exec_driver_sql(_GIVE_UP, parameters).rowcount
