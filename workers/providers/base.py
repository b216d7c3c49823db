"""The promise every provider keeps; `tests/contracts/test_providers.py` holds each of them to it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable
from uuid import UUID

from PIL import Image

from app.domain.spec import JobSpec
from app.errors import DarkroomError


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


_NO_JOB: Final = UUID(int=0)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """How a provider talks to the runner while it works.

    Attributes:
        check: raises an `AttemptEnded` when the attempt must stop; call it at least once per step and
            never swallow what it raises.
        progress: takes the finished share of the whole job, 0.0 to 1.0.
        step: takes the step that is done, from 1, and how many there are, over all images of the job.
        stage: takes what is going on: `loading` while a model is brought into memory, then `generating`.
        warn: takes a sentence for the customer about a parameter that was changed or has no effect; said
            twice it is told once.
        note: takes what an admin may want to know of this attempt, a name and a JSON value; kept with the
            event that ends it.
        paying: entered around a call that may cost money: a worker that is drained meanwhile gives the job
            back only afterwards, when it is known what came of the call.
        model: the provider's own name for the model: the chosen target's.
        job_id: the job; with `number` it makes a reference that no other attempt has.
        number: the attempt's, from 1.
    """

    check: Callable[[], None]
    progress: Callable[[float], None]
    step: Callable[[int, int], None] = lambda _step, _steps: None
    stage: Callable[[str], None] = lambda _stage: None
    warn: Callable[[str], None] = lambda _sentence: None
    note: Callable[[str, object], None] = lambda _name, _value: None
    paying: Callable[[], AbstractContextManager[object]] = nullcontext
    model: str = ""
    job_id: UUID = _NO_JOB
    number: int = 1


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


@dataclass(frozen=True, kw_only=True)
class Share:
    """One job's part of a batch."""

    spec: JobSpec
    inputs: Inputs
    attempt: Attempt


@runtime_checkable
class BatchProvider(Provider, Protocol):
    """A provider that draws several jobs of one batch key in one call.

    It has one device, and one thread at a time uses it: whoever is in `turn()`.
    """

    def turn(self, attempt: Attempt) -> AbstractContextManager[None]:
        """Wait for the device, and have it until the context ends; `attempt.check` is asked meanwhile.

        Raises:
            AttemptEnded: passed on from `attempt.check`.
        """
        ...

    def room(self, spec: JobSpec, model: str) -> int:
        """Give how many images of this spec's shape one call draws at most, as far as is known by now."""
        ...

    def draw_together(self, shares: Sequence[Share]) -> list[list[Picture] | DarkroomError]:
        """Draw all images of all shares, which have one batch key; called in `turn()`.

        Guarantees: the answer has one entry for each share, in their order: its pictures as `generate`
        would give them, but for rounding, or why it has none. A share whose `attempt.check` raises does not
        end the others.

        Raises:
            ProviderDown, ProviderRefused: nobody got a picture.
        """
        ...

    def warm(self, model: str) -> None:
        """Bring a model into memory, and draw once with it; not called in `turn()`, which it takes itself.

        Raises:
            ProviderError: it cannot be loaded, or cannot draw.
        """
        ...

    def warm_models(self) -> list[str]:
        """Give the names of the models in memory, the most recently used first."""
        ...
