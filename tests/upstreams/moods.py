"""The ways in which a fake upstream misbehaves, each a value with a name and one line that says what it does.

A mood belongs to a stage, and the stage says what has happened at the vendor's when the customer notices:

* `instead`: the vendor did nothing and answers this; nothing is charged, unless `.charging()` was asked for.
* `wire`: the vendor did its work and charged for it, and its answer is lost or mangled on the way.
* `job`: the vendor took the order and charged for it, and what became of it is odd.
* `picture`: all went well, and the bytes of the picture are not what they should be.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Literal

VENDORS: Final = ("modelslab", "imgprocessing", "realm", "openai")


class Kind(StrEnum):
    """What a request is about."""

    SUBMIT = "submit"
    """Asks for pictures: the kind that costs money."""
    POLL = "poll"
    """Asks how a job goes, or for what the account has."""
    DOWNLOAD = "download"
    """Asks for a picture's bytes."""
    OTHER = "other"
    """Anything else: uploads, deletions, lists of models. No mood strikes it."""


class Trouble(StrEnum):
    """What a vendor refuses with; each vendor has its own status and words for it."""

    BAD_KEY = "bad key"
    NO_CREDIT = "no credit"
    NO_MODEL = "no such model"
    TOO_MANY = "too many requests"
    CONTENT = "content refused"
    BROKEN = "internal error"
    AWAY = "unavailable"


@dataclass(frozen=True, kw_only=True)
class Mood:
    """One way to misbehave.

    Attributes:
        name: unique among `MOODS`.
        says: what the customer meets, in one line.
        stage: see the module.
        strikes: the kinds of request that it can strike.
        kind: the one that it does strike; change it with `on`.
        vendors: who can have it.
        needs_url: whether it can only be met where the vendor answers with a URL, not with base64.
        charges: whether a generation is charged when it strikes a submit.
        seconds: how long it waits, or what it says in Retry-After.
        polls: how many polls are answered "processing".
        status: the HTTP status, of those moods that have a choice.
    """

    name: str
    says: str
    stage: Literal["instead", "wire", "job", "picture"]
    strikes: tuple[Kind, ...]
    kind: Kind
    vendors: tuple[str, ...] = VENDORS
    needs_url: bool = False
    charges: bool = True
    seconds: float = 0.0
    polls: int = 0
    status: int = 0
    trouble: Trouble | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.name}@{self.kind}"

    def applies_to(self, vendor: str, kind: Kind | None = None) -> bool:
        """Whether this vendor can have it, in requests of this kind (None: of the mood's own)."""
        kind = kind or self.kind
        return vendor in self.vendors and kind in self.strikes and kind in KINDS_OF[vendor]

    def on(self, kind: Kind) -> "Mood":
        """Give the same mood for another kind of request; AssertionError when it cannot strike that."""
        assert kind in self.strikes, f"{self.name} never strikes a {kind}"
        return replace(self, kind=kind)

    def charging(self, charges: bool = True) -> "Mood":  # noqa: FBT001, FBT002  # reads as a sentence
        """Give the same mood where the vendor does (not) charge before it strikes a submit."""
        assert self.stage == "instead" or self.name in {"hang", "reset"}
        return replace(self, charges=charges)

    def lasting(self, seconds: float) -> "Mood":
        """Give the same mood with another wait, or another Retry-After."""
        return replace(self, seconds=seconds)

    def for_polls(self, polls: int) -> "Mood":
        """Give the same mood with another number of polls that are answered "processing"."""
        return replace(self, polls=polls)

    def with_status(self, status: int) -> "Mood":
        """Give the same mood with another HTTP status."""
        return replace(self, status=status)


KINDS_OF: Final = {
    "modelslab": (Kind.SUBMIT, Kind.POLL, Kind.DOWNLOAD),
    "imgprocessing": (Kind.SUBMIT, Kind.POLL, Kind.DOWNLOAD),
    "realm": (Kind.SUBMIT, Kind.POLL, Kind.DOWNLOAD),
    "openai": (Kind.SUBMIT, Kind.DOWNLOAD),
}
"""Which kinds of request each vendor has; of imgprocessing a poll is a look at an image or the list."""

_S, _P, _D = (Kind.SUBMIT,), (Kind.POLL,), (Kind.DOWNLOAD,)
_ANY = _S + _P + _D
_QUEUED = ("modelslab", "realm")
_LINKED = ("modelslab", "realm", "openai")


def _instead(name: str, says: str, **more: object) -> Mood:
    return _mood(name, says, "instead", {"strikes": _S + _P, "charges": False, **more})


