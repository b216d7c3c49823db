"""A provider that goes as far as a test lets it, a step at a time, and says when it was stopped."""

import threading
import time
from collections.abc import Iterator

from PIL import Image

from app.domain.spec import JobSpec
from app.errors import AttemptEnded
from workers.providers.base import Attempt, Inputs, Picture

_PAUSE = 0.01
_PATIENCE = 30.0


class Paced:
    """Draws flat pictures in `steps` steps; each waits for `step()`, looking if it must stop."""

    name = "paced"

    def __init__(self, *, steps: int = 4) -> None:
        self.steps = steps
        self.begun = threading.Event()
        self.stopped_at: float | None = None
        """When an attempt was told to stop, by the monotonic clock."""
        self.fails: list[Exception] = []
        """What the next attempts raise after their first step, in order."""
        self._allowed = threading.Semaphore(0)

    def step(self, count: int = 1) -> None:
        """Let it do some steps more."""
        self._allowed.release(count)

    def run_on(self) -> None:
        """Let it do all steps there can be."""
        self._allowed.release(10_000)

    def generate(self, spec: JobSpec, inputs: Inputs, attempt: Attempt) -> Iterator[Picture]:
        """Draw as the promise of every provider has it."""
        del inputs
        attempt.stage("loading")
        self.begun.set()
        failure = self.fails.pop(0) if self.fails else None
        for step in range(1, self.steps + 1):
            self._wait(attempt)
            if step == 1:
                attempt.stage("generating")
            attempt.step(step, self.steps)
            attempt.progress(step / self.steps)
            if failure is not None:
                raise failure
        for index in range(spec.num_images):
            yield Picture(image=Image.new("RGB", (spec.width, spec.height)), seed=spec.seed_of(index))

    def _wait(self, attempt: Attempt) -> None:
        end = time.monotonic() + _PATIENCE
        while not self._allowed.acquire(timeout=_PAUSE):
            assert time.monotonic() < end, "nobody let it do its next step"
            try:
                attempt.check()
            except AttemptEnded:
                self.stopped_at = time.monotonic()
                raise
