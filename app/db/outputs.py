"""Statements about outputs and inputs: find, persist, and the two phases of the purge."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy.engine import Connection, Row

from app.db.history import OutputRow
from app.domain.job import Access, CopyState

_COLUMNS: Final = (
    "o.id, o.job_id, o.index, o.key, o.sha256, o.size, o.width, o.height, o.format, o.seed, o.state, "
    "o.expires_at, o.persisted_at, o.published_at, o.purged_at, o.name, o.test, o.access, o.flagged, "
    "o.copy_state, o.copy_url, o.created_at, o.account_id, "
    "o.state <> 'live' OR (o.persisted_at IS NULL AND o.expires_at <= now()) AS expired"
)
_IN_LIBRARY: Final = (
    "o.state = 'live' AND o.name IS NOT NULL AND (o.persisted_at IS NOT NULL OR o.expires_at > now())"
)
_KEPT_BY_OWNER: Final = "CASE WHEN copy_state = 'pending' THEN now() ELSE coalesce(persisted_at, now()) END"
"""While a copy is pending we keep an output ourselves, since the moment of `created_at`; see `db.buckets`."""


def _output(row: Row[Any] | None) -> OutputRow | None:
    if row is None:
        return None
    copy_state = None if row.copy_state is None else CopyState(row.copy_state)
    return OutputRow(**{**row._mapping, "access": Access(row.access), "copy_state": copy_state})


def _outputs(rows: Iterable[Row[Any]]) -> list[OutputRow]:
    return [output for row in rows if (output := _output(row)) is not None]


def of_job(tx: Connection, job_id: UUID) -> list[OutputRow]:
    """Give the outputs of a job in order."""
    rows = tx.exec_driver_sql(
        f"SELECT {_COLUMNS} FROM outputs o WHERE o.job_id = %(job_id)s ORDER BY o.index",
        {"job_id": job_id},
    )
    return _outputs(rows)


def of_jobs(tx: Connection, job_ids: Sequence[UUID]) -> dict[UUID, list[OutputRow]]:
    """Give the outputs of several jobs, each job's in order; a job without any has an empty list."""
    rows = tx.exec_driver_sql(
        f"SELECT {_COLUMNS} FROM outputs o WHERE o.job_id = ANY(%(ids)s) ORDER BY o.job_id, o.index",
        {"ids": list(job_ids)},
    )
    found: dict[UUID, list[OutputRow]] = {job_id: [] for job_id in job_ids}
    for output in _outputs(rows):
        found[output.job_id].append(output)
    return found


def by_name(tx: Connection, *, prefix: UUID, index: int) -> OutputRow | None:
    """Give the output behind a URL, expired or not; None before it exists, and while it is private."""
    row = tx.exec_driver_sql(
        f"SELECT {_COLUMNS} FROM jobs j JOIN outputs o ON o.job_id = j.id "
        "WHERE j.output_prefix = %(prefix)s AND o.index = %(index)s AND o.access <> 'private'",
        {"prefix": prefix, "index": index},
    ).first()
    return _output(row)


def by_id(tx: Connection, output_id: UUID, *, account_id: UUID) -> OutputRow | None:
    """Give an account's output; None when there is no such output or it is somebody else's."""
    row = tx.exec_driver_sql(
        f"SELECT {_COLUMNS} FROM outputs o WHERE o.id = %(id)s AND o.account_id = %(account_id)s",
        {"id": output_id, "account_id": account_id},
    ).first()
    return _output(row)


def persist(tx: Connection, output_id: UUID, *, account_id: UUID) -> bool:
    """Keep an output for ever; False when it is not live any more or never was this account's.

    The condition repeats what `mark_expired` looks at, so of a persist and a purge that meet exactly one
    wins. An output past its expiry is not served any more, and so cannot be kept either.
    """
    row = tx.exec_driver_sql(
        f"UPDATE outputs SET persisted_at = {_KEPT_BY_OWNER} "
        "WHERE id = %(id)s AND account_id = %(account_id)s AND state = 'live' "
        "AND (persisted_at IS NOT NULL OR expires_at > now()) RETURNING id",
        {"id": output_id, "account_id": account_id},
    ).first()
    return row is not None


