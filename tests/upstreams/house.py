"""What all fake vendors have in common: jobs, pictures, prices, and how a picture is fetched."""

import itertools
import random
import secrets
import threading
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from math import ceil
from typing import Any, Final
from urllib.parse import urlsplit

from PIL import Image

from tests.upstreams import pictures
from tests.upstreams.ledger import Charge, Ledger
from tests.upstreams.moods import Kind, Mood, Trouble
from tests.upstreams.wire import Answer, Request

FILES: Final = "/files/"
METADATA: Final = "http://169.254.169.254/latest/meta-data/iam/security-credentials/"


class Refused(Exception):
    """The vendor does not take a request; carries its answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@dataclass(frozen=True, kw_only=True)
class Order:
    """Pictures somebody asks for, in no vendor's words."""

    prompt: str
    width: int
    height: int
    seed: int | None = None
    """None: the vendor chooses."""
    count: int = 1
    image: Image.Image | None = field(default=None, repr=False)
    mask: Image.Image | None = field(default=None, repr=False)
    """White where to change, whatever the vendor's own convention."""
    strength: float = 1.0
    form: str = "png"

    @property
    def operation(self) -> str:
        """What is asked for."""
        if self.image is None:
            return "text_to_image"
        return "image_to_image" if self.mask is None else "inpaint"


@dataclass(kw_only=True)
class Job:
    """An order that was taken and charged.

    Attributes:
        polls_left: how many more polls are answered "processing"; negative: all.
        polls: how many there were.
        names: the names of its pictures under `FILES`.
    """

    id: str
    order: Order
    seed: int
    created: datetime
    mood: Mood | None
    polls_left: int = 0
    polls: int = 0
    names: list[str] = field(default_factory=list)
    images: list[tuple[bytes, str]] = field(default_factory=list, repr=False)
    """Bytes and content type of each picture."""
    extra: dict[str, Any] = field(default_factory=dict)

    def has(self, *moods: str) -> bool:
        """Whether one of these moods lies on it."""
        return self.mood is not None and self.mood.name in moods

    @property
    def ready(self) -> bool:
        """Whether its pictures can be fetched."""
        return self.polls_left == 0 and not self.has("lost", "failed", "failed_as_error")


class House:
    """State of one vendor: thread-safe."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.base_url = ""
        self.elsewhere = ""
        """The base URL of the port that nobody has any business to ask."""
        self.jobs: dict[str, Job] = {}
        self.files: dict[str, Job] = {}
        self.inline_images = True
        self.queue_limit: int | None = None
        self.lock = threading.Lock()
        self._numbers = itertools.count(random.SystemRandom().randrange(10**8, 2 * 10**8))

    def number(self) -> int:
        """Give a number that was not given before."""
        return next(self._numbers)

    def take(self, order: Order, request: Request, mood: Mood | None, *, id_: str, stem: str) -> Job:
        """Charge an order, draw it and keep it under `id_`; its files are called `stem` with an index."""
        count = order.count
        if mood is not None and mood.stage == "job":
            count += {"too_few_pictures": -1, "too_many_pictures": 1}.get(mood.name, 0)
        seed = random.SystemRandom().randrange(2**31) if order.seed is None else order.seed
        self._charge(order, request, id_, seed)
        job = Job(id=id_, order=order, seed=seed, created=datetime.now(UTC), mood=mood)
        job.polls_left = mood.polls if mood is not None and mood.stage == "job" else 0
        job.images = [_drawn(order, seed, index, mood) for index in range(count)]
        suffix = "jpg" if order.form == "jpeg" else order.form
        job.names = [f"{stem}-{index}.{suffix}" for index in range(count)]
        with self.lock:
            self.jobs[id_] = job
            self.files.update(dict.fromkeys(job.names, job))
        return job

    def unfinished(self) -> int:
        """Give how many jobs are in the queue."""
        with self.lock:
            return sum(job.polls_left != 0 for job in self.jobs.values())

    def poll(self, id_: str) -> tuple[Job | None, str]:
        """Count a poll; give the job and `unknown`, `processing`, `failed` or `done`."""
        with self.lock:
            job = self.jobs.get(id_)
            if job is None or job.has("lost"):
                return None, "unknown"
            job.polls += 1
            if job.polls_left:
                job.polls_left -= job.polls_left > 0
                return job, "processing"
            if job.has("failed", "failed_as_error"):
                return job, "failed"
            return job, "processing" if job.has("flickering") and job.polls == 2 else "done"

    def finish_all(self) -> None:
        """End the wait of all jobs."""
        with self.lock:
            for job in self.jobs.values():
                job.polls_left = 0

    def urls(self, job: Job) -> list[str]:
        """Give where the pictures are, or where the job's mood says they are."""
        if job.has("metadata_url"):
            return [METADATA for _ in job.names]
        if job.has("file_url"):
            return ["file:///etc/hostname" for _ in job.names]
        base = self.elsewhere if job.has("loopback_url") else self.base_url
        return [f"{base}{FILES}{name}" for name in job.names]

    def file(self, request: Request) -> Answer:
        """Answer a request for a picture as a bucket does: no key is asked for."""
        name = request.path.removeprefix(FILES)
        with self.lock:
            job = self.files.get(name)
        if job is None or not job.ready or name not in job.names:
            return Answer(
                status=404,
                headers={"Content-Type": "application/xml"},
                body=b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>",
            )
        data, content_type = job.images[job.names.index(name)]
        return Answer(headers={"Content-Type": content_type}, body=data)

    def keep(self, name: str, data: bytes, content_type: str) -> str:
        """Keep an uploaded file and give its URL."""
        order = Order(prompt="", width=0, height=0)
        job = Job(id=name, order=order, seed=0, created=datetime.now(UTC), mood=None)
        job.names, job.images = [f"{name}.{content_type.removeprefix('image/')}"], [(data, content_type)]
        with self.lock:
            self.files[job.names[0]] = job
        return self.urls(job)[0]

    def fetch(self, text: str) -> Image.Image:
        """Give the image behind a URL on loopback, a data URI or base64; ValueError when there is none."""
        if not text.startswith(("http://", "https://")):
            if not self.inline_images:
                raise ValueError("not a URL")
            return pictures.decode(pictures.from_text(text))
        if urlsplit(text).hostname not in {"127.0.0.1", "localhost"}:
            raise ValueError("not on loopback")
        try:
            with urllib.request.urlopen(text, timeout=5) as answer:  # noqa: S310  # http, on loopback
                return pictures.decode(answer.read())
        except (urllib.error.URLError, OSError) as error:
            raise ValueError(str(error)) from error

    def _charge(self, order: Order, request: Request, id_: str, seed: int) -> None:
        charge = Charge(
            id=id_,
            operation=order.operation,
            prompt=order.prompt,
            seed=seed,
            width=order.width,
            height=order.height,
            images=order.count,
            idempotency_key=request.headers.get("idempotency-key"),
            at=time.monotonic(),
        )
        with self.ledger.lock:
            self.ledger.charged.append(charge)


