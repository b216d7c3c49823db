"""Statements about customers' own buckets: their details, and the copies of outputs that are due there.

An output whose copy is pending is kept by us: the settle sets `persisted_at` to the very moment of
`created_at`. That equality says that we keep it and not its owner; an owner who persists or publishes it
meanwhile writes a later time (see `outputs.persist`), and then it stays kept after the copy.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy.engine import Connection, Row

_COLUMNS: Final = (
    "t.id, t.account_id, t.deploy_type, t.endpoint_url, t.region, t.bucket, t.directory, t.public_url, "
    "t.credentials"
)
_PENDING: Final = "o.copy_state = 'pending' AND o.state = 'live'"


@dataclass(frozen=True, kw_only=True)
class TargetRow:
    """A customer's bucket; its credentials are encrypted, None once nothing needs them any more."""

    id: UUID
    account_id: UUID
    deploy_type: str
    endpoint_url: str
    region: str
    bucket: str
    directory: str
    public_url: str
    credentials: str | None = field(repr=False)


def replace(tx: Connection, row: TargetRow) -> None:
    """Make this the account's bucket for its deploy_type, in place of the one before; needs a transaction.

    Of two at a time the later one wins: the account's row is locked first.
    """
    tx.exec_driver_sql(
        "SELECT id FROM accounts WHERE id = %(account_id)s FOR NO KEY UPDATE", {"account_id": row.account_id}
    )
    remove(tx, row.account_id, deploy_type=row.deploy_type)
    tx.exec_driver_sql(
        "INSERT INTO storage_targets (id, account_id, deploy_type, endpoint_url, region, bucket, directory, "
        "public_url, credentials) VALUES (%(id)s, %(account_id)s, %(deploy_type)s, %(endpoint_url)s, "
        "%(region)s, %(bucket)s, %(directory)s, %(public_url)s, %(credentials)s)",
        {name: getattr(row, name) for name in TargetRow.__dataclass_fields__},
    )


def remove(tx: Connection, account_id: UUID, *, deploy_type: str) -> bool:
    """Have new jobs go to our own store alone; False when the account had no such bucket.

    Jobs that were promised the bucket still use it.
    """
    row = tx.exec_driver_sql(
        "UPDATE storage_targets SET removed_at = now() "
        "WHERE account_id = %(account_id)s AND deploy_type = %(deploy_type)s AND removed_at IS NULL "
        "RETURNING id",
        {"account_id": account_id, "deploy_type": deploy_type},
    ).first()
    return row is not None


def current(tx: Connection, account_id: UUID, *, deploy_type: str) -> TargetRow | None:
    """Give the bucket that an account's new jobs go to; None when they go to our own store alone."""
    row = tx.exec_driver_sql(
        f"SELECT {_COLUMNS} FROM storage_targets t WHERE t.account_id = %(account_id)s "
        "AND t.deploy_type = %(deploy_type)s AND t.removed_at IS NULL",
        {"account_id": account_id, "deploy_type": deploy_type},
    ).first()
    return _target(row)


def for_copies(tx: Connection, target_id: UUID) -> TargetRow | None:
    """Give the details by which a promise of this bucket is kept: its own, or newer ones for the same links.

    So a customer who sends his details again with another key mends the copies that still wait.
    """
    row = tx.exec_driver_sql(
        f"SELECT {_COLUMNS} FROM storage_targets promised JOIN storage_targets t ON t.id = promised.id "
        "OR (t.account_id = promised.account_id AND t.deploy_type = promised.deploy_type "
        "AND t.directory = promised.directory AND t.public_url = promised.public_url "
        "AND t.removed_at IS NULL) "
        "WHERE promised.id = %(id)s ORDER BY t.removed_at IS NULL DESC, t.id DESC LIMIT 1",
        {"id": target_id},
    ).first()
    return _target(row)


def by_id(tx: Connection, target_id: UUID) -> TargetRow | None:
    """Give a bucket, removed or not."""
    row = tx.exec_driver_sql(
        f"SELECT {_COLUMNS} FROM storage_targets t WHERE t.id = %(id)s", {"id": target_id}
    ).first()
    return _target(row)


def _target(row: Row[Any] | None) -> TargetRow | None:
    return None if row is None else TargetRow(**row._mapping)


@dataclass(frozen=True, kw_only=True)
class DueCopy:
    """An output whose copy this process makes now, until its lease runs out.

    `attempts` counts this try as well, and is the fence of what is written about it.
    """

    output_id: UUID
    target_id: UUID
    key: str
    sha256: str
    format: str
    index: int
    output_prefix: UUID
    as_text: bool
    attempts: int


_CLAIM: Final = f"""
WITH due AS MATERIALIZED (
    SELECT o.id FROM outputs o WHERE {_PENDING} AND o.copy_run_at <= now()
    ORDER BY o.copy_run_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE outputs o SET copy_attempts = o.copy_attempts + 1, copy_run_at = now() + %(lease)s
FROM due, jobs j
WHERE o.id = due.id AND j.id = o.job_id AND {_PENDING} AND o.copy_run_at <= now()
RETURNING o.id AS output_id, j.storage_target_id AS target_id, o.key, o.sha256, o.format, o.index,
          j.output_prefix, coalesce(j.echo @> '{{"base64": true}}', false) AS as_text,
          o.copy_attempts AS attempts
"""


def claim_copy(tx: Connection, *, lease: timedelta) -> DueCopy | None:
    """Take the copy that has been due for longest; None when none is due.

    Until `lease` is over nobody else gets it; if this process dies, somebody does then.
    """
    row = tx.exec_driver_sql(_CLAIM, {"lease": lease}).first()
    return None if row is None else DueCopy(**row._mapping)


