"""The real engine on the tiny models, and short ways to ask it for something."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting, AutoPipelineForText2Image
from PIL import Image

from app.domain.profiles import Family, Guidance, Profile
from app.domain.spec import JobSpec, Operation, StoredImage
from app.errors import CancelRequested, DarkroomError
from workers.providers.base import Attempt, Inputs, Picture, Share
from workers.providers.diffusers import Device, Diffusers
from workers.providers.diffusers.families import scheduler_for
from workers.providers.diffusers.model import Model

WIDTH, HEIGHT = 96, 64
DRAWINGS = (Operation.TEXT_TO_IMAGE, Operation.IMAGE_TO_IMAGE, Operation.INPAINT)
PROFILES: dict[str, dict[str, Any]] = {
    "sd15": {"family": "sd15"},
    "sdxl": {"family": "sdxl"},
    "lightning": {
        "family": "sdxl",
        "source": "sdxl",
        "guidance": "none",
        "fixed_steps": 4,
        "scheduler": {"name": "euler", "timestep_spacing": "trailing"},
    },
    "schnell": {"family": "flux", "guidance": "none"},
    "dev": {"family": "flux", "guidance": "embedded", "max_sequence_length": 512},
}
"""One for each way to draw, by the names of the tiny models."""


def profile(name: str, **changes: Any) -> Profile:
    """Give a profile of a tiny model."""
    return Profile.model_validate(
        {"name": name, "source": name, "dtype": "float32", "max_batch": 8} | PROFILES.get(name, {}) | changes
    )


def engine(
    folder: Path,
    *profiles: Profile,
    budget: int | None = None,
    main_budget: int | None = None,
    on_broken: Callable[[str], None] = lambda _why: None,
    clock: Callable[[], float] = time.monotonic,
) -> Diffusers:
    """Give an engine that draws on the CPU: these profiles, else one for each way to draw."""
    known = profiles or tuple(profile(name) for name in PROFILES)
    device = Device("cpu", reserve=0, budget=budget)
    if main_budget is not None:
        device.main_budget = main_budget
    return Diffusers(
        profiles={one.name: one for one in known},
        folder=folder,
        device=device,
        on_broken=on_broken,
        clock=clock,
    )


def spec(model: str, operation: Operation = Operation.TEXT_TO_IMAGE, **changes: Any) -> JobSpec:
    """Give a small wish."""
    given = StoredImage(key="inputs/x", sha256="0" * 64, width=WIDTH, height=HEIGHT)
    fields: dict[str, Any] = {
        "operation": operation,
        "model": model,
        "prompt": "misty mountains at dawn",
        "width": WIDTH,
        "height": HEIGHT,
        "num_inference_steps": 4,
        "guidance_scale": 5.0,
        "strength": 1.0 if operation is Operation.TEXT_TO_IMAGE else 0.6,
        "seed": 11,
        "image": None if operation is Operation.TEXT_TO_IMAGE else given,
        "mask_image": given if operation is Operation.INPAINT else None,
    }
    return JobSpec.model_validate(fields | changes)


def photo(seed: int = 3) -> Image.Image:
    """Give something with edges and grain; each seed is another."""
    random = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(0, 1, WIDTH), np.linspace(0, 1, HEIGHT))
    grain = random.normal(0, 8, (HEIGHT, WIDTH))
    bands = (200 * x + grain, 255 * (y > 0.3 + 0.1 * (seed % 5)) * x, 120 + 90 * np.sin(9 * y + seed) + grain)
    return Image.fromarray(np.clip(np.stack(bands, axis=-1), 0, 255).astype(np.uint8))


def hole(left: int = 24) -> Image.Image:
    """Give a mask with one square hole."""
    mask = Image.new("L", (WIDTH, HEIGHT), 0)
    mask.paste(255, (left, 16, left + 32, 48))
    return mask


def inputs(asked: JobSpec, *, seed: int = 3, left: int = 24) -> Inputs:
    """Give the input images that a spec needs."""
    return Inputs(
        image=photo(seed) if asked.image else None, mask_image=hole(left) if asked.mask_image else None
    )


@dataclass
class Diary:
    """A runner's side of an attempt: writes down what it is told, and may end the attempt at a check.

    Attributes:
        ends_at: the check, from 1, at which somebody cancels; None: never.
    """

    model: str
    ends_at: int | None = None
    checks: int = 0
    progress: list[float] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: dict[str, object] = field(default_factory=dict)

    def attempt(self) -> Attempt:
        return Attempt(
            check=self._check,
            progress=self.progress.append,
            step=lambda step, steps: self.steps.append((step, steps)),
            stage=self.stages.append,
            warn=self.warnings.append,
            note=self.notes.__setitem__,
            model=self.model,
        )

    def _check(self) -> None:
        self.checks += 1
        if self.checks == self.ends_at:
            raise CancelRequested


def share(asked: JobSpec, diary: Diary | None = None, *, seed: int = 3, left: int = 24) -> Share:
    """Give a job's part of a batch, drawn by the profile that its model is named like."""
    attempt = (diary or Diary(asked.model)).attempt()
    return Share(spec=asked, inputs=inputs(asked, seed=seed, left=left), attempt=attempt)


