"""What the endpoints of a web process share, built once by `create_app` and passed down."""

from dataclasses import dataclass
from datetime import timedelta

from flask import g

from app.api import http
from app.api.ratelimit import Bodies, RateLimit, Searches, Streams
from app.auth import KeyRing
from app.db import Database
from app.db.accounts import KeyHolder
from app.errors import RequestError
from app.intake import Intake
from app.safe_http import Guard
from app.settings import Settings
from app.sources import Sources
from app.storage import Storage
from app.vault import Vault
from app.waits import Waits


@dataclass(frozen=True, kw_only=True)
class Services:
    """The house's parts that endpoints call."""

    settings: Settings
    database: Database
    storage: Storage
    intake: Intake
    keys: KeyRing
    rate_limit: RateLimit
    bodies: Bodies
    unnamed_bodies: Bodies
    searches: Searches
    streams: Streams
    waits: Waits
    sources: Sources
    vault: Vault
    webhook_guard: Guard
    bucket_guard: Guard

    def enter(self, *, bearer: bool) -> KeyHolder:
        """Name the caller by a header and count the request; before any of the body is read.

        Raises:
            Unauthenticated, AccountDisabled, RateLimited.
        """
        return self.admit(http.header_key(bearer=bearer))

    def admit(self, key: str | None) -> KeyHolder:
        """Name the caller by an API key, wherever it was sent, and count the request.

        Raises:
            Unauthenticated, AccountDisabled, RateLimited.
        """
        try:
            holder = self.keys.holder(key)
        except RequestError:
            self.rate_limit.count(None)
            raise
        g.holder = holder
        self.rate_limit.count(str(holder.key_id))
        return holder


SHORT_LINK = timedelta(minutes=15)
"""Longest life of a presigned link."""
