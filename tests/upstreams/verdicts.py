"""What an adapter has to make of each mood: which errors in which order, how often paid, what is written.

The rules, of which every verdict is an instance:

* Whatever the vendor did not take is `refused` and costs nothing. A gateway's answer, or none, says nothing
  of that: the call stays `sending`; the next attempt asks (imgprocessing) or ends it as `unknown` and buys.
* A call that has an id is asked for until its pictures are there or the vendor says that there will be none
  (`failed`). It is never bought again while it may still bring them, so a bad picture is paid for once.
* openai has no ids: a picture that cannot be had was paid for, and is bought again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.upstreams.moods import Kind, Mood

LOST, AWAY, BUSY, DENIED, REFUSED, CONTENT, GONE = (
    "answer_lost",
    "provider_unavailable",
    "provider_busy",
    "provider_denied",
    "provider_refused",
    "content_refused",
    "call_lost",
)
"""Codes of errors."""
ATTEMPTS: Final = 3


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What must come of an order that meets a mood.

    Attributes:
        errors: codes of the attempts that failed, in order; after them comes one that yields the picture,
            unless these are all `ATTEMPTS`, or the last is not worth a repetition.
        paid: generations that the vendor bills.
        states: of the calls that were written down, in order.
        pause: seconds that the first error asks to wait, from and to; None: it does not say.
    """

    errors: tuple[str, ...] = ()
    paid: int = 1
    states: tuple[str, ...] = ("completed",)
    pause: tuple[float, float] | None = None


FINE: Final = Verdict()
_IN_VAIN: Final = (AWAY,) * ATTEMPTS
_ERRORS_IN_200: Final = frozenset({"error_in_200", "field_errors_in_200", "messege_in_200"})
_ITS_OWN_ERROR: Final = "error_in_200"
"""With a code by which the vendor says that it is not the order's fault."""
_HARMLESS: Final = frozenset(
    {"slow", "pending", "pending_float_eta", "flickering", "called_twice", "odd_types"}
)


def verdict(vendor: str, mood: Mood) -> Verdict:
    """Give what must come of one image ordered of this vendor, in this mood."""
    if vendor == "imgprocessing" and mood.kind is Kind.POLL:
        return _looked_for(mood)
    if mood.name in _HARMLESS:
        return FINE
    rule = _RULES.get((mood.stage, mood.kind), _odd_job if mood.stage == "job" else _bad_picture)
    return rule(vendor, mood)


def _lost(vendor: str, mood: Mood) -> Verdict:
    return _ambiguous(vendor, taken=mood.charges)


def _untold(_vendor: str, _mood: Mood) -> Verdict:
    return Verdict(errors=(LOST,))


def _unread(vendor: str, mood: Mood) -> Verdict:
    if vendor == "imgprocessing" and mood.name == "garbage":
        return Verdict(errors=(AWAY,))  # whole, and no picture
    return _not_fetched(vendor)


def _ambiguous(vendor: str, *, taken: bool) -> Verdict:
    if vendor == "imgprocessing":
        return Verdict(errors=(LOST,), states=("completed",) if taken else ("refused", "completed"))
    return Verdict(errors=(LOST,), paid=1 + taken, states=("unknown", "completed"))


def _looked_for(mood: Mood) -> Verdict:
    """imgprocessing is polled only for a call whose answer was lost; it stays so until the look succeeds."""
    if mood.name in _HARMLESS:
        return Verdict(errors=(LOST,))
    return Verdict(errors=(LOST, LOST if mood.stage == "wire" else _code(mood)))


def _code(mood: Mood) -> str:
    """The code of a vendor's plain refusal."""
    if mood.name.startswith("retry_after"):
        return BUSY
    return {
        "bad_gateway": LOST,
        "gateway_timeout": LOST,
        "bad_key": DENIED,
        "no_credit": DENIED,
        "quota_spent": DENIED,
        "no_model": REFUSED,
        "content_refused": CONTENT,
        "content_policy": CONTENT,
        **dict.fromkeys(_ERRORS_IN_200 - {_ITS_OWN_ERROR}, REFUSED),
    }.get(mood.name, AWAY)


