"""Statements about accounts and their API keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.engine import Connection


@dataclass(frozen=True, kw_only=True)
class KeyHolder:
    """Whose key it is, whether it may still be used, and how long: `expires_in` is None for ever.

    What a test key makes is watermarked, and kept apart from what the account's other keys make.
    """

    key_id: UUID
    account_id: UUID
    account_name: str
    disabled: bool
    expires_in: timedelta | None
    test: bool


_FIND: Final = """
WITH used AS (
    UPDATE api_keys SET last_used_at = now()
    WHERE digest = %(digest)s AND revoked_at IS NULL
          AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
)
SELECT k.id AS key_id, k.account_id, a.name AS account_name, a.disabled_at IS NOT NULL AS disabled,
       k.expires_at - now() AS expires_in, k.test
FROM api_keys k JOIN accounts a ON a.id = k.account_id
WHERE k.digest = %(digest)s AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
"""


def find_key(tx: Connection, digest: bytes) -> KeyHolder | None:
    """Give the holder of a valid key by its digest, and note its use; None for any other key."""
    row = tx.exec_driver_sql(_FIND, {"digest": digest}).first()
    return None if row is None else KeyHolder(**row._mapping)


def ensure_account(tx: Connection, name: str, *, new_id: UUID) -> UUID:
    """Give the id of the account of this name, made with `new_id` when there is none."""
    tx.exec_driver_sql(
        "INSERT INTO accounts (id, name) VALUES (%(id)s, %(name)s) ON CONFLICT (name) DO NOTHING",
        {"id": new_id, "name": name},
    )
    found = tx.exec_driver_sql("SELECT id FROM accounts WHERE name = %(name)s", {"name": name}).scalar_one()
    assert isinstance(found, UUID)
    return found


def insert_key(
    tx: Connection,
    *,
    key_id: UUID,
    account_id: UUID,
    name: str,
    prefix: str,
    digest: bytes,
    test: bool,
    expires_at: datetime | None,
) -> bool:
    """Write an API key's digest; False when this very key exists already."""
    row = tx.exec_driver_sql(
        "INSERT INTO api_keys (id, account_id, name, prefix, digest, test, expires_at) "
        "VALUES (%(id)s, %(account_id)s, %(name)s, %(prefix)s, %(digest)s, %(test)s, %(expires_at)s) "
        "ON CONFLICT (digest) DO NOTHING RETURNING id",
        {
            "id": key_id,
            "account_id": account_id,
            "name": name,
            "prefix": prefix,
            "digest": digest,
            "test": test,
            "expires_at": expires_at,
        },
    ).first()
    return row is not None


@dataclass(frozen=True, kw_only=True)
class KeyRow:
    """An API key as an admin sees it; the key itself is not kept."""

    id: UUID
    account_name: str
    name: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


def list_keys(tx: Connection) -> Sequence[KeyRow]:
    """Give all keys, newest first."""
    rows = tx.exec_driver_sql(
        "SELECT k.id, a.name AS account_name, k.name, k.prefix, k.created_at, k.expires_at, k.revoked_at, "
        "k.last_used_at FROM api_keys k JOIN accounts a ON a.id = k.account_id ORDER BY k.id DESC"
    )
    return [KeyRow(**row._mapping) for row in rows]


def revoke_key(tx: Connection, key_id: UUID) -> bool:
    """Revoke a key; False when there is none with this id or it was revoked before."""
    row = tx.exec_driver_sql(
        "UPDATE api_keys SET revoked_at = now() WHERE id = %(id)s AND revoked_at IS NULL RETURNING id",
        {"id": key_id},
    ).first()
    return row is not None
