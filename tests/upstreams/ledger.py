"""What a fake upstream wrote down: every request, every charge, every deletion. Thread-safe."""

import threading
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.upstreams.moods import Kind


@dataclass(kw_only=True)
class Call:
    """One request as it came in.

    Attributes:
        number: from 1, in order of arrival.
        path: without the query.
        query: the last value of each name.
        headers: names in lower case.
        body: the parsed JSON; of a form a dict of its fields, a file as `Upload`; None when there was none,
            and the bytes where they could not be parsed.
        at: `time.monotonic()` of the arrival.
        when: the same as a date, UTC.
        mood: the name of the mood that struck it.
        status: what was answered; None while it is under way, and where nothing was.
    """

    number: int
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    kind: Kind
    at: float
    when: datetime
    mood: str | None = None
    status: int | None = None


@dataclass(frozen=True, kw_only=True)
class Charge:
    """One generation that the vendor bills, whatever became of the answer.

    Attributes:
        id: the vendor's id of the job or image, as text; openai has none to tell, so it is the request's.
        operation: `text_to_image`, `image_to_image` or `inpaint`.
        seed: the one drawn with: the order's, or the one the vendor chose.
        images: how many were ordered.
        at: `time.monotonic()` of the charge.
    """

    id: str
    operation: str
    prompt: str
    seed: int
    width: int
    height: int
    images: int
    idempotency_key: str | None
    at: float


@dataclass
class Ledger:
    """All that was written down."""

    calls: list[Call] = field(default_factory=list)
    charged: list[Charge] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    """Ids of pictures or jobs that somebody deleted, as text."""
    trespasses: list[Call] = field(default_factory=list)
    """Requests to the port that nobody had any business to ask."""
    breakages: list[str] = field(default_factory=list)
    """Tracebacks of the fake itself; the context raises when there are any."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, kind: Kind) -> list[Call]:
        """Give the calls of one kind, in order."""
        with self.lock:
            return [call for call in self.calls if call.kind is kind]


class Told:
    """The ledger as tests read it."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    @property
    def calls(self) -> list[Call]:
        """All requests, in order of arrival: also refused ones."""
        with self.ledger.lock:
            return list(self.ledger.calls)

    @property
    def charged(self) -> list[Charge]:
        """All generations that are billed."""
        with self.ledger.lock:
            return list(self.ledger.charged)

    @property
    def submits(self) -> list[Call]:
        """Requests for pictures."""
        return self.ledger.of(Kind.SUBMIT)

    @property
    def polls(self) -> list[Call]:
        """Requests for how a job goes."""
        return self.ledger.of(Kind.POLL)

    @property
    def downloads(self) -> list[Call]:
        """Requests for a picture's bytes."""
        return self.ledger.of(Kind.DOWNLOAD)

    @property
    def deleted(self) -> list[str]:
        """Ids of what was deleted at the vendor's."""
        with self.ledger.lock:
            return list(self.ledger.deleted)

    @property
    def trespasses(self) -> list[Call]:
        """Requests to `elsewhere_url`."""
        with self.ledger.lock:
            return list(self.ledger.trespasses)
