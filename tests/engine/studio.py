"""The real engine on the tiny models, and short ways to ask it for something."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from app.domain.profiles import Profile
from app.domain.spec import JobSpec, Operation, StoredImage
from app.errors import CancelRequested, DarkroomError
from workers.providers.base import Attempt, Inputs, Picture, Share
from workers.providers.diffusers import Device, Diffusers

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
    on_broken: Callable[[str], None] = lambda _why: None,
) -> Diffusers:
    """Give an engine that draws on the CPU: these profiles, else one for each way to draw."""
    known = profiles or tuple(profile(name) for name in PROFILES)
    return Diffusers(
        profiles={one.name: one for one in known},
        folder=folder,
        device=Device("cpu", reserve=0, budget=budget),
        on_broken=on_broken,
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