def _not_taken(vendor: str, mood: Mood) -> Verdict:
    code = _code(mood)
    if code == LOST:
        return _lost(vendor, mood)
    if code in {REFUSED, CONTENT}:
        return Verdict(errors=(code,), paid=0, states=("refused",))
    return Verdict(errors=(code,), states=("refused", "completed"), pause=pause_of(vendor, mood))


def pause_of(vendor: str, mood: Mood) -> tuple[float, float] | None:
    """Give from and to how many seconds a 429 asks to wait, in whatever form the vendor has for that."""
    match mood.name:
        case "retry_after_seconds":
            return (1.0, 1.0)
        case "retry_after_date":
            return (0.5, 3.0)
        case "retry_after_absent" if vendor == "modelslab":
            return (1.0, 1.0)
        case "retry_after_absent" | "retry_after_absurd" if vendor == "realm":
            return (0.5, 2.0)
    return None


def _not_told(vendor: str, mood: Mood) -> Verdict:
    """A poll that is refused says nothing of the job, but that modelslab tells a job's failure like this."""
    if mood.name in _ERRORS_IN_200:
        return Verdict(errors=(GONE,), paid=2, states=("failed", "completed"))
    return Verdict(errors=(_code(mood),), pause=pause_of(vendor, mood))


def _not_fetched(vendor: str) -> Verdict:
    if vendor == "openai":
        return Verdict(errors=(AWAY,), paid=2, states=("failed", "completed"))
    return Verdict(errors=(LOST if vendor == "imgprocessing" else AWAY,))


def _not_handed_over(vendor: str, mood: Mood) -> Verdict:
    if vendor == "imgprocessing":
        if mood.name == "expired":
            return Verdict(errors=(GONE,), paid=2, states=("failed", "completed"))
        return Verdict(errors=(_code(mood),))
    if mood.name == "redirected":
        return FINE
    if mood.name == "expired":
        # Where there is an id, the vendor is asked for fresh links.
        lost = Verdict(errors=(GONE,), paid=2, states=("failed", "completed"))
        return lost if vendor == "openai" else FINE
    return _not_fetched(vendor)


def _odd_job(vendor: str, mood: Mood) -> Verdict:
    again = Verdict(errors=(AWAY,), paid=2, states=("failed", "completed"))
    match mood.name:
        case "lost" | "failed" | "failed_as_error":
            return Verdict(errors=(GONE,), paid=2, states=("failed", "completed"))
        case "unsafe":
            return Verdict(errors=(CONTENT,), states=("failed",))
        case "too_many_pictures":
            # What was paid for is taken; imgprocessing's two objects are no answer, and one is found.
            return _ambiguous(vendor, taken=True) if vendor == "imgprocessing" else FINE
        case "too_few_pictures" if vendor == "imgprocessing":
            # It answers nothing that can be read, and has no image of this name.
            return Verdict(errors=(LOST,), paid=2, states=("refused", "completed"))
    if vendor == "openai":
        return again
    return Verdict(errors=_IN_VAIN, states=("accepted",))


def _bad_picture(vendor: str, mood: Mood) -> Verdict:
    if mood.name == "slightly_wrong_size":
        return FINE  # it is resampled: vendors round sides to multiples of eight
    if vendor == "openai":
        return Verdict(errors=(AWAY,), paid=2, states=("failed", "completed"))
    if mood.kind is Kind.DOWNLOAD:
        return Verdict(errors=(AWAY,))
    return Verdict(errors=_IN_VAIN, states=("accepted",))


_RULES: Final[dict[tuple[str, Kind], Callable[[str, Mood], Verdict]]] = {
    ("wire", Kind.SUBMIT): _lost,
    ("wire", Kind.POLL): _untold,
    ("wire", Kind.DOWNLOAD): _unread,
    ("instead", Kind.SUBMIT): _not_taken,
    ("instead", Kind.POLL): _not_told,
    ("instead", Kind.DOWNLOAD): _not_handed_over,
}
