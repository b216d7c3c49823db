"""The models in memory: as many as the budget holds, the one that was used longest ago going first."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.domain.profiles import Profile
from app.errors import ModelUnavailable
from app.log import get_logger
from app.weights.needs import needs
from workers.providers.diffusers.device import Device, is_out_of_memory
from workers.providers.diffusers.loading import load
from workers.providers.diffusers.model import Model

log = get_logger(__name__)

_WEIGHTS: Final = ".safetensors"
_REST: Final = 60.0
"""Seconds in which a model that could not be loaded is not tried again."""


@dataclass(frozen=True)
class _Size:
    """Bytes that models take.

    Attributes:
        device: where they draw.
        main: in main memory, of those that wait there.
    """

    device: int = 0
    main: int = 0

    def __add__(self, other: "_Size") -> "_Size":
        return _Size(self.device + other.device, self.main + other.main)


_Files = frozenset[tuple[Path, int, int]]
"""Files with their sizes and the times of their last change."""


@dataclass(frozen=True, kw_only=True)
class _Refused:
    """A model that could not be loaded."""

    at: float
    files: _Files
    why: str


class Models:
    """Loaded profiles. Used by one thread at a time, but for `names`.

    Args:
        folder: where weights lie.
        clock: seconds that only go on.
    """

    def __init__(self, *, folder: Path, device: Device, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._device = device
        self._clock = clock
        self._models: OrderedDict[str, Model] = OrderedDict()
        self._measured: dict[str, _Size] = {}
        self._refused: dict[str, _Refused] = {}
        self.names: tuple[str, ...] = ()
        """What is in memory, the latest used first; replaced as a whole, so any thread may read it."""

    def holds(self, profile: Profile) -> bool:
        """Give whether a model is in memory."""
        return profile.name in self._models

    def get(self, profile: Profile) -> Model:
        """Give a model, loading it if need be, and dropping others first where it would not fit beside them.

        Raises:
            ModelUnavailable: its files are missing or broken, or it does not fit even alone. Files that were
                broken less than a minute ago, and are as they were, are not tried: each job for them would
                cost the others their models.
        """
        if not self.holds(profile):
            self._load(profile)
        self._models.move_to_end(profile.name)
        self._tell()
        return self._models[profile.name]

    def _load(self, profile: Profile) -> None:
        files = self._files(profile)
        self._refuse_again(profile, files)
        self._make_room(self._expected(profile, files))
        model = self._loaded(profile, files)
        self._measured[profile.name] = _size(model)
        self._models[profile.name] = model
        log.info("model_loaded", profile=profile.name, bytes=model.bytes, main_bytes=model.main_bytes)
        self._make_room(_Size(), keep=profile.name)

    def _refuse_again(self, profile: Profile, files: _Files) -> None:
        refused = self._refused.get(profile.fingerprint)
        if refused is not None and refused.files == files and self._clock() - refused.at < _REST:
            raise ModelUnavailable(refused.why)

    def drop_idle(self, *, keep: str) -> bool:
        """Drop all models on the device but `keep` and the pinned ones; gives whether there was any."""
        idle = [name for name, model in self._models.items() if model.bytes and self._may_drop(name, keep)]
        for name in idle:
            self._drop(name)
        return bool(idle)

    def _loaded(self, profile: Profile, files: _Files) -> Model:
        try:
            model = self._try_to_load(profile)
            if model is None and self.drop_idle(keep=profile.name):
                model = self._try_to_load(profile)
        except ModelUnavailable as error:
            self._refused[profile.fingerprint] = _Refused(at=self._clock(), files=files, why=error.message)
            raise
        if model is None:
            raise ModelUnavailable(
                f"profile {profile.name} does not fit into the memory of {self._device.place}; "
                "give it `offload: model` or a card of its own"
            )
        return model

    def _try_to_load(self, profile: Profile) -> Model | None:
        """Give the model, or None when memory ran out."""
        before = self._device.used()
        try:
            pipe = load(profile, folder=self._folder, device=self._device)
            after = self._device.used()
            measured = None if before is None or after is None else after - before
            return Model(profile, pipe, measured=measured)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Only here, where no frame of the error holds what was loaded so far.
        self._device.release()
        return None

    def _files(self, profile: Profile) -> _Files:
        found = {file for need in needs(profile, self._folder) for file in need.present()}
        stats = {file: file.stat() for file in found}
        return frozenset((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats.items())

    def _expected(self, profile: Profile, files: _Files) -> _Size:
        """Give the bytes a model will take: measured when it was here before, else the size of its files."""
        if profile.name in self._measured:
            return self._measured[profile.name]
        found = sum(size for file, size, _ in files if file.suffix == _WEIGHTS)
        return _Size(main=found) if profile.offload == "model" else _Size(device=found)

    def _make_room(self, wanted: _Size, *, keep: str = "") -> None:
        """Drop models until there is room for another, but none that frees only what there is enough of."""
        for name in tuple(self._models):
            held = sum((_size(model) for model in self._models.values()), wanted)
            device_is_short = held.device > self._device.budget
            main_is_short = held.main > self._device.main_budget
            freed = _size(self._models[name])
            helps = (device_is_short and freed.device) or (main_is_short and freed.main)
            if helps and self._may_drop(name, keep):
                self._drop(name)

    def _may_drop(self, name: str, keep: str) -> bool:
        return name != keep and not self._models[name].profile.pinned

    def _drop(self, name: str) -> None:
        freed = _size(self._models.pop(name))
        self._device.release()
        self._tell()
        log.info("model_dropped", profile=name, bytes=freed.device, main_bytes=freed.main)

    def _tell(self) -> None:
        self.names = tuple(reversed(self._models))


def _size(model: Model) -> _Size:
    return _Size(device=model.bytes, main=model.main_bytes)
