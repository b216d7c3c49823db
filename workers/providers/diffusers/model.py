"""A model in memory: one set of weights, seen by three pipelines."""

import inspect
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from PIL import Image

from app.domain.profiles import Family, Profile
from app.domain.spec import Operation
from workers.providers.diffusers.families import PIPELINES, scheduler_for
from workers.providers.diffusers.prompts import Prompts


class Model:
    """A loaded profile; used by one thread at a time.

    Args:
        pipe: its text-to-image pipeline.
        measured: bytes it takes on the device; None counts its weights.
    """

    def __init__(self, profile: Profile, pipe: Any, *, measured: int | None = None) -> None:
        self.profile = profile
        self.prompts = Prompts(pipe, profile)
        self._views: dict[Operation, Any] = {Operation.TEXT_TO_IMAGE: pipe}
        waits = profile.offload == "model"
        self.bytes = 0 if waits else _size(pipe) if measured is None else measured
        """On the device, as long as it does not draw."""
        self.main_bytes = _size(pipe) if waits else 0
        """In main memory, of a model that goes to the device part by part."""

    def view(self, operation: Operation) -> Any:
        """Give the pipeline of an operation, with a scheduler of its own.

        Not by `from_pipe`: it shares the scheduler, whose state is that of a run, and casts the shared
        weights, those too that must stay in float32 (one of T5's in each layer).
        """
        if operation not in self._views:
            base = self._views[Operation.TEXT_TO_IMAGE]
            kind = PIPELINES[self.profile.family][operation]
            known = {**base.config, **base.components, "scheduler": scheduler_for(None, base.scheduler)}
            takes = inspect.signature(kind.__init__).parameters
            view = kind(**{name: value for name, value in known.items() if name in takes})
            view.set_progress_bar_config(disable=True)
            self._views[operation] = view
        return self._views[operation]

    def can(self, operation: Operation) -> bool:
        """Give whether its network takes what an operation gives it: some are made for inpainting alone."""
        unet = getattr(self._views[Operation.TEXT_TO_IMAGE], "unet", None)
        if operation is Operation.INPAINT or unet is None:
            return True
        return bool(unet.config.in_channels == self.vae.config.latent_channels)

    @cached_property
    def vae(self) -> Any:
        """What makes pixels of latents and back; the same for all views."""
        return self._views[Operation.TEXT_TO_IMAGE].vae

    def tile(self, on: bool) -> None:  # noqa: FBT001 - what a switch takes
        """Have the VAE work in tiles from now on, or not: less memory, and pixels that differ a little."""
        (self.vae.enable_tiling if on else self.vae.disable_tiling)()

    def pictures(self, latents: Any, *, width: int, height: int) -> list[Image.Image | None]:
        """Give the picture of each row; None where it holds what is no number.

        In float16 a calculation can leave the range, and the libraries then give a black picture.
        """
        pixels = self.pixels(latents, width=width, height=height)
        whole = torch.isfinite(pixels).flatten(1).all(1).tolist()
        # As the pipelines do it, but on the device: a quarter of the bytes to copy, half the time.
        levels = ((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        arrays = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return [
            Image.fromarray(array) if finite else None for array, finite in zip(arrays, whole, strict=True)
        ]

    @torch.no_grad()  # type: ignore[untyped-decorator]  # torch is not read by mypy
    def pixels(self, latents: Any, *, width: int, height: int) -> Any:
        """Give what the VAE makes of latents as the pipelines return them: about -1 to 1, batch × 3 × h × w.

        The same calculation as in the pipelines, to the bit.
        """
        vae, config = self.vae, self.vae.config
        if self.profile.family is Family.FLUX:
            pipe = self._views[Operation.TEXT_TO_IMAGE]
            latents = pipe._unpack_latents(  # noqa: SLF001 - there is no public one
                latents, height, width, pipe.vae_scale_factor
            )
            latents = latents / config.scaling_factor + config.shift_factor
        else:
            latents = _spread(latents, config)
        if vae.dtype is torch.float16 and config.get("force_upcast"):
            vae.to(torch.float32)  # in half precision SDXL's own makes black pictures
            try:
                return vae.decode(latents.float(), return_dict=False)[0]
            finally:
                vae.to(torch.float16)
        return vae.decode(latents.to(vae.dtype), return_dict=False)[0]

    def rest(self) -> None:
        """Take a model that is kept in main memory off the device again; others stay."""
        self._views[Operation.TEXT_TO_IMAGE].maybe_free_model_hooks()

    @property
    def usual_size(self) -> int:
        """Width and height it was trained for, pixels."""
        pipe = self._views[Operation.TEXT_TO_IMAGE]
        latents = getattr(pipe, "default_sample_size", None) or pipe.unet.config.sample_size
        return int(latents * pipe.vae_scale_factor)


def _spread(latents: Any, config: Mapping[str, Any]) -> Any:
    mean, deviation = config.get("latents_mean"), config.get("latents_std")
    if mean is None or deviation is None:
        return latents / config["scaling_factor"]
    shape = (1, len(mean), 1, 1)
    mean, deviation = (torch.tensor(each).view(shape).to(latents) for each in (mean, deviation))
    return latents * deviation / config["scaling_factor"] + mean


def _size(pipe: Any) -> int:
    """Count the bytes of all weights, shared ones once."""
    modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for module in modules
        for tensor in (*module.parameters(), *module.buffers())
    }
    return sum(storages.values())
