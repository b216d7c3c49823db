"""Jobs that an identical request made before: what a client that repeats itself may be given instead.

Clients of synchronous APIs send a request again when its answer does not come, without an Idempotency-Key;
each time one more job would be drawn for nobody.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.engine import Connection

from app.db import history

MEMBER: Final = "request"
"""Member of a job's `echo` that holds the hash of the request which made it."""
_MOST: Final = 20
_OLDEST: Final = timedelta(minutes=15)
"""How far back ended jobs are looked for, by when they were made: so that few rows are read."""
_LIVE: Final = (
    "status = 'processing'",
    "status = 'queued' AND dispatched_at IS NULL",
    "status = 'queued' AND dispatched_at IS NOT NULL",
)
"""Each the condition of an index that the relay has anyway; one of our own would cost every insert."""
_SAME: Final = f"account_id = %(account_id)s AND dialect = %(dialect)s AND echo->>'{MEMBER}' = %(request)s"


def unfinished(
    tx: Connection, *, account_id: UUID, dialect: str, request: str, queues: Sequence[str], older: timedelta
) -> list[UUID]:
    """Give an account's unfinished jobs of this request that are at least so old, oldest first.

    Args:
        request: the hash under `MEMBER`.
        queues: those that jobs can be on.
    """
    parts = " UNION ALL ".join(
        f"SELECT id FROM jobs WHERE queue = ANY (%(queues)s) AND {live} AND {_SAME} "
        "AND created_at <= now() - %(older)s"
        for live in _LIVE
    )
    rows = tx.exec_driver_sql(
        f"SELECT id FROM ({parts}) AS found ORDER BY id LIMIT {_MOST}",
        {
            "account_id": account_id,
            "dialect": dialect,
            "request": request,
            "queues": list(queues),
            "older": older,
        },
    )
    return [row.id for row in rows]


def just_ended(
    tx: Connection, *, account_id: UUID, dialect: str, request: str, within: timedelta
) -> list[UUID]:
    """Give an account's jobs of this request that ended that short a time ago, the last to end first."""
    rows = tx.exec_driver_sql(
        f"SELECT id FROM jobs WHERE id > %(oldest)s AND {_SAME} AND finished_at > now() - %(within)s "
        f"ORDER BY finished_at DESC LIMIT {_MOST}",
        {
            "account_id": account_id,
            "dialect": dialect,
            "request": request,
            "within": within,
            "oldest": history.first_id(datetime.now(UTC) - _OLDEST),
        },
    )
    return [row.id for row in rows]