def together(drawing: Diffusers, *shares: Share) -> list[list[Picture] | DarkroomError]:
    """Draw jobs in one turn."""
    with drawing.turn(shares[0].attempt):
        return drawing.draw_together(shares)


def pictures(drawing: Diffusers, one: Share) -> list[np.ndarray]:
    """Give what a job gets that is drawn with nobody else, as levels 0 to 255."""
    (result,) = together(drawing, one)
    return levels(result)


def levels(result: list[Picture] | DarkroomError) -> list[np.ndarray]:
    """Give a job's pictures as arrays of height × width × 3, int16, so that differences have a sign."""
    if isinstance(result, DarkroomError):
        raise result
    return [np.asarray(picture.image, np.int16) for picture in result]


def difference(one: np.ndarray, other: np.ndarray) -> int:
    """Give by how many levels of 255 two pictures differ where they differ most."""
    return int(np.abs(one - other).max())


def model_of(drawing: Diffusers, name: str) -> Model:
    """Give what an engine has of a profile in memory, loading it if need be."""
    return drawing._models.get(drawing._profiles[name])


@dataclass(frozen=True)
class Run:
    """One run of the network: how many rows it got, and at which timestep."""

    rows: int
    timestep: float


@contextmanager
def network_runs(drawing: Diffusers, name: str) -> Iterator[list[Run]]:
    """Write down each run of a model's UNet or transformer."""
    pipe = model_of(drawing, name).view(Operation.TEXT_TO_IMAGE)
    network = getattr(pipe, "unet", None) or pipe.transformer
    runs: list[Run] = []

    def note(_network: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        sample = args[0] if args else named["hidden_states"]
        time = args[1] if args else named["timestep"]
        runs.append(Run(rows=len(sample), timestep=float(time.flatten()[0])))

    hook = network.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield runs
    finally:
        hook.remove()


_PLAIN = {
    Operation.TEXT_TO_IMAGE: AutoPipelineForText2Image,
    Operation.IMAGE_TO_IMAGE: AutoPipelineForImage2Image,
    Operation.INPAINT: AutoPipelineForInpainting,
}


def drawn_plainly(folder: Path, asked: JobSpec, **changes: Any) -> np.ndarray:
    """Give what diffusers' own pipeline draws of a spec's first image, decoded by itself; nothing put back.

    Args:
        changes: of the pipeline's arguments.
    """
    made = profile(asked.model)
    pipe = _PLAIN[asked.operation].from_pretrained(
        folder / made.source, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = scheduler_for(made.scheduler, pipe.scheduler)
    for part in (pipe.vae, getattr(pipe, "unet", None)):
        if part is not None:
            part.to(memory_format=torch.channels_last)  # as the engine has them; else rounding differs
    given: dict[str, Any] = {
        "prompt": asked.prompt,
        "num_inference_steps": asked.num_inference_steps,
        "guidance_scale": 0.0 if made.guidance is Guidance.NONE else asked.guidance_scale,
        "generator": torch.Generator("cpu").manual_seed(asked.seed),
        "width": asked.width,
        "height": asked.height,
    }
    if made.family is Family.FLUX:
        given["max_sequence_length"] = made.max_sequence_length
    elif asked.operation is Operation.IMAGE_TO_IMAGE:
        del given["width"], given["height"]  # they are the image's
    if asked.operation is not Operation.TEXT_TO_IMAGE:
        given |= {"image": photo(), "strength": asked.strength}
    if asked.operation is Operation.INPAINT:
        given["mask_image"] = hole()
    return np.asarray(pipe(**given | changes).images[0], np.int16)
