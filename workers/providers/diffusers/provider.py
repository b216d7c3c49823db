"""Draws on a GPU of ours with diffusers: one device, one thread at a time, several jobs in one call."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from PIL import Image

from app.domain.profiles import Guidance, Profile
from app.domain.spec import JobSpec, Operation
from app.errors import DarkroomError, DeviceBroken, GpuOutOfMemory, ProviderRefused
from app.log import get_logger
from workers.providers.base import Attempt, Inputs, Picture, Share
from workers.providers.diffusers.cache import Models
from workers.providers.diffusers.calls import Row, Shape, draw
from workers.providers.diffusers.device import Device, is_device_fault, is_out_of_memory
from workers.providers.diffusers.memory import Memory
from workers.providers.diffusers.model import Model
from workers.providers.diffusers.parts import ENGINE, Part

log = get_logger(__name__)

_SLICE: Final = 0.1
"""Seconds between two looks at whether a job that waits for the device is still wanted."""


class _Abandoned(Exception):
    """Nobody waits any more for what a call draws."""


class Diffusers:
    """The provider of local models; keeps `BatchProvider`'s promise.

    Args:
        profiles: by their names.
        folder: where weights lie.
        on_broken: told why, once, when the device cannot be used any more: the process must end then.
        clock: seconds that only go on.
    """

    name = ENGINE

    def __init__(
        self,
        *,
        profiles: Mapping[str, Profile],
        folder: Path,
        device: Device,
        on_broken: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._profiles = profiles
        self._device = device
        self._models = Models(folder=folder, device=device, clock=clock)
        self._memory = Memory(self._models)
        self._on_broken = on_broken
        self._broken = False
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, attempt: Attempt) -> Iterator[None]:
        """Wait for the device, and have it until the context ends.

        Raises:
            AttemptEnded: passed on from `attempt.check`.
            DeviceBroken: it is of no use any more.
        """
        while not self._lock.acquire(timeout=_SLICE):
            attempt.check()
        try:
            with self._until_it_breaks():
                self._device.enter()
            yield
        finally:
            self._lock.release()

    def room(self, spec: JobSpec, model: str) -> int:
        """Give how many images of this spec's shape one call draws: the profile's, or less once that failed.

        A model that this process does not know has room for one: its refusal is no other job's.
        """
        profile = self._profiles.get(model)
        return 1 if profile is None else self._memory.room(profile, Shape.of(spec, profile))

    def warm_models(self) -> list[str]:
        """Give the profiles in memory, the latest used first."""
        return list(self._models.names)

    def warm(self, model: str) -> None:
        """Bring a model into memory and draw once with it, as the first call takes longer than others.

        Raises:
            ProviderError: it cannot be loaded, or cannot draw.
        """
        profile = self._profile(model)
        with self._lock, self._until_it_breaks():
            self._device.enter()
            loaded = self._models.get(profile)
            if not loaded.can(Operation.TEXT_TO_IMAGE):
                return  # it only inpaints; that its weights are there is most of it
            shape = Shape(
                operation=Operation.TEXT_TO_IMAGE,
                width=loaded.usual_size,
                height=loaded.usual_size,
                num_inference_steps=profile.fixed_steps or 2,
                strength=1.0,
                guidance_scale=2.0 if profile.guidance is Guidance.CFG else 0.0,
            )
            row = Row(wording=("", None), seed=0)
            while not self._fits(partial(self._call, loaded, shape, [row])):
                if not self._memory.was_short(profile, shape, rows=1):
                    raise GpuOutOfMemory

    def generate(self, spec: JobSpec, inputs: Inputs, attempt: Attempt) -> Iterator[Picture]:
        """Draw a job's pictures, one call each.

        Raises:
            ModelUnavailable, GpuOutOfMemory, DeviceBroken, ProviderRefused: there is no picture.
            AttemptEnded: passed on from `attempt.check`.
        """
        share = Share(spec=spec, inputs=inputs, attempt=attempt)
        profile = self._profile(attempt.model)
        for index in range(spec.num_images):
            part = Part(share, profile, indices=[index])
            with self.turn(attempt):
                self._draw([part], profile)
            result = part.result()
            if isinstance(result, DarkroomError):
                raise result
            yield from result

    def draw_together(self, shares: Sequence[Share]) -> list[list[Picture] | DarkroomError]:
        """Draw all images of all shares; called in `turn()`.

        As many rows go into a call as have room; where memory runs out it is fewer from then on. Rows of an
        ended attempt are dropped when their call is done, and a call in which nobody is left stops at its
        next step.

        Raises:
            ModelUnavailable, DeviceBroken, ProviderRefused: nobody got a picture.
        """
        profile = self._profile(shares[0].attempt.model)
        parts = [Part(share, profile, indices=range(share.spec.num_images)) for share in shares]
        self._draw(parts, profile)
        return [part.result() for part in parts]

    def _profile(self, name: str) -> Profile:
        if (profile := self._profiles.get(name)) is None:
            raise ProviderRefused(f"this worker's catalogue has no profile {name!r}")
        return profile

    def _draw(self, parts: Sequence[Part], profile: Profile) -> None:
        for part in parts:
            if part.needs_no_model:
                part.copy_input()
        drawn = [part for part in parts if part.waiting]
        if not drawn:
            return
        if any(part.shape != drawn[0].shape for part in drawn):
            raise ValueError("jobs of several shapes cannot be drawn in one call")
        with self._until_it_breaks():
            self._draw_with(self._model(profile, drawn), drawn)

    def _draw_with(self, model: Model, parts: Sequence[Part]) -> None:
        """Draw call after call until no image waits, in smaller calls where memory runs out."""
        shape = parts[0].shape
        while rows := _next(parts, self._memory.room(model.profile, shape)):
            if self._fits(partial(self._draw_rows, model, shape, rows)):
                continue
            if not self._memory.was_short(model.profile, shape, rows=len(rows)):
                for part in parts:
                    if part.waiting:
                        part.fail(GpuOutOfMemory())

    def _model(self, profile: Profile, parts: Sequence[Part]) -> Model:
        if not self._models.holds(profile):
            for part in parts:
                part.stage("loading")
        model = self._models.get(profile)
        if not model.can(parts[0].shape.operation):
            raise ProviderRefused(
                f"{profile.name} was made for inpaint; it cannot do {parts[0].shape.operation}"
            )
        for part in parts:
            part.stage("generating")
            for sentence in model.prompts.cuts(part.wording):
                part.warn(sentence)
        return model

    def _draw_rows(self, model: Model, shape: Shape, rows: Sequence[tuple[Part, int]]) -> None:
        """Draw these images in one call, telling each part how far it is."""
        counts = Counter(part for part, _ in rows)

        def look() -> None:
            if not [part for part in counts if part.check()]:
                raise _Abandoned

        def after_step(step: int, steps: int) -> None:
            look()
            for part, count in counts.items():
                if part.waiting:
                    part.at(step, steps, rows=count)

        try:
            pictures = self._call(
                model, shape, [part.row(index) for part, index in rows], on_row=look, on_step=after_step
            )
        except _Abandoned:
            return
        if self._memory.tiles(model.profile, shape):
            for part in counts:
                part.note("vae_tiled", True)
        for (part, _), picture in zip(rows, pictures, strict=True):
            part.drew(picture, batch_size=len(rows))

    def _call(
        self, model: Model, shape: Shape, rows: Sequence[Row], **hooks: Any
    ) -> list[Image.Image | None]:
        model.tile(self._memory.tiles(model.profile, shape))
        return draw(model, shape, rows, **hooks)

    def _fits(self, do: Callable[[], object]) -> bool:
        """Do something on the device; gives whether its memory sufficed."""
        try:
            do()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return True
        # Only here: in the handler the error's frames hold the tensors that are in the way.
        self._device.release()
        return False

    @contextmanager
    def _until_it_breaks(self) -> Iterator[None]:
        """Have a fault of the device end this process: nothing drawn after it can be trusted.

        Raises:
            DeviceBroken: now, and whenever something is to be drawn afterwards.
        """
        if self._broken:
            late = DeviceBroken("the device failed in an earlier call, and this process is about to end")
            late.charged = False  # whoever comes now had no part in it
            raise late
        try:
            yield
        except RuntimeError as error:
            if not is_device_fault(error):
                raise
            fault = f"{type(error).__name__}: {error}"
            self._broken = True
            log.exception("device_broken", device=str(self._device.place))
            self._on_broken(fault)
            raise DeviceBroken(fault) from error


def _next(parts: Sequence[Part], room: int) -> list[tuple[Part, int]]:
    """Give the rows of the next call: images not yet drawn, in order."""
    return [(part, index) for part in parts for index in part.waiting][:room]