def _wire(name: str, says: str, **more: object) -> Mood:
    return _mood(name, says, "wire", {"strikes": _ANY, **more})


def _job(name: str, says: str, **more: object) -> Mood:
    return _mood(name, says, "job", {"strikes": _S, **more})


def _picture(name: str, says: str, **more: object) -> Mood:
    return _mood(name, says, "picture", {"strikes": _S + _D, **more})


def _mood(name: str, says: str, stage: str, more: dict[str, object]) -> Mood:
    strikes = more["strikes"]
    assert isinstance(strikes, tuple)
    return Mood(name=name, says=says, stage=stage, kind=strikes[0], **more)  # type: ignore[arg-type]  # fields by name


# --- wire: the work is done and charged, the answer suffers -------------------------------------------------
SLOW = _wire("slow", "The whole answer comes `seconds` late.", seconds=0.5)
HANG = _wire("hang", "Accepts the request and never answers, until the client goes or the server ends.")
SLOW_DRIP = _wire(
    "slow_drip", "The body comes byte by byte, `seconds` apart, so no read ever times out.", seconds=0.02
)
RESET = _wire("reset", "The connection is reset without an answer: on a submit, the ambiguous one.")
CUT = _wire("cut", "The answer promises its full length and the connection ends in the middle of it.")
GARBAGE = _wire("garbage", "200 with a JSON content type and bytes that are nothing.")
TRUNCATED_JSON = _wire(
    "truncated_json", "200 with the first half of the JSON, as if that were all.", strikes=_S + _P
)
DEEP_JSON = _wire("deep_json", "200 with valid JSON, a hundred thousand lists deep.", strikes=_S + _P)
WRONG_JSON = _wire("wrong_json", "200 with valid JSON of no known form: a list.", strikes=_S + _P)
ENDLESS = _wire("endless", "200 and a body that does not end (cut off at 256 MiB).")
HTML_200 = _wire("html_200", "200 with an HTML page where JSON was promised.", strikes=_S + _P)

# --- instead: the vendor did nothing ------------------------------------------------------------------------
REFUSE_CONNECTION = _instead(
    "refuse_connection", "Nobody listens: down at once, up again after `seconds`.", strikes=_S, seconds=0.5
)
RETRY_AFTER_SECONDS = _instead(
    "retry_after_seconds", "429 with Retry-After in seconds.", seconds=1, trouble=Trouble.TOO_MANY
)
RETRY_AFTER_DATE = _instead(
    "retry_after_date", "429 with Retry-After as an HTTP date.", seconds=2, trouble=Trouble.TOO_MANY
)
RETRY_AFTER_ABSENT = _instead(
    "retry_after_absent",
    "429 as the vendor has it, without the header: modelslab says retry_after in the body.",
    seconds=1,
    trouble=Trouble.TOO_MANY,
)
RETRY_AFTER_ABSURD = _instead(
    "retry_after_absurd", "429 with a Retry-After that is no number and no date.", trouble=Trouble.TOO_MANY
)
SERVER_ERROR = _instead("server_error", "500 in the vendor's form.", strikes=_ANY, trouble=Trouble.BROKEN)
BAD_GATEWAY = _instead(
    "bad_gateway", "502 with an HTML page of the vendor's proxy.", strikes=_ANY, status=502
)
UNAVAILABLE = _instead(
    "unavailable",
    "503 in the vendor's form; with Retry-After where it is `.lasting()`.",
    strikes=_ANY,
    trouble=Trouble.AWAY,
)
GATEWAY_TIMEOUT = _instead(
    "gateway_timeout", "504 with an HTML page, the work done and charged behind it.", status=504, charges=True
)
BAD_KEY = _instead("bad_key", "401: the key is refused.", trouble=Trouble.BAD_KEY)
NO_CREDIT = _instead(
    "no_credit", "402: the account has no credit left.", strikes=_S, trouble=Trouble.NO_CREDIT
)
QUOTA_SPENT = _instead(
    "quota_spent", "429 insufficient_quota: no wait will help.", strikes=_S, vendors=("openai",)
)
NO_MODEL = _instead(
    "no_model", "The model is unknown: 404, or the vendor's 400.", strikes=_S, trouble=Trouble.NO_MODEL
)
CONTENT_REFUSED = _instead(
    "content_refused",
    "The prompt is refused for its content: openai 400 moderation_blocked, imgprocessing 400.",
    strikes=_S,
    vendors=("openai", "imgprocessing"),
    trouble=Trouble.CONTENT,
)
CONTENT_POLICY = _instead(
    "content_policy", "The older spelling: 400 content_policy_violation.", strikes=_S, vendors=("openai",)
)
ERROR_IN_200 = _instead(
    "error_in_200", "200 with status error, no id, a string as message.", vendors=("modelslab",)
)
FIELD_ERRORS_IN_200 = _instead(
    "field_errors_in_200", "200 with status error and an object of arrays as message.", vendors=("modelslab",)
)
MESSEGE_IN_200 = _instead(
    "messege_in_200", "200 with status error and the message under `messege`.", vendors=("modelslab",)
)
EXPIRED = _instead(
    "expired", "The picture is gone: 404, or another `status` (403, 410).", strikes=_D, status=404
)
REDIRECTED = _instead(
    "redirected", "302 to where the picture now is, on the same server.", strikes=_D, status=302
)
REDIRECTED_INSIDE = _instead(
    "redirected_inside",
    "307 to another port of loopback that would answer with a picture, and must not be asked.",
    strikes=_D + _S + _P,
    status=307,
)

