"""A provider that draws several jobs in one call, keeps `BatchProvider`'s promise, and needs no weights."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from PIL import Image

from app.domain.spec import JobSpec
from app.errors import AttemptEnded, DarkroomError
from workers.providers.base import Attempt, Inputs, Picture, Share

_SLICE = 0.02


@dataclass
class Platen:
    """Draws flat colours, up to `rows` images in a call, and writes down every call.

    Attributes:
        before: called in each call, before its images are drawn, with its shares.
        calls: prompts of each call, in order.
        busy: held while a call is under way; a test may hold it to let a queue form.
    """

    rows: int = 8
    before: Callable[[Sequence[Share]], None] = lambda _shares: None
    loaded: list[str] = field(default_factory=list)
    calls: list[list[str]] = field(default_factory=list)
    busy: threading.Lock = field(default_factory=threading.Lock)
    name: str = "platen"

    @contextmanager
    def turn(self, attempt: Attempt) -> Iterator[None]:
        while not self.busy.acquire(timeout=_SLICE):
            attempt.check()
        try:
            yield
        finally:
            self.busy.release()

    def room(self, spec: JobSpec, model: str) -> int:
        del spec, model
        return self.rows

    def warm(self, model: str) -> None:
        with self.busy:
            self.loaded.insert(0, model)

    def warm_models(self) -> list[str]:
        return self.loaded

    def generate(self, spec: JobSpec, inputs: Inputs, attempt: Attempt) -> Iterator[Picture]:
        with self.turn(attempt):
            (drawn,) = self.draw_together([Share(spec=spec, inputs=inputs, attempt=attempt)])
        if isinstance(drawn, DarkroomError):
            raise drawn
        yield from drawn

    def draw_together(self, shares: Sequence[Share]) -> list[list[Picture] | DarkroomError]:
        self.calls.append([share.spec.prompt for share in shares])
        self.before(shares)
        return [self._drawn(share) for share in shares]

    def _drawn(self, share: Share) -> list[Picture] | DarkroomError:
        try:
            share.attempt.check()
        except AttemptEnded as ended:
            return ended
        share.attempt.step(1, 1)
        spec = share.spec
        return [
            Picture(
                image=Image.new("RGB", (spec.width, spec.height), (spec.seed_of(index) % 251, index, 9)),
                seed=spec.seed_of(index),
            )
            for index in range(spec.num_images)
        ]
