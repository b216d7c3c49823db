"""Requests per API key and minute, and the headers that tell a caller where it stands."""

import math
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from flask import Response, g
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from app.errors import RateLimited

_ANONYMOUS: Final = "anonymous"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a caller may still send: requests per window, how many are left, and when the window ends."""

    limit: int
    remaining: int
    reset: int
    """Unix seconds."""


class RateLimit:
    """Counts in this process's memory; with n web processes a key may send up to n times as much.

    Requests without a usable key share one count for all of them; a valid key never waits for theirs.
    """

    def __init__(self, per_minute: int) -> None:
        self._item = RateLimitItemPerMinute(per_minute)
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    def count(self, caller: str | None) -> None:
        """Count one request of `caller` (None: nobody we know) and keep the standing for the headers.

        Raises:
            RateLimited: it was one too many; `retry_after` says when the window ends.
        """
        name = caller or _ANONYMOUS
        allowed = self._limiter.hit(self._item, name)
        g.standing = self._standing(name)
        if not allowed:
            raise RateLimited(
                f"More than {self._item.amount} requests in this minute; wait for the reset.",
                retry_after=timedelta(seconds=max(1, g.standing.reset - time.time())),
            )

    def write_headers(self, answer: Response) -> None:
        """Add the standing to an answer; that of requests without a key where this one was not counted."""
        standing = g.get("standing") or self._standing(_ANONYMOUS)
        answer.headers["X-RateLimit-Limit"] = str(standing.limit)
        answer.headers["X-RateLimit-Remaining"] = str(standing.remaining)
        answer.headers["X-RateLimit-Reset"] = str(standing.reset)

    def _standing(self, name: str) -> Standing:
        stats = self._limiter.get_window_stats(self._item, name)
        # Rounded up, so that whoever waits until then is not a moment early. A window begins with a request.
        reset = math.ceil(max(stats.reset_time, time.time()))
        return Standing(limit=self._item.amount, remaining=max(0, stats.remaining), reset=reset)
