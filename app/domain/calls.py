"""A paid call to an upstream provider: its states, and what a new attempt makes of an old one's."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final, Literal


class CallState(StrEnum):
    """Where a call stands."""

    SENDING = "sending"
    """Written before it is made; found by a later attempt it may or may not have arrived."""
    ACCEPTED = "accepted"
    """The provider took it and named it: it is asked for, never made again."""
    COMPLETED = "completed"
    """Its images came. Of a provider without ids they are gone with the attempt that got them."""
    REFUSED = "refused"
    """The provider would not do it, or was too busy: nothing was charged."""
    FAILED = "failed"
    """The provider took it and brought nothing that could be used."""
    UNKNOWN = "unknown"
    """Its answer got lost and the provider could not be asked: it may have been charged."""


CHARGED: Final = frozenset(CallState) - {CallState.REFUSED}
"""States of calls that cost something, or may have."""

_OPEN: Final = frozenset({CallState.SENDING, CallState.UNKNOWN})
FROM: Final[dict[CallState, frozenset[CallState]]] = {
    CallState.SENDING: frozenset(),
    CallState.ACCEPTED: _OPEN,
    CallState.COMPLETED: _OPEN | {CallState.ACCEPTED},
    CallState.REFUSED: _OPEN,
    CallState.FAILED: _OPEN | {CallState.ACCEPTED},
    CallState.UNKNOWN: frozenset({CallState.SENDING}),
}
"""For each state those that it may follow. A worker's answer that comes late still counts: what it says of a
call that another one gave up as unknown is kept; and what was answered is never given up."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What was bought of a provider for the same images of a job before.

    Attributes:
        purchases: calls that were charged, or may have been. Those that the provider takes for one count
            once, and not at all where the call that is to be made is the same one again.
        is_counted: whether the call that is to be made is one whose cost is counted already.
        max_attempts: the job's.
    """

    purchases: int
    is_counted: bool
    max_attempts: int


def may_buy(spent: Spent, *, ambiguous: Literal["retry", "fail"]) -> bool:
    """Whether one more call may be paid for.

    Attempts are no measure of it: those that meet an outage are free for the job, and may be hundreds.
    """
    return spent.purchases < (1 if ambiguous == "fail" else spent.max_attempts)


def settles_in(age: float, *, timeout: timedelta) -> timedelta | None:
    """Give how long a provider may still be at a call that it does not know; None: it never took it.

    Args:
        age: seconds since right before it was sent.
        timeout: of one HTTP exchange; whoever was cut off by it may be at it as long again.
    """
    left = 2 * timeout - timedelta(seconds=age)
    return left if left > timedelta(0) else None
