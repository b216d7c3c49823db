"""When an upstream provider is left alone: a breaker for each, in a row that all workers share.

It opens after so many failed calls in a row, lets one probe through when its time is over, and closes with
the first success. Each opening in a row lasts twice as long as the one before.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

OPENS_AFTER: Final = 5
"""Failed calls in a row."""
FIRST_OPENING: Final = timedelta(seconds=15)
LONGEST_OPENING: Final = timedelta(minutes=5)
BURST: Final = timedelta(seconds=2)
"""Calls that a rate limit lets go at once after a rest: what falls into this time, and at least one."""


class BreakerState(StrEnum):
    """What an upstream's breaker lets through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    """One job at a time, as a probe."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """How an upstream is doing now.

    Attributes:
        breaker: see `BreakerState`.
        closed_for: seconds until something is let through again, by breaker or by Retry-After; 0: now.
        calls_left: paid calls that its rate limit lets go now; None: it has no limit.
        reason: its last failure, if that is why it is not closed.
    """

    breaker: BreakerState
    closed_for: float
    calls_left: int | None = None
    reason: str | None = None


def room(condition: Condition, *, concurrency: int, occupied: int) -> int:
    """Give how many more of an upstream's jobs may be released now.

    Args:
        concurrency: jobs that may be with it at a time.
        occupied: jobs that are with it, or released to a worker.
    """
    if condition.closed_for > 0:
        return 0
    if condition.breaker is BreakerState.HALF_OPEN:
        return max(0, 1 - occupied)
    free = max(0, concurrency - occupied)
    return free if condition.calls_left is None else min(free, condition.calls_left)
