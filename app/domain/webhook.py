"""Webhooks as pure rules: what is told, in which form, and when a failed delivery is tried again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final


class Form(StrEnum):
    """Whose words a webhook's body speaks."""

    JOBS = "jobs"
    MODELSLAB = "modelslab"
    REALM = "realm"


class Scope(StrEnum):
    """What an endpoint is told of."""

    ACCOUNT = "account"
    """All jobs of its account."""
    REQUEST = "request"
    """Those jobs whose requests named its URL."""


class Event(StrEnum):
    """What a webhook tells of; the statuses of a job that its owner may wait for, and a test."""

    PROCESSING = "job.processing"
    COMPLETED = "job.completed"
    FAILED = "job.failed"
    CANCELLED = "job.cancelled"
    TEST = "test"


class DeliveryStatus(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Verdict(StrEnum):
    """What an answer, or none, means for a delivery and its endpoint."""

    DELIVERED = "delivered"
    RETRY = "retry"
    """Try again by the schedule."""
    PAUSE = "pause"
    """The same, and send nothing else to the endpoint until the time it asked for."""
    GONE = "gone"
    """The endpoint wants nothing more, ever."""


ENDS: Final = (Event.COMPLETED, Event.FAILED, Event.CANCELLED)
"""The events of a job that has ended."""

SCHEDULE: Final = (
    timedelta(0),
    timedelta(seconds=5),
    timedelta(seconds=30),
    timedelta(minutes=2),
    timedelta(minutes=5),
    timedelta(minutes=15),
    timedelta(minutes=30),
    timedelta(hours=1),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
"""When a delivery is tried, counted from its first try.

Standard Webhooks 1.0.0 recommends 0, 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h and 24 h. Ours adds five
tries, four of them in the first quarter of an hour: most outages of a receiver are a deploy or a restart of
one to three minutes, after which nobody should wait five minutes for a picture that is ready.
"""
_JITTER: Final = 0.1
"""Share by which a wait is stretched at most, so that what failed together does not come back together."""

MAX_IN_FLIGHT: Final = 4
"""Deliveries of one endpoint that are with the broker or a worker at a time.

So many only while its last try succeeded: an endpoint whose last try failed gets one at a time, which is also
the one probe when its breaker is half open.
"""
FAILURES_TO_OPEN: Final = 5
"""Failures in a row after which an endpoint is left alone for a while."""
_FIRST_OPENING: Final = timedelta(seconds=5)
_LONGEST_OPENING: Final = timedelta(minutes=5)

GIVEN_UP_UNTRIED: Final = timedelta(days=3)
"""How long a delivery may be due without a try, which only the breaker of a dead endpoint brings about."""

_SHORTEST_RETRY_AFTER: Final = timedelta(seconds=1)
_LONGEST_RETRY_AFTER: Final = timedelta(hours=24)
_PAUSING: Final = frozenset({429, 502, 503, 504})
"""Statuses of a receiver, or of the proxy before it, that has too much to do; Standard Webhooks 1.0.0."""
_GONE: Final = 410
_GOOD: Final = range(200, 300)


def next_try(tries: int, *, chance: float, retry_after: timedelta | None = None) -> timedelta | None:
    """Give how long a delivery waits after a failed try; None when it is given up.

    Args:
        tries: how many there were, the one that just failed included, at least 1.
        chance: a random number in [0, 1); the wait is stretched by up to a tenth.
        retry_after: what the receiver asked for; the later of it and the schedule counts, as tries would be
            used up in seconds by a receiver that always asks for one.
    """
    if tries >= len(SCHEDULE):
        return None
    wait = SCHEDULE[tries] - SCHEDULE[tries - 1]
    return max(wait, retry_after or timedelta(0)) * (1 + chance * _JITTER)


def opening(failures: int) -> timedelta | None:
    """Give how long an endpoint is left alone after so many failures in a row; None: not at all.

    5 s after the fifth, then twice as long after each probe that failed, up to 5 minutes.
    """
    if failures < FAILURES_TO_OPEN:
        return None
    return min(_LONGEST_OPENING, _FIRST_OPENING * (1 << min(failures - FAILURES_TO_OPEN, 10)))


def judge(status: int, *, retry_after: timedelta | None) -> Verdict:
    """Give what an answer's HTTP status means.

    Only 2xx is success; a redirect is a failure, since following one would lead us to an address nobody
    registered. 410 ends it for good.

    Args:
        retry_after: the answer's Retry-After, None without one.
    """
    if status in _GOOD:
        return Verdict.DELIVERED
    if status == _GONE:
        return Verdict.GONE
    if status in _PAUSING and retry_after is not None:
        return Verdict.PAUSE
    return Verdict.RETRY


def parse_retry_after(text: str | None, *, now: datetime) -> timedelta | None:
    """Give the wait that a Retry-After header asks for, clamped to [1 s, 24 h]; None without a readable one.

    Args:
        text: the header: whole seconds or an HTTP date (RFC 9110, section 10.2.3).
        now: what a date is compared with.
    """
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        # Digits beyond these are more than a day in any case, and int() refuses thousands of them.
        asked = timedelta(seconds=int(text[-9:] if set(text[:-9]) <= {"0"} else "9" * 9))
    else:
        try:
            date = parsedate_to_datetime(text)
            asked = (date if date.tzinfo else date.replace(tzinfo=UTC)) - now
        except (ValueError, OverflowError):
            return None
    return min(max(asked, _SHORTEST_RETRY_AFTER), _LONGEST_RETRY_AFTER)


@dataclass(frozen=True, kw_only=True)
class Breaker:
    """An endpoint's failures in a row, and how long it is left alone from now on; zero: not at all."""

    failures: int
    closed_for: timedelta


def after_try(breaker: Breaker, verdict: Verdict, *, retry_after: timedelta | None) -> Breaker:
    """Give an endpoint's breaker after one more try.

    A success closes it, but does not shorten a pause that the receiver asked for. A failure while it is left
    alone, of a try that was under way when that began, changes nothing: it tells nothing new.
    """
    if verdict is Verdict.DELIVERED:
        was_open = breaker.failures >= FAILURES_TO_OPEN
        return Breaker(failures=0, closed_for=timedelta(0) if was_open else breaker.closed_for)
    pause = retry_after if verdict is Verdict.PAUSE and retry_after else timedelta(0)
    if breaker.closed_for > timedelta(0):
        return Breaker(failures=breaker.failures, closed_for=max(breaker.closed_for, pause))
    failures = breaker.failures + 1
    return Breaker(failures=failures, closed_for=max(opening(failures) or timedelta(0), pause))


def has_recovered(breaker: Breaker, verdict: Verdict) -> bool:
    """Whether this try ended an outage, so that what waits for the endpoint is due at once.

    Not after fewer failures than open the breaker: a single delivery that its receiver can never take, among
    many that it takes, would else be tried as often as the others succeed.
    """
    return verdict is Verdict.DELIVERED and breaker.failures >= FAILURES_TO_OPEN


def in_order(events: Sequence[Event]) -> list[Event]:
    """Give events without repetition, in the order of a job's life."""
    return [event for event in Event if event in events]