def unpersist(tx: Connection, output_id: UUID, *, account_id: UUID, retention: timedelta) -> bool:
    """Let an output expire again: at its old time, or `retention` from now when that has passed.

    One whose copy into its customer's bucket is pending stays kept by us until it is there.
    """
    row = tx.exec_driver_sql(
        "UPDATE outputs SET persisted_at = CASE WHEN copy_state = 'pending' THEN created_at END, "
        "expires_at = CASE WHEN persisted_at IS NOT NULL AND expires_at <= now() "
        "THEN now() + %(retention)s ELSE expires_at END "
        "WHERE id = %(id)s AND account_id = %(account_id)s AND state = 'live' "
        "AND (persisted_at IS NOT NULL OR expires_at > now()) RETURNING id",
        {"id": output_id, "account_id": account_id, "retention": retention},
    ).first()
    return row is not None


def publish(tx: Connection, output_id: UUID, *, account_id: UUID) -> bool:
    """Let everybody fetch an output, and keep it; False when it is not live or not this account's."""
    row = tx.exec_driver_sql(
        "UPDATE outputs SET access = 'public', published_at = coalesce(published_at, now()), "
        f"persisted_at = {_KEPT_BY_OWNER} "
        "WHERE id = %(id)s AND account_id = %(account_id)s AND state = 'live' "
        "AND (persisted_at IS NOT NULL OR expires_at > now()) RETURNING id",
        {"id": output_id, "account_id": account_id},
    ).first()
    return row is not None


def unpublish(tx: Connection, output_id: UUID, *, account_id: UUID) -> bool:
    """Let only its account fetch an output, which stays kept; False when not live or not this account's."""
    row = tx.exec_driver_sql(
        "UPDATE outputs SET access = 'private', published_at = NULL "
        "WHERE id = %(id)s AND account_id = %(account_id)s AND state = 'live' "
        "AND (persisted_at IS NOT NULL OR expires_at > now()) RETURNING id",
        {"id": output_id, "account_id": account_id},
    ).first()
    return row is not None


def discard(tx: Connection, output_id: UUID, *, account_id: UUID) -> bool:
    """Hand a live output to the purge at its owner's wish, kept or not; False when not live or not his."""
    row = tx.exec_driver_sql(
        "UPDATE outputs SET state = 'purging', deleted_at = now(), persisted_at = NULL, published_at = NULL, "
        "access = 'private' "
        "WHERE id = %(id)s AND account_id = %(account_id)s AND state = 'live' RETURNING id",
        {"id": output_id, "account_id": account_id},
    ).first()
    return row is not None


def in_library(tx: Connection, output_id: UUID, *, account_id: UUID, test: bool) -> OutputRow | None:
    """Give a live image of an account's library, of its test or of its live part; None when there is none."""
    row = tx.exec_driver_sql(
        f"SELECT {_COLUMNS} FROM outputs o WHERE o.id = %(id)s AND o.account_id = %(account_id)s "
        f"AND o.test = %(test)s AND {_IN_LIBRARY}",
        {"id": output_id, "account_id": account_id, "test": test},
    ).first()
    return _output(row)


def library(
    tx: Connection, *, account_id: UUID, test: bool, start: UUID | None, limit: int
) -> list[OutputRow]:
    """Give the newest images of an account's library from `start` on, it included; None: from the newest."""
    rows = tx.exec_driver_sql(
        f"SELECT {_COLUMNS} FROM outputs o WHERE o.account_id = %(account_id)s AND o.test = %(test)s "
        f"AND {_IN_LIBRARY} {'AND o.id <= %(start)s' if start else ''} ORDER BY o.id DESC LIMIT %(limit)s",
        {"account_id": account_id, "test": test, "start": start, "limit": limit},
    )
    return _outputs(rows)


def newer_in_library(
    tx: Connection, *, account_id: UUID, test: bool, than: UUID, limit: int
) -> list[OutputRow]:
    """Give the `limit` images of a library that come right before one, newest first: the page before its."""
    rows = tx.exec_driver_sql(
        f"SELECT {_COLUMNS} FROM outputs o WHERE o.account_id = %(account_id)s AND o.test = %(test)s "
        f"AND {_IN_LIBRARY} AND o.id > %(than)s ORDER BY o.id LIMIT %(limit)s",
        {"account_id": account_id, "test": test, "than": than, "limit": limit},
    )
    return _outputs(rows)[::-1]


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