def _drawn(order: Order, seed: int, index: int, mood: Mood | None) -> tuple[bytes, str]:
    data, content_type = _encoded(order, seed, index), f"image/{order.form}"
    if mood is not None and mood.stage == "picture":
        return pictures.spoil(mood.name, data, content_type)
    return data, content_type


def _encoded(order: Order, seed: int, index: int) -> bytes:
    size = {"width": order.width, "height": order.height}
    if order.image is None:
        return pictures.drawn(order.prompt, seed=seed, index=index, form=order.form, **size)
    drawing = pictures.draw(order.prompt, seed=seed, index=index, **size)
    changed = pictures.rework(order.image, drawing, strength=order.strength, mask=order.mask)
    return pictures.encode(changed, order.form)


class Vendor(ABC):
    """One vendor's words for everything."""

    troubles: dict[Trouble, tuple[int, str, str]]
    """Status, code and message of each."""

    def __init__(self, house: House, *, key: str) -> None:
        self.house = house
        self.key = key

    @abstractmethod
    def kind_of(self, request: Request) -> Kind:
        """Tell what a request is about."""

    @abstractmethod
    def answer(self, request: Request, mood: Mood | None) -> Answer:
        """Answer a request, with a mood of stage `job` or `picture` on a submit.

        Raises:
            Refused: it is not taken.
        """

    @abstractmethod
    def error(self, status: int, code: str, message: str, *, field: str | None = None) -> Answer:
        """Give an error in the vendor's form."""

    def refuse(self, trouble: Trouble) -> Answer:
        """Give the vendor's answer to a trouble."""
        return self.error(*self.troubles[trouble])

    def limited(self, mood: str, seconds: float) -> Answer:
        """Give a 429 with Retry-After as the mood has it."""
        answer = self.refuse(Trouble.TOO_MANY)
        match mood:
            case "retry_after_seconds":
                return answer.having(Retry_After=str(max(ceil(seconds), 0)))
            case "retry_after_date":
                # An HTTP date has no fractions: up, so that nobody is told to come too early.
                end = datetime.fromtimestamp(ceil(time.time() + seconds), UTC)
                return answer.having(Retry_After=format_datetime(end, usegmt=True))
            case "retry_after_absurd":
                return answer.having(Retry_After="soon, perhaps")
        return answer

    def own_error(self, mood: str) -> Answer:
        """Give the answer to a mood that this vendor alone has."""
        raise AssertionError(mood)

    def dress(self, answer: Answer) -> Answer:
        """Add the headers that all of the vendor's own answers have."""
        return answer

    def bad(self, message: str, *, field: str | None = None, code: str = "invalid_value") -> Refused:
        """Give the refusal of a request that is not right."""
        return Refused(self.error(400, code, message, field=field))


def token(alphabet: str = "abcdefghijklmnopqrstuvwxyz0123456789", length: int = 24) -> str:
    """Give a random text."""
    return "".join(secrets.choice(alphabet) for _ in range(length))
