"""Statements about outputs and inputs: find, persist, and the two phases of the purge."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.engine import Connection

from app.db.jobs import OutputRow

_COLUMNS: Final = (
    "o.id, o.job_id, o.index, o.key, o.sha256, o.size, o.width, o.height, o.format, o.seed, o.state, "
    "o.expires_at, o.persisted_at, o.purged_at, "
    "o.state <> 'live' OR (o.persisted_at IS NULL AND o.expires_at <= now()) AS expired"
)


def of_job(tx: Connection, job_id: UUID) -> list[OutputRow]:
    """Give the outputs of a job in order."""
    rows = tx.exec_driver_sql(
        f"SELECT {_COLUMNS} FROM outputs o WHERE o.job_id = %(job_id)s ORDER BY o.index",
        {"job_id": job_id},
    )
    return [OutputRow(**row._mapping) for row in rows]


def by_name(tx: Connection, *, prefix: UUID, index: int) -> OutputRow | None:
    """Give the output behind a public URL, expired or not; None before it exists."""
    row = tx.exec_driver_sql(
        f"SELECT {_COLUMNS} FROM jobs j JOIN outputs o ON o.job_id = j.id "
        "WHERE j.output_prefix = %(prefix)s AND o.index = %(index)s",
        {"prefix": prefix, "index": index},
    ).first()
    return None if row is None else OutputRow(**row._mapping)


def by_id(tx: Connection, output_id: UUID, *, account_id: UUID) -> OutputRow | None:
    """Give an account's output; None when there is no such output or it is somebody else's."""
    row = tx.exec_driver_sql(
        f"SELECT {_COLUMNS} FROM outputs o WHERE o.id = %(id)s AND o.account_id = %(account_id)s",
        {"id": output_id, "account_id": account_id},
    ).first()
    return None if row is None else OutputRow(**row._mapping)


def persist(tx: Connection, output_id: UUID, *, account_id: UUID) -> bool:
    """Keep an output for ever; False when it is not live any more or never was this account's.

    The condition repeats what `mark_expired` looks at, so of a persist and a purge that meet exactly one
    wins. An output past its expiry is not served any more, and so cannot be kept either.
    """
    row = tx.exec_driver_sql(
        "UPDATE outputs SET persisted_at = coalesce(persisted_at, now()) "
        "WHERE id = %(id)s AND account_id = %(account_id)s AND state = 'live' "
        "AND (persisted_at IS NOT NULL OR expires_at > now()) RETURNING id",
        {"id": output_id, "account_id": account_id},
    ).first()
    return row is not None


def unpersist(tx: Connection, output_id: UUID, *, account_id: UUID, retention: timedelta) -> bool:
    """Let an output expire again: at its old time, or `retention` from now when that has passed."""
    row = tx.exec_driver_sql(
        "UPDATE outputs SET persisted_at = NULL, "
        "expires_at = CASE WHEN persisted_at IS NOT NULL AND expires_at <= now() "
        "THEN now() + %(retention)s ELSE expires_at END "
        "WHERE id = %(id)s AND account_id = %(account_id)s AND state = 'live' "
        "AND (persisted_at IS NOT NULL OR expires_at > now()) RETURNING id",
        {"id": output_id, "account_id": account_id, "retention": retention},
    ).first()
    return row is not None


_EXPIRED_OUTPUTS: Final = "state = 'live' AND persisted_at IS NULL AND expires_at < now() - %(grace)s"

_MARK_OUTPUTS: Final = f"""
UPDATE outputs SET state = 'purging' WHERE id IN (
    SELECT id FROM outputs WHERE {_EXPIRED_OUTPUTS}
    ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
) AND {_EXPIRED_OUTPUTS}
"""

_EXPIRED_INPUTS: Final = """
SELECT i.key FROM inputs i JOIN jobs j ON j.id = i.job_id
WHERE i.state = 'live' AND j.finished_at < now() - %(retention)s - %(grace)s
"""

_MARK_INPUTS: Final = f"""
UPDATE inputs SET state = 'purging'
WHERE key IN ({_EXPIRED_INPUTS} LIMIT %(limit)s FOR UPDATE OF i SKIP LOCKED) AND state = 'live'
"""


def mark_expired(tx: Connection, *, retention: timedelta, grace: timedelta, limit: int) -> int:
    """Purge, phase one: mark what expired longer than `grace` ago as `purging`; gives how many.

    There is no way back from `purging`, and persist refuses it: from here on the object may be gone.
    """
    parameters = {"retention": retention, "grace": grace, "limit": limit}
    marked = tx.exec_driver_sql(_MARK_OUTPUTS, parameters).rowcount
    return marked + tx.exec_driver_sql(_MARK_INPUTS, parameters).rowcount


@dataclass(frozen=True, kw_only=True)
class Expired:
    """What a purge would take now."""

    outputs: int
    bytes: int
    inputs: int
    oldest: datetime | None


def count_expired(tx: Connection, *, retention: timedelta, grace: timedelta) -> Expired:
    """Count what `mark_expired` would mark, and what is already marked; changes nothing."""
    row = tx.exec_driver_sql(
        f"""SELECT count(*) AS outputs, coalesce(sum(size), 0)::bigint AS bytes, min(expires_at) AS oldest,
        (SELECT count(*) FROM ({_EXPIRED_INPUTS}) AS i)
            + (SELECT count(*) FROM inputs WHERE state = 'purging') AS inputs
        FROM outputs WHERE state = 'purging' OR ({_EXPIRED_OUTPUTS})""",
        {"retention": retention, "grace": grace},
    ).one()
    return Expired(outputs=row.outputs, bytes=row.bytes, inputs=row.inputs, oldest=row.oldest)


def purging_keys(tx: Connection, *, limit: int) -> list[str]:
    """Give keys of objects to delete; two purges may get the same ones, which is harmless."""
    rows = tx.exec_driver_sql(
        "(SELECT key FROM outputs WHERE state = 'purging' LIMIT %(limit)s) UNION ALL "
        "(SELECT key FROM inputs WHERE state = 'purging' LIMIT %(limit)s)",
        {"limit": limit},
    )
    return [row.key for row in rows]


def tombstone(tx: Connection, keys: Sequence[str]) -> None:
    """Purge, phase two: note that these objects are gone; the rows stay for the history."""
    for table in ("outputs", "inputs"):
        tx.exec_driver_sql(
            f"UPDATE {table} SET state = 'purged', purged_at = now() "
            "WHERE key = ANY(%(keys)s) AND state = 'purging'",
            {"keys": list(keys)},
        )
