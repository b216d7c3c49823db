"""What one caller may take of a web process: requests per minute, and bodies under way at a time."""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from flask import Response, g
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from app.errors import Busy, RateLimited

_ANONYMOUS: Final = "anonymous"
_PATIENCE: Final = 0.25
"""Seconds to wait for a place: longer than any honest crowd of bodies takes, too short to hold up others."""


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


class Places:
    """A number of places for each name; thread-safe, fair to nobody."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._changed = threading.Condition()
        self._taken: Counter[Hashable] = Counter()

    def take(self, name: Hashable, places: int = 1) -> bool:
        """Take places, waiting for them up to a quarter of a second; False when they did not come free."""
        with self._changed:
            free = self._changed.wait_for(lambda: self._taken[name] + places <= self.most, _PATIENCE)
            self._taken[name] += places * free
            return free

    def free(self, name: Hashable, places: int = 1) -> None:
        """Give places back."""
        with self._changed:
            self._taken[name] -= places
            if not self._taken[name]:
                del self._taken[name]
            self._changed.notify_all()


class Bodies:
    """Request bodies being read at a time, and images fetched that they name, per account.

    A WSGI server has no time limit for a body, and each slow one holds a thread: with 150 slow uploads on 64
    threads nobody else was answered. So does a slow host that a request names an image of. Both usually come
    in milliseconds, so honest clients do not meet this limit.
    """

    _told = "already sends {most} bodies at a time, or images by URL; send fewer at once"

    def __init__(self, most: int) -> None:
        self._places = Places(most)

    @contextmanager
    def reading(self, account_id: UUID, *, places: int = 1) -> Iterator[None]:
        """Count a body, or the images of one, while they come.

        Args:
            places: for how many it counts, at most for all; 0 for what need not be fetched.

        Raises:
            RateLimited: the account already sends as many as it may.
        """
        places = min(places, self._places.most)
        if not self._places.take(account_id, places):
            told = self._told.format(most=self._places.most)
            raise RateLimited(f"This account {told}.", retry_after=timedelta(seconds=1))
        try:
            yield
        finally:
            self._places.free(account_id, places)


class Searches(Bodies):
    """Statements at a time that may read all of an account's history, per account.

    A page of jobs by a filter that matches none takes 0.7 s for each million of them, and there are eight
    connections to Postgres for everybody.
    """

    _told = "already searches its history {most} times at once; do so one after the other"


class Streams:
    """Outputs being sent at a time, to anybody: a client that does not read holds a thread as well.

    Those of one account are half of them at most, so that it cannot keep others' from being sent.
    """

    def __init__(self, most: int) -> None:
        self._places = Places(most)
        self._shares = Places(max(1, most // 2))

    def open(self, owner: UUID) -> Callable[[], None]:
        """Count a stream of an account's output; gives the function that ends the count, once.

        Raises:
            Busy: there are as many as there may be.
        """
        with ExitStack() as opened:
            for places, name in ((self._shares, owner), (self._places, None)):
                if not places.take(name):
                    raise Busy(retry_after=timedelta(seconds=1))
                opened.callback(places.free, name)
            return opened.pop_all().close