_COPIED: Final = f"""
UPDATE outputs o SET copy_state = 'copied', copy_url = %(url)s, copy_run_at = NULL, copy_error = NULL,
    persisted_at = CASE WHEN o.persisted_at = o.created_at AND NOT j.persist THEN NULL
                        ELSE o.persisted_at END,
    expires_at = greatest(o.expires_at,
                          now() + coalesce(make_interval(secs => j.retain_seconds), %(retention)s))
FROM jobs j
WHERE o.id = %(id)s AND j.id = o.job_id AND {_PENDING} AND o.copy_attempts = %(attempts)s
RETURNING o.id
"""


def settle_copied(tx: Connection, copy: DueCopy, *, url: str, retention: timedelta) -> bool:
    """Note that an output lies in its customer's bucket, and let our own copy expire, a retention from now.

    One that its owner persisted himself, or whose job persists its outputs, stays kept. False when the copy
    is not ours to settle any more.
    """
    row = tx.exec_driver_sql(
        _COPIED, {"id": copy.output_id, "attempts": copy.attempts, "url": url, "retention": retention}
    ).first()
    return row is not None


_FAILED: Final = f"""
UPDATE outputs o SET
    copy_state = CASE WHEN o.created_at < now() - %(patience)s THEN 'given_up' ELSE 'pending' END,
    copy_run_at = CASE WHEN o.created_at < now() - %(patience)s THEN NULL ELSE now() + %(wait)s END,
    copy_error = CASE WHEN o.created_at < now() - %(patience)s THEN %(last_error)s ELSE %(error)s END
WHERE o.id = %(id)s AND {_PENDING} AND o.copy_attempts = %(attempts)s
RETURNING o.copy_state
"""


def settle_failed(
    tx: Connection, copy: DueCopy, *, error: str, last_error: str, wait: timedelta, patience: timedelta
) -> str | None:
    """Note why a copy failed, and when it is tried again; gives its state after that.

    After `patience` from the end of its job it is given up, with `last_error` as the reason: the image stays
    kept by us for ever. None when the copy is not ours to settle any more.
    """
    parameters = {
        "id": copy.output_id,
        "attempts": copy.attempts,
        "error": error,
        "last_error": last_error,
        "wait": wait,
        "patience": patience,
    }
    row = tx.exec_driver_sql(_FAILED, parameters).first()
    return None if row is None else str(row.copy_state)


def postpone(tx: Connection, target_id: UUID, *, wait: timedelta) -> int:
    """Let the due copies for a bucket that is away wait as well, untried; gives how many.

    Otherwise each of them would spend its own timeout, and those of other customers would wait behind them.
    """
    return tx.exec_driver_sql(
        f"UPDATE outputs o SET copy_run_at = now() + %(wait)s FROM jobs j WHERE j.id = o.job_id "
        f"AND j.storage_target_id = %(target_id)s AND {_PENDING} AND o.copy_run_at <= now()",
        {"target_id": target_id, "wait": wait},
    ).rowcount


def hurry(tx: Connection, target: TargetRow, *, wait: timedelta) -> int:
    """Let the copies that wait for this bucket wait no longer than this: it works again; gives how many.

    Args:
        wait: at least a lease, so that one which is being tried right now is not tried beside that.
    """
    return tx.exec_driver_sql(
        f"UPDATE outputs o SET copy_run_at = now() + %(wait)s "
        "FROM jobs j JOIN storage_targets t ON t.id = j.storage_target_id "
        "WHERE j.id = o.job_id AND t.account_id = %(account_id)s AND t.deploy_type = %(deploy_type)s "
        "AND t.directory = %(directory)s AND t.public_url = %(public_url)s "
        f"AND {_PENDING} AND o.copy_run_at > now() + %(wait)s",
        {
            "account_id": target.account_id,
            "deploy_type": target.deploy_type,
            "directory": target.directory,
            "public_url": target.public_url,
            "wait": wait,
        },
    ).rowcount


def end_deleted(tx: Connection) -> int:
    """Give up the copies of outputs that their owners deleted meanwhile; gives how many."""
    return tx.exec_driver_sql(
        "UPDATE outputs SET copy_state = 'given_up', copy_run_at = NULL, "
        "copy_error = 'The image was deleted before it was copied.' "
        "WHERE copy_state = 'pending' AND state <> 'live'"
    ).rowcount


_FORGET: Final = """
WITH needed AS (
    SELECT storage_target_id FROM jobs WHERE status = 'queued' AND dispatched_at IS NULL
    UNION ALL SELECT storage_target_id FROM jobs WHERE status = 'queued' AND dispatched_at IS NOT NULL
    UNION ALL SELECT storage_target_id FROM jobs WHERE status = 'processing'
    UNION ALL SELECT j.storage_target_id FROM outputs o JOIN jobs j ON j.id = o.job_id
              WHERE o.copy_state = 'pending'
)
UPDATE storage_targets t SET credentials = NULL
WHERE t.removed_at < now() - %(grace)s AND t.credentials IS NOT NULL
      AND NOT EXISTS (SELECT 1 FROM needed WHERE needed.storage_target_id = t.id)
"""


def forget_credentials(tx: Connection, *, grace: timedelta) -> int:
    """Delete the credentials of removed buckets that no job and no copy needs any more; gives how many.

    Args:
        grace: left alone after the removal: a request may have read the details just before it, and its job
            be written just after.
    """
    return tx.exec_driver_sql(_FORGET, {"grace": grace}).rowcount