# --- job: taken and charged, then odd -----------------------------------------------------------------------
PENDING = _job("pending", "Processing for `polls` polls (eta an int), then done.", vendors=_QUEUED, polls=2)
PENDING_FLOAT_ETA = _job(
    "pending_float_eta", "The same with an eta like 1.07.", vendors=("modelslab",), polls=1
)
STUCK = _job("stuck", "Processing for ever, or until `finish_all`.", vendors=_QUEUED, polls=-1)
LOST = _job("lost", "The submit is accepted; every poll says that there is no such job.", vendors=_QUEUED)
FAILED = _job("failed", "The submit is accepted; the job ends as failed.", vendors=_QUEUED)
FAILED_AS_ERROR = _job(
    "failed_as_error", "The same, and the poll says `error` in place of `failed`.", vendors=("modelslab",)
)
FLICKERING = _job(
    "flickering", "The first poll says done, the second processing again, then done.", vendors=_QUEUED
)
CALLED_TWICE = _job(
    "called_twice", "The webhook, if the order names one, comes twice.", vendors=("modelslab",)
)
TOO_FEW_PICTURES = _job("too_few_pictures", "One picture less than ordered; none where one was ordered.")
TOO_MANY_PICTURES = _job("too_many_pictures", "One picture more than ordered.")
ODD_TYPES = _job("odd_types", "Unknown members, ids and numbers as text, whole numbers as floats.")
UNSAFE = _job(
    "unsafe",
    "Flagged: modelslab blanks the picture and says nsfw_content_detected, realm's job fails.",
    vendors=_QUEUED,
)
METADATA_URL = _job(
    "metadata_url", "The picture's URL is at 169.254.169.254.", vendors=_LINKED, needs_url=True
)
LOOPBACK_URL = _job(
    "loopback_url",
    "The picture's URL is on another port of loopback that would answer with a picture.",
    vendors=_LINKED,
    needs_url=True,
)
FILE_URL = _job("file_url", "The picture's URL is file:///etc/hostname.", vendors=_LINKED, needs_url=True)

# --- picture: the bytes are wrong ---------------------------------------------------------------------------
TRUNCATED_IMAGE = _picture("truncated_image", "The first half of the picture, as if that were all.")
HTML_AS_IMAGE = _picture("html_as_image", "200 with an HTML page for a picture, labelled text/html.")
HTML_LABELLED_PNG = _picture("html_labelled_png", "The same page, labelled image/png.")
EMPTY_IMAGE = _picture("empty_image", "200 with no bytes at all.")
SLIGHTLY_WRONG_SIZE = _picture("slightly_wrong_size", "A picture eight pixels wider than ordered.")
ABSURDLY_WRONG_SIZE = _picture("absurdly_wrong_size", "A picture of 3 × 2 pixels.")
BOMB = _picture("bomb", "A PNG of some 60 kB that says, and is, 20,000 × 20,000 pixels.")
SVG = _picture("svg", "An SVG document for a picture.")
JUNK_IMAGE = _picture("junk_image", "Bytes with a PNG signature and nothing behind it that makes sense.")

MOODS: Final = tuple(value for value in list(globals().values()) if isinstance(value, Mood))
"""All of them, as defined above."""


def cases(*stages: str) -> list[tuple[str, Mood]]:
    """Give every vendor with every mood (of these stages) on every kind of request that it can strike.

    Made for `pytest.mark.parametrize(("vendor", "mood"), cases(), ids=str)`.
    """
    return [
        (vendor, mood.on(kind))
        for vendor in VENDORS
        for mood in MOODS
        for kind in mood.strikes
        if mood.applies_to(vendor, kind) and mood.stage in (stages or mood.stage)
    ]
