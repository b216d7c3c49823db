"""How a local GPU draws a model: weights, precision, scheduler, adapters, and what its parameters mean.

A profile is a section of the catalogue; a target with `provider: diffusers` names one. Everything the engine
must know is said here and nothing is guessed from file names.
"""

import hashlib
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*$", max_length=60)]
Source = Annotated[str, Field(min_length=1, max_length=400, pattern=r"^[^\x00-\x1f]+$")]
"""A folder, absolute or below DARKROOM_MODELS_FOLDER, or the id of a repository that was pulled."""
File = Annotated[str, Field(pattern=r"^[\w][\w./-]*\.safetensors$", max_length=200)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Family(StrEnum):
    """Which pipelines of diffusers draw it."""

    SD15 = "sd15"
    SDXL = "sdxl"
    FLUX = "flux"


class Guidance(StrEnum):
    """What `guidance_scale` does (gpu.md 2.4 and diffusers' pipelines)."""

    CFG = "cfg"
    """Classifier-free: above 1 each step runs twice, and a negative prompt counts; up to 1 it is off."""
    EMBEDDED = "embedded"
    """An input of the network (Flux dev): no second run, and a negative prompt does nothing."""
    NONE = "none"
    """Nothing: the model was distilled without it (Flux schnell, SDXL-Lightning)."""


class Weights(_Part):
    """Weights that take the place of a part of the model.

    Attributes:
        source: a folder or a repository's id; see `Source`.
        revision: commit or branch of the repository; None takes what was pulled.
        file: the file in it, where it is not in diffusers' folder layout.
    """

    source: Source
    revision: str | None = None
    file: File | None = None


class Lora(Weights):
    """A low-rank adapter laid over the weights, never fused into them."""

    weight: Annotated[float, Field(ge=-4, le=4, allow_inf_nan=False)] = 1.0


class Scheduler(_Part):
    """How noise is taken away, step by step.

    Attributes:
        timestep_spacing: `trailing` for SDXL-Lightning: leading and linspace end at the wrong timesteps and
            give wrong pictures without an error.
    """

    name: Literal["euler", "euler_ancestral", "pndm", "ddim", "dpmpp_2m", "flow_match_euler"]
    timestep_spacing: Literal["leading", "linspace", "trailing"] | None = None
    prediction_type: Literal["epsilon", "sample", "v_prediction"] | None = None

    @model_validator(mode="after")
    def _predicts_what_it_can(self) -> Self:
        if self.prediction_type == "sample" and self.name in {"euler_ancestral", "pndm"}:
            raise ValueError(f"scheduler {self.name} cannot take models that predict the sample")
        return self


_MULTIPLE: Final = {Family.SD15: 8, Family.SDXL: 8, Family.FLUX: 16}
"""Pixels that sides must be a multiple of; Flux silently floors to 16, the others refuse (gpu.md 2.3)."""


class Profile(_Part):
    """One way to draw on a GPU of ours.

    Attributes:
        name: what a target's `model` names.
        family: which pipelines.
        source: the model in diffusers' folder layout.
        revision: commit or branch; None takes what was pulled.
        variant: of its files, for instance fp16.
        dtype: of weights and computation; bfloat16 wherever the card has it.
        scheduler: None takes the model's own.
        vae: in place of the model's own, for instance sd-vae-ft-mse.
        unet: in place of the model's own: SDXL-Lightning's full checkpoints.
        loras: laid over it, in this order.
        guidance: what `guidance_scale` does.
        fixed_steps: the only number of steps it was distilled for; a request's own is without effect.
        max_sequence_length: of Flux's text encoder, tokens: schnell 256, dev 512.
        max_batch: rows of one call at most; the engine learns when even that is too many.
        pinned: never dropped from memory.
        offload: `model` keeps on the GPU only the part that is running.
        vae_tiling_above: pixels of an image above which the VAE works in tiles, which changes pixels a
            little; None: only after it ran out of memory.
        licence: what it is under, shown before anything is downloaded.
        gigabytes: size of the download, roughly, shown with it.
    """

    name: Name
    family: Family
    source: Source
    revision: str | None = None
    variant: str | None = None
    dtype: Literal["float32", "float16", "bfloat16"] = "bfloat16"
    scheduler: Scheduler | None = None
    vae: Weights | None = None
    unet: Weights | None = None
    loras: tuple[Lora, ...] = ()
    guidance: Guidance = Guidance.CFG
    fixed_steps: Annotated[int | None, Field(ge=1, le=500)] = None
    max_sequence_length: Annotated[int, Field(ge=1, le=512)] = 256
    max_batch: Annotated[int, Field(ge=1, le=64)] = 4
    pinned: bool = False
    offload: Literal["none", "model"] = "none"
    vae_tiling_above: Annotated[int | None, Field(ge=1)] = 1536 * 1536
    licence: str = ""
    gigabytes: Annotated[float | None, Field(gt=0)] = None

    @model_validator(mode="after")
    def _parts_fit_the_family(self) -> Self:
        if self.unet is not None and self.family is Family.FLUX:
            raise ValueError(f"profile {self.name}: Flux has a transformer, no unet")
        flow = self.scheduler is not None and self.scheduler.name == "flow_match_euler"
        if self.scheduler is not None and flow != (self.family is Family.FLUX):
            raise ValueError(f"profile {self.name}: {self.scheduler.name} does not go with {self.family}")
        if (self.guidance is Guidance.EMBEDDED) and self.family is not Family.FLUX:
            raise ValueError(f"profile {self.name}: only Flux embeds its guidance")
        if (self.guidance is Guidance.CFG) and self.family is Family.FLUX:
            raise ValueError(f"profile {self.name}: Flux's guidance is embedded (dev) or none (schnell)")
        return self

    @property
    def size_multiple(self) -> int:
        """Pixels that width and height must be a multiple of."""
        return _MULTIPLE[self.family]

    @property
    def reads_negative_prompts(self) -> bool:
        """Whether a negative prompt can have an effect."""
        return self.guidance is Guidance.CFG

    @property
    def fingerprint(self) -> str:
        """A hash of everything that decides what is drawn; jobs of two fingerprints are never mixed."""
        parts = self.model_dump_json(exclude={"name", "max_batch", "pinned", "licence", "gigabytes"})
        return hashlib.sha256(parts.encode()).hexdigest()
