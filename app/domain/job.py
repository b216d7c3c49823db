"""A job's life: its statuses, the allowed transitions, and the rules for retries and expiry.

Everything here is pure. `app/db/jobs.py` builds the WHERE of its guarded statements from `sources()`,
and tests hold the database's CHECK and trigger, and every path in `job_events`, to this table.
"""

from datetime import timedelta
from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """What a customer, an admin and the table call the state of a job."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


TRANSITIONS: Final[dict[Status, frozenset[Status]]] = {
    Status.QUEUED: frozenset({Status.PROCESSING, Status.FAILED, Status.CANCELLED}),
    Status.PROCESSING: frozenset({Status.QUEUED, Status.COMPLETED, Status.FAILED, Status.CANCELLED}),
    Status.COMPLETED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}
"""From each status to those that may follow it. `processing → queued` is a retry, a drain or a lost lease."""

TERMINAL: Final = frozenset(status for status, following in TRANSITIONS.items() if not following)
"""Statuses that are final; a trigger in the database refuses to leave them."""


class OutputState(StrEnum):
    """Where an output stands between being served and being only a line of history."""

    LIVE = "live"
    PURGING = "purging"
    PURGED = "purged"


class Access(StrEnum):
    """Who may fetch an output."""

    LINK = "link"
    """Whoever has its URL, which cannot be guessed."""
    PRIVATE = "private"
    """Its account, with a key."""
    PUBLIC = "public"
    """Everybody: its owner published it."""


class CopyState(StrEnum):
    """Where the copy of an output in its customer's own bucket stands."""

    PENDING = "pending"
    COPIED = "copied"
    GIVEN_UP = "given_up"


class Reason(StrEnum):
    """Why a transition happened; one per row of `job_events`."""

    SUBMITTED = "submitted"
    CLAIMED = "claimed"
    COMPLETED = "completed"
    RETRY = "retry"
    DEFERRED = "deferred"
    """A provider's rate limit lets it go only later."""
    REROUTED = "rerouted"
    """Another target takes it: queued jobs are moved, and failed attempts repeated elsewhere."""
    DRAINED = "drained"
    LEASE_LOST = "lease_lost"
    FAILED = "failed"
    CANCELLED = "cancelled"


MAX_CRASHES: Final = 3
"""Lost leases after which a job counts as the one that kills its workers.

Celery with late acks restarts such a job for ever (22 times in 25 s were measured); the row counts instead.
"""

UNCHARGED_ATTEMPTS: Final = 250
"""Attempts up to which one that met an outage of ours is free: with half a minute between them, an hour."""

_FIRST_DELAY: Final = timedelta(seconds=1)
_LONGEST_DELAY: Final = timedelta(seconds=30)
_SHORTEST_RETRY_AFTER: Final = timedelta(seconds=1)
_LONGEST_RETRY_AFTER: Final = timedelta(minutes=10)


def sources(target: Status) -> frozenset[Status]:
    """Give the statuses from which a job may move to `target`."""
    return frozenset(status for status, following in TRANSITIONS.items() if target in following)


def is_charged(*, ours_is_away: bool, attempt: int) -> bool:
    """Whether a failed attempt counts against the job's `max_attempts`.

    It does not while a part of ours is away: five charged attempts are over after some eight seconds, and a
    store may be away for minutes. Not for ever, as what looks like an outage may be this very job.
    """
    return not ours_is_away or attempt > UNCHARGED_ATTEMPTS


def may_retry(*, retryable: bool, failures: int, max_attempts: int) -> bool:
    """Whether a job whose attempt just failed becomes due again.

    Args:
        retryable: what the error says of itself.
        failures: charged attempts so far, the one that just failed included.
        max_attempts: the job's limit; with 1 there is no retry.
    """
    return retryable and failures < max_attempts


def retry_delay(failures: int, *, chance: float, retry_after: timedelta | None = None) -> timedelta:
    """Give how long a failed job waits before it is due again.

    Full jitter over an exponential: uniform in [0, min(30 s, 1 s · 2^(failures-1))], so that jobs which
    failed together do not come back together (AWS Architecture Blog, "Exponential Backoff And Jitter").

    Args:
        failures: charged attempts so far, at least 1.
        chance: a random number in [0, 1).
        retry_after: what the failing party asked for; wins over the exponential, clamped to
            [1 s, 10 min] and stretched by up to a tenth so that waiters do not return in one crowd.
    """
    if retry_after is not None:
        asked = min(max(retry_after, _SHORTEST_RETRY_AFTER), _LONGEST_RETRY_AFTER)
        return asked * (1 + chance / 10)
    ceiling = min(_LONGEST_DELAY, _FIRST_DELAY * (1 << min(failures - 1, 10)))
    return ceiling * chance
