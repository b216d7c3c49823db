"""Jobs that are drawn together: those of one batch key, claimed right when a GPU is free."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.engine import Connection

from app.db.jobs import CLAIMED, FROM_TO_PROCESSING, TAKE, Claim
from app.db.queues import accounts_with
from app.domain.job import Reason

_WAITING: Final = "batch_key = %(batch_key)s AND status = 'queued'"
_READY: Final = "queue = %(queue)s AND run_at <= now() AND cancel_requested_at IS NULL"

# Fair order as in `queues.release`: each account's jobs get numbers by priority and age, counted on from what
# it has in this very batch; the lowest go first. Whether a wake-up was sent for a job or not makes no
# difference: the row is the job, and a late wake-up finds it taken. The running sum keeps the batch within
# the images that one call can draw.
_CLAIM_SIBLINGS: Final = f"""
WITH RECURSIVE {accounts_with(_WAITING)}, numbered AS (
    SELECT due.id, due.priority, due.run_at, due.images,
           row_number() OVER (PARTITION BY waiting.account_id
                              ORDER BY due.priority DESC, due.run_at, due.id)
           + (waiting.account_id = %(account_id)s)::int AS turn
    FROM waiting CROSS JOIN LATERAL (
        SELECT id, priority, run_at, coalesce((spec->>'num_images')::int, 1) AS images FROM jobs
        WHERE {_WAITING} AND account_id = waiting.account_id AND {_READY}
        ORDER BY priority DESC, run_at, id LIMIT %(images)s
    ) AS due
), fitting AS (
    SELECT id FROM (
        SELECT id, sum(images) OVER (ORDER BY turn, run_at, id) AS so_far FROM numbered
    ) AS summed WHERE so_far <= %(images)s
), chosen AS (
    SELECT id FROM jobs WHERE id = ANY (ARRAY(SELECT id FROM fitting)) AND {_WAITING} AND {_READY}
    FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE jobs SET {TAKE}
    WHERE id = ANY (ARRAY(SELECT id FROM chosen)) AND status IN {FROM_TO_PROCESSING}
    RETURNING {CLAIMED}
), event AS (
    INSERT INTO job_events (job_id, from_status, to_status, attempt, reason, worker, detail)
    SELECT job_id, 'queued', 'processing', attempt, '{Reason.CLAIMED}', %(worker)s,
           jsonb_build_object('together_with', %(job_id)s::text)
    FROM claimed
)
SELECT * FROM claimed ORDER BY job_id
"""


def claim_siblings(
    tx: Connection,
    first: Claim,
    *,
    images: int,
    worker: str,
    lease: timedelta,
    deadline: timedelta,
) -> list[Claim]:
    """Take the jobs that can be drawn in one call with `first`, fair between accounts; nobody is waited for.

    Args:
        images: how many more images the call has room for.
    """
    if images < 1 or first.batch_key is None:
        return []
    rows = tx.exec_driver_sql(
        _CLAIM_SIBLINGS,
        {
            "batch_key": first.batch_key,
            "queue": first.queue,
            "account_id": first.account_id,
            "job_id": first.job_id,
            "images": images,
            "worker": worker,
            "lease": lease,
            "deadline": deadline,
        },
    )
    return [Claim(**row._mapping) for row in rows]


_PREFER_WARM: Final = """
SELECT better.id FROM jobs AS named CROSS JOIN LATERAL (
    SELECT id FROM jobs
    WHERE queue = named.queue AND status = 'queued' AND dispatched_at IS NOT NULL
          AND target_model = ANY (%(warm)s) AND run_at <= now() AND cancel_requested_at IS NULL
    ORDER BY priority DESC, run_at, id LIMIT 1
) AS better
WHERE named.id = %(job_id)s AND named.status = 'queued' AND named.target_model <> ALL (%(warm)s)
      AND named.run_at > now() - %(patience)s
"""


def prefer_warm(tx: Connection, job_id: UUID, *, warm: Sequence[str], patience: timedelta) -> UUID | None:
    """Give a released job of the same queue whose model is in memory, in place of one whose model is not.

    A wake-up only says that there may be work. None: take the job it names, as its model is in memory, or
    none that is waits, or it has waited for `patience`.
    """
    row = tx.exec_driver_sql(
        _PREFER_WARM, {"job_id": job_id, "warm": list(warm), "patience": patience}
    ).first()
    return None if row is None else row.id
