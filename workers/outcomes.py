"""How an attempt can end, and what an error makes of it."""

import traceback
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from app.db.jobs import Claim, Place
from app.domain.job import Reason, is_charged, may_retry
from app.errors import (
    AttemptEnded,
    CancelRequested,
    DarkroomError,
    DeadlineExceeded,
    Deferred,
    DeviceBroken,
    ProviderError,
    Unavailable,
)
from workers.finishing import Stored

_LONGEST_TRACEBACK: Final = 8000


class Kind(StrEnum):
    """How an attempt can end."""

    COMPLETED = "completed"
    RETRY = "retry"
    FAILED = "failed"
    CANCELLED = "cancelled"
    GONE = "gone"
    """The row is somebody else's by now: given back, rescued, or settled by a successor."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt ended, with everything the settle needs.

    Attributes:
        error: why it did not complete.
        detail: kept with the event.
        reason: of a retry: how the event calls it.
        charged: whether the attempt counts against the job's `max_attempts`.
        move: where the job is drawn next; None: where it was.
        alone: whether it is not to be drawn together with others any more.
    """

    kind: Kind
    stored: tuple[Stored, ...] = ()
    error: DarkroomError | None = None
    detail: dict[str, object] = field(default_factory=dict)
    reason: Reason = Reason.RETRY
    charged: bool = True
    move: Place | None = None
    alone: bool = False


def outcome_of(claim: Claim, error: Exception, *, shared: bool = False) -> Outcome:
    """Give what an error makes of an attempt, but for a move to another target.

    Args:
        shared: whether others were drawn in the same call. An error that nobody foresaw then ends nobody's
            job: each is repeated alone, and the one that brings it about fails alone. A device that broke
            is foreseen, but may be one job's doing as well.
    """
    match error:
        case CancelRequested():
            return Outcome(kind=Kind.CANCELLED, error=error)
        case DeadlineExceeded():
            return Outcome(kind=Kind.FAILED, error=error)
        case AttemptEnded():
            return Outcome(kind=Kind.GONE, error=error)
        case Deferred():
            return Outcome(kind=Kind.RETRY, error=error, reason=Reason.DEFERRED, charged=False)
        case DarkroomError():
            charged = _is_charged(claim, error)
            failures = claim.failures + charged
            retry = may_retry(retryable=error.retryable, failures=failures, max_attempts=claim.max_attempts)
            return Outcome(
                kind=Kind.RETRY if retry else Kind.FAILED,
                error=error,
                charged=charged,
                alone=shared and isinstance(error, DeviceBroken),
            )
    unknown = DarkroomError("Something in Darkroom went wrong; the operator finds it under this job's id.")
    trace = "".join(traceback.format_exception(error))[-_LONGEST_TRACEBACK:]
    return Outcome(
        kind=Kind.RETRY if shared else Kind.FAILED,
        error=unknown,
        detail={"traceback": trace},
        alone=shared,
    )


def _is_charged(claim: Claim, error: DarkroomError) -> bool:
    not_the_jobs_fault = isinstance(error, Unavailable) or (
        isinstance(error, ProviderError) and not getattr(error, "charged", True)
    )
    return is_charged(ours_is_away=not_the_jobs_fault, attempt=claim.attempt)


def told(error: DarkroomError) -> dict[str, object]:
    """Give what an event keeps of an error, for the admin who reads it."""
    return {"error_code": error.code, "error_message": error.message}
