"""The models in memory: as many as the budget holds, the one that was used longest ago going first."""

from collections import OrderedDict
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


class Models:
    """Loaded profiles. Used by one thread at a time, but for `names`.

    Args:
        folder: where weights lie.
    """

    def __init__(self, *, folder: Path, device: Device) -> None:
        self._folder = folder
        self._device = device
        self._models: OrderedDict[str, Model] = OrderedDict()
        self._measured: dict[str, int] = {}
        self.names: tuple[str, ...] = ()
        """What is in memory, the latest used first; replaced as a whole, so any thread may read it."""

    def holds(self, profile: Profile) -> bool:
        """Give whether a model is in memory."""
        return profile.name in self._models

    def get(self, profile: Profile) -> Model:
        """Give a model, loading it if need be, and dropping others first where it would not fit beside them.

        Raises:
            ModelUnavailable: its files are missing or broken, or it does not fit even alone.
        """
        if not self.holds(profile):
            self._make_room(self._expected(profile))
            model = self._loaded(profile)
            self._measured[profile.name] = model.bytes
            self._models[profile.name] = model
            log.info("model_loaded", profile=profile.name, bytes=model.bytes)
            self._make_room(0, keep=profile.name)
        self._models.move_to_end(profile.name)
        self._tell()
        return self._models[profile.name]

    def drop_idle(self, *, keep: str) -> bool:
        """Drop all models but `keep` and the pinned ones; gives whether there was any."""
        idle = [name for name in self._models if self._may_drop(name, keep)]
        for name in idle:
            self._drop(name)
        return bool(idle)

    def _loaded(self, profile: Profile) -> Model:
        model = self._try_to_load(profile)
        if model is None and self.drop_idle(keep=profile.name):
            model = self._try_to_load(profile)
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
            return Model(profile, pipe, dtype=self._device.dtype(profile), measured=measured)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Only here, where no frame of the error holds what was loaded so far.
        self._device.release()
        return None

    def _expected(self, profile: Profile) -> int:
        """Give the bytes a model will take: measured when it was here before, else the size of its files."""
        if profile.name in self._measured:
            return self._measured[profile.name]
        if profile.offload == "model" and self._device.is_cuda:
            return 0
        files = {
            file
            for need in needs(profile, self._folder)
            for file in need.present()
            if file.suffix == _WEIGHTS
        }
        return sum(file.stat().st_size for file in files)

    def _make_room(self, wanted: int, *, keep: str = "") -> None:
        for name in tuple(self._models):
            if wanted + sum(model.bytes for model in self._models.values()) <= self._device.budget:
                return
            if self._may_drop(name, keep):
                self._drop(name)

    def _may_drop(self, name: str, keep: str) -> bool:
        return name != keep and not self._models[name].profile.pinned

    def _drop(self, name: str) -> None:
        freed = self._models.pop(name).bytes
        self._device.release()
        self._tell()
        log.info("model_dropped", profile=name, bytes=freed)

    def _tell(self) -> None:
        self.names = tuple(reversed(self._models))
