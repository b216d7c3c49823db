"""The promise every provider keeps; `tests/contracts/test_providers.py` holds each of them to it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from PIL import Image

from app.domain.spec import JobSpec


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image just drawn: no place in the store yet.

    Attributes:
        image: mode RGB or RGBA, exactly `spec.width` × `spec.height` pixels; of a transformation the size
            that `app.domain.transform.result_size` gives.
        seed: the seed that reproduces this image alone.
        notes: what the provider wants embedded beside prompt and seed, for instance which engine drew it.
    """

    image: Image.Image
    seed: int
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The decoded input images of a spec.

    Attributes:
        image: mode RGB, exactly `spec.width` × `spec.height`; None for text_to_image.
        mask_image: mode L of the same size, only values 0 (keep) and 255 (change); None unless inpaint.
        watermarks: mode RGB or RGBA, in the order of `spec.watermarks`; empty unless watermark.

    For a transformation `image` is the input as it is: its own size, mode RGB or RGBA.
    """

    image: Image.Image | None = None
    mask_image: Image.Image | None = None
    watermarks: tuple[Image.Image, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """How a provider talks to the runner while it works.

    Attributes:
        check: raises an `AttemptEnded` when the attempt must stop; call it at least once per step and
            never swallow what it raises.
        progress: takes the finished share of the whole job, 0.0 to 1.0.
        step: takes the step that is done, from 1, and how many there are, over all images of the job.
        stage: takes what is going on: `loading` while a model is brought into memory, then `generating`.
    """

    check: Callable[[], None]
    progress: Callable[[float], None]
    step: Callable[[int, int], None] = lambda _step, _steps: None
    stage: Callable[[str], None] = lambda _stage: None


class Provider(Protocol):
    """Who draws. One instance serves a whole process, from several threads at a time."""

    name: str

    def generate(self, spec: JobSpec, inputs: Inputs, attempt: Attempt) -> Iterator[Picture]:
        """Draw `spec.num_images` pictures, in order, each yielded as soon as it is ready.

        Guarantees: picture i carries `spec.seed_of(i)`; for inpaint every pixel whose mask is 0 equals the
        input image's; with strength 0 image_to_image returns the input image. The inputs are left as they
        were. A transformation yields one picture: what `spec.transform` makes of the image.

        Raises:
            ProviderDown: worth another attempt.
            ProviderRefused: this spec will never work.
            AttemptEnded: passed on from `attempt.check`.
        """
        ...
