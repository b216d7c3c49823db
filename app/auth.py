"""Whose API key is this? Keys are random, so a fast keyed hash is all their storage needs."""

import hashlib
import hmac
import secrets
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.engine import Connection
from uuid_utils.compat import uuid7

from app.db import Database, accounts, bell
from app.db.accounts import KeyHolder
from app.errors import AccountDisabled, SetupError, Unauthenticated
from app.settings import Settings

KEY_PREFIX: Final = "drk_"
"""How our own keys begin, so that secret scanners can recognise them."""
TEST_PREFIX: Final = "test_"
LIVE_PREFIX: Final = "live_"
"""How IMG Processing's keys begin; its clients refuse any other key."""
FIRST_ACCOUNT: Final = "default"
"""Name of the account that the bootstrap key belongs to."""
_SHOWN: Final = 8
_SHOWN_OF_PRESET: Final = 4
"""Characters of a key kept readable; a preset key may be as short as 16."""
_CACHE_SECONDS: Final = 30.0
_CACHE_SIZE: Final = 10_000
_LONGEST_KEY: Final = 512


def digest(key: str, *, secret_key: str) -> bytes:
    """Give what is stored of an API key: HMAC-SHA256 under the installation's secret."""
    return hmac.digest(secret_key.encode(), key.encode(), hashlib.sha256)


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """A key just made; `key` is shown once and kept nowhere."""

    id: UUID
    key: str = field(repr=False)
    account_id: UUID


def create_key(
    tx: Connection,
    *,
    account: str,
    name: str,
    secret_key: str,
    key: str | None = None,
    prefix: str = KEY_PREFIX,
    expires_at: datetime | None = None,
) -> NewKey | None:
    """Make an API key for an account, which is made too when there is none of that name.

    Args:
        key: a key to preset, at least 16 characters; None draws 256 random bits.
        prefix: how a drawn key begins. One that begins with `test_`, preset or drawn, is a test key.

    Returns:
        The key, or None when the preset one exists already.
    """
    account_id = accounts.ensure_account(tx, account, new_id=uuid7())
    new = NewKey(id=uuid7(), key=key or prefix + secrets.token_urlsafe(32), account_id=account_id)
    written = accounts.insert_key(
        tx,
        key_id=new.id,
        account_id=account_id,
        name=name,
        prefix=new.key[: _SHOWN_OF_PRESET if key else _SHOWN],
        digest=digest(new.key, secret_key=secret_key),
        test=new.key.startswith(TEST_PREFIX),
        expires_at=expires_at,
    )
    if not written:
        return None
    announce_change(tx)
    return new


def ensure_bootstrap_key(tx: Connection, settings: Settings) -> str | None:
    """Give the preset key of the first account, made when there is none; None when none is preset.

    Raises:
        SetupError: that key was revoked, and revoking wins over presetting.
    """
    if settings.bootstrap_api_key is None:
        return None
    key, secret_key = settings.bootstrap_api_key.get_secret_value(), settings.secret_key.get_secret_value()
    create_key(tx, account=FIRST_ACCOUNT, name="bootstrap", secret_key=secret_key, key=key)
    if accounts.find_key(tx, digest(key, secret_key=secret_key)) is None:
        raise SetupError("DARKROOM_BOOTSTRAP_API_KEY names a key that was revoked; choose another one.")
    return key


def announce_change(tx: Connection) -> None:
    """Tell every web process to forget what it knows of keys, once this transaction commits."""
    tx.exec_driver_sql("SELECT pg_notify(%(channel)s, '')", {"channel": bell.KEYS})


class KeyRing:
    """Looks keys up, and remembers each answer for 30 s, or until it expires or a key changes; thread-safe.

    A revoked key is refused within milliseconds where `forget` is wired to the `KEYS` bell, and within
    30 s where its ring got lost.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._secret_key = settings.secret_key.get_secret_value()
        self._database = database
        self._lock = threading.Lock()
        self._known: dict[bytes, tuple[float, KeyHolder | None]] = {}

    def holder(self, key: str | None) -> KeyHolder:
        """Give whose key this is.

        Raises:
            Unauthenticated: no key, or none of ours, or revoked, or expired.
            AccountDisabled: the key is right, but its account is disabled.
            DatabaseDown: Postgres cannot be asked and the answer is not remembered.
        """
        if not key or len(key) > _LONGEST_KEY:
            raise Unauthenticated
        fingerprint = digest(key, secret_key=self._secret_key)
        known = self._known.get(fingerprint)
        holder = known[1] if known and known[0] > time.monotonic() else self._look_up(fingerprint)
        if holder is None:
            raise Unauthenticated("This API key is not valid; check it for typing errors.")
        if holder.disabled:
            raise AccountDisabled
        return holder

    def forget(self) -> None:
        """Forget every answer, because a key or an account changed."""
        with self._lock:
            self._known = {}

    def _look_up(self, fingerprint: bytes) -> KeyHolder | None:
        with self._lock:
            generation = self._known
        with self._database.autocommit() as tx:
            holder = accounts.find_key(tx, fingerprint)
        with self._lock:
            # An answer read before a `forget` must not outlive it, hence into the dict of before.
            if len(generation) >= _CACHE_SIZE:
                generation.clear()
            generation[fingerprint] = (time.monotonic() + _seconds_to_remember(holder), holder)
        return holder


def _seconds_to_remember(holder: KeyHolder | None) -> float:
    if holder is None or holder.expires_in is None:
        return _CACHE_SECONDS
    return min(_CACHE_SECONDS, holder.expires_in.total_seconds())
