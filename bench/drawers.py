"""Providers that draw nothing worth looking at, and take no or a known time for it."""

import threading
import time
from collections.abc import Iterator
from typing import Final

from PIL import Image

from app.domain.spec import JobSpec
from workers.providers.base import Attempt, Inputs, Picture

COMPUTE_SECONDS: Final = 0.060
"""What `Timed` takes per image: a fast model on a fast card."""


class Pixel:
    """Images of one colour in the size asked for: everything around the drawing is real."""

    name = "bench_pixel"

    def generate(self, spec: JobSpec, inputs: Inputs, attempt: Attempt) -> Iterator[Picture]:  # noqa: ARG002 - the promise
        """Yield `spec.num_images` images."""
        for index in range(spec.num_images):
            attempt.check()
            image = Image.new("RGB", (spec.width, spec.height), (40, 60, 90))
            yield Picture(image=image, seed=spec.seed_of(index))


class Nothing:
    """No image at all, against the promise of providers: leaves only what the job's own rows cost."""

    name = "bench_nothing"

    def generate(self, spec: JobSpec, inputs: Inputs, attempt: Attempt) -> Iterator[Picture]:  # noqa: ARG002 - the promise
        """Yield nothing."""
        attempt.check()
        yield from ()


class Timed:
    """The same picture again and again, each after a sleep that stands for a GPU's work."""

    name = "bench_timed"

    def __init__(self, picture: Image.Image) -> None:
        self._picture = picture
        self._gpu = threading.Lock()

    def generate(self, spec: JobSpec, inputs: Inputs, attempt: Attempt) -> Iterator[Picture]:  # noqa: ARG002 - the promise
        """Yield `spec.num_images` images, one per 60 ms."""
        for index in range(spec.num_images):
            attempt.check()
            with self._gpu:
                time.sleep(COMPUTE_SECONDS)
            yield Picture(image=self._picture.copy(), seed=spec.seed_of(index))
