"""What the endpoints of a web process share, built once by `create_app` and passed down."""

from dataclasses import dataclass
from datetime import timedelta

from app.api import http
from app.api.ratelimit import Bodies, RateLimit, Streams
from app.auth import KeyRing
from app.db import Database
from app.db.accounts import KeyHolder
from app.errors import RequestError
from app.intake import Intake
from app.settings import Settings
from app.storage import Storage


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
    streams: Streams

    def enter(self, *, bearer: bool) -> KeyHolder:
        """Name the caller and count the request; before any of the body is read.

        Raises:
            Unauthenticated, AccountDisabled, RateLimited.
        """
        try:
            holder = http.authenticate(self.keys, bearer=bearer)
        except RequestError:
            self.rate_limit.count(None)
            raise
        self.rate_limit.count(str(holder.key_id))
        return holder


SHORT_LINK = timedelta(minutes=15)
"""Longest life of a presigned link."""
