"""Statements about deliveries as their owners see them: the log, each try, replays and tests."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.engine import Connection, Row

from app.domain.webhook import DeliveryStatus, Event

_DELIVERY: Final = (
    "id, endpoint_id, job_id, event, status, body, attempts, run_at, created_at, finished_at, last_status, "
    "last_error"
)


@dataclass(frozen=True, kw_only=True)
class DeliveryRow:
    """A delivery as its owner sees it; `body` is None until the first try has made it."""

    id: UUID
    endpoint_id: UUID
    job_id: UUID | None
    event: Event
    status: DeliveryStatus
    body: str | None
    attempts: int
    run_at: datetime
    created_at: datetime
    finished_at: datetime | None
    last_status: int | None
    last_error: str | None


def _delivery(row: Row[Any] | None) -> DeliveryRow | None:
    if row is None:
        return None
    told = {"event": Event(row.event), "status": DeliveryStatus(row.status)}
    return DeliveryRow(**{**row._mapping, **told})


def find(tx: Connection, delivery_id: UUID, *, account_id: UUID) -> DeliveryRow | None:
    """Give an account's delivery; None when there is none, or it is somebody else's."""
    row = tx.exec_driver_sql(
        f"SELECT {_DELIVERY} FROM deliveries WHERE id = %(id)s AND account_id = %(account_id)s",
        {"id": delivery_id, "account_id": account_id},
    ).first()
    return _delivery(row)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where in the log a page ended: the last delivery of it."""

    created_at: datetime
    id: UUID


def of_endpoint(
    tx: Connection, endpoint_id: UUID, *, status: DeliveryStatus | None, after: Place | None, limit: int
) -> list[DeliveryRow]:
    """Give an endpoint's newest deliveries, those older than the place where the page before ended."""
    conditions = ["endpoint_id = %(endpoint_id)s"]
    parameters: dict[str, Any] = {"endpoint_id": endpoint_id, "limit": limit}
    if status is not None:
        conditions.append("status = %(status)s")
        parameters["status"] = status.value
    if after is not None:
        conditions.append("(created_at, id) < (%(created_at)s, %(id)s)")
        parameters |= {"created_at": after.created_at, "id": after.id}
    rows = tx.exec_driver_sql(
        f"SELECT {_DELIVERY} FROM deliveries WHERE {' AND '.join(conditions)} "
        "ORDER BY created_at DESC, id DESC LIMIT %(limit)s",
        parameters,
    )
    return [found for row in rows if (found := _delivery(row)) is not None]


@dataclass(frozen=True, kw_only=True)
class AttemptRow:
    """One try of a delivery; `error` is None when it was delivered."""

    number: int
    at: datetime
    seconds: float
    status_code: int | None
    error: str | None
    response: str | None


def attempts(tx: Connection, delivery_id: UUID) -> list[AttemptRow]:
    """Give the tries of a delivery, oldest first."""
    rows = tx.exec_driver_sql(
        "SELECT number, at, seconds, status_code, error, response FROM delivery_attempts "
        "WHERE delivery_id = %(id)s ORDER BY id",
        {"id": delivery_id},
    )
    return [AttemptRow(**row._mapping) for row in rows]


_AGAIN: Final = (
    "UPDATE deliveries SET status = 'pending', run_at = now(), finished_at = NULL, dispatched_at = NULL, "
    "attempts_before_replay = attempts"
)


def replay(tx: Connection, delivery_id: UUID) -> DeliveryRow | None:
    """Deliver again what was delivered or given up, under the same id; None when it has not ended."""
    row = tx.exec_driver_sql(
        f"{_AGAIN} WHERE id = %(id)s AND status <> 'pending' RETURNING {_DELIVERY}", {"id": delivery_id}
    ).first()
    return _delivery(row)


def replay_between(
    tx: Connection, endpoint_id: UUID, *, since: datetime, until: datetime, status: DeliveryStatus | None
) -> int:
    """Deliver again what ended among the events in [since, until); gives how many.

    Args:
        status: only those that ended like this; None: all that ended.
    """
    wanted = [DeliveryStatus.DELIVERED, DeliveryStatus.FAILED] if status is None else [status]
    return tx.exec_driver_sql(
        f"{_AGAIN} WHERE endpoint_id = %(endpoint_id)s AND created_at >= %(since)s "
        "AND created_at < %(until)s AND status = ANY (%(wanted)s) AND status <> 'pending'",
        {
            "endpoint_id": endpoint_id,
            "since": since,
            "until": until,
            "wanted": [each.value for each in wanted],
        },
    ).rowcount


_TEST: Final = f"""
WITH endpoint AS (
    UPDATE webhook_endpoints SET opened_until = NULL WHERE id = %(endpoint_id)s RETURNING id, account_id
)
INSERT INTO deliveries (account_id, endpoint_id, event)
SELECT account_id, id, '{Event.TEST}' FROM endpoint RETURNING {_DELIVERY}
"""


def insert_test(tx: Connection, endpoint_id: UUID) -> DeliveryRow:
    """Owe an endpoint a test, due at once even if the endpoint was to be left alone for a while."""
    found = _delivery(tx.exec_driver_sql(_TEST, {"endpoint_id": endpoint_id}).one())
    assert found is not None
    return found
