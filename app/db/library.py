"""Statements that only the image library needs: where its images are shown, and requests that are joined."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy.engine import Connection

from app.db.door import Once


def prefixes(tx: Connection, job_ids: Sequence[UUID]) -> dict[UUID, UUID]:
    """Give the random part of the public URLs of these jobs' outputs, by job."""
    if not job_ids:
        return {}
    rows = tx.exec_driver_sql(
        "SELECT id, output_prefix FROM jobs WHERE id = ANY(%(ids)s)", {"ids": list(job_ids)}
    )
    return {row.id: row.output_prefix for row in rows}


def prolong(tx: Connection, once: Once, *, account_id: UUID, job_id: UUID, lasts: timedelta) -> None:
    """Honour a key at least so long from now, if it still stands for this job."""
    tx.exec_driver_sql(
        "UPDATE idempotency_keys SET expires_at = greatest(expires_at, now() + %(lasts)s) "
        f"WHERE {_THIS_KEY} AND job_id = %(job_id)s",
        {**_named(once, account_id), "job_id": job_id, "lasts": lasts},
    )


def release(tx: Connection, once: Once, *, account_id: UUID, job_id: UUID) -> None:
    """Let the next request with this key make a job of its own, unless it stands for another job by now."""
    tx.exec_driver_sql(
        f"DELETE FROM idempotency_keys WHERE {_THIS_KEY} AND job_id = %(job_id)s",
        {**_named(once, account_id), "job_id": job_id},
    )


_THIS_KEY = "account_id = %(account_id)s AND endpoint = %(endpoint)s AND key = %(key)s"


def _named(once: Once, account_id: UUID) -> dict[str, object]:
    return {"account_id": account_id, "endpoint": once.endpoint, "key": once.key}
