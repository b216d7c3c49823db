"""The baselines of the GPU bench: diffusers as its manual shows it, one prompt after the other or in batches.

Each image is encoded and stored as the worker does it, so that only the platform around it differs.
"""

import gc
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoPipelineForText2Image, EulerDiscreteScheduler

from app import imaging
from app.domain.spec import ImageFormat
from app.storage import Storage
from bench.gpu_cases import Case


class Plain:
    """A pipeline of diffusers, loaded once."""

    def __init__(self, case: Case, weights: Path, storage: Storage, *, device: str) -> None:
        self._case = case
        self._storage = storage
        self._count = 0
        dtype = getattr(torch, case.dtype)
        pipe = AutoPipelineForText2Image.from_pretrained(
            weights, dtype=dtype, use_safetensors=True, local_files_only=True
        ).to(device)
        pipe.set_progress_bar_config(disable=True)
        if case.trailing:
            pipe.scheduler = EulerDiscreteScheduler.from_config(
                pipe.scheduler.config, timestep_spacing="trailing"
            )
        self._pipe = pipe

    def rate(self, images: int, *, batch: int) -> float:
        """Give the images per second of drawing, encoding and storing so many, `batch` in each call."""
        began = time.monotonic()
        for start in range(0, images, batch):
            self._draw(range(start, min(start + batch, images)))
        return images / (time.monotonic() - began)

    def forget(self) -> None:
        """Free the memory."""
        del self._pipe
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _draw(self, seeds: Sequence[int]) -> None:
        case = self._case
        arguments: dict[str, Any] = {
            "prompt": [f"{case.prompt} {seed}" for seed in seeds],
            "width": case.side,
            "height": case.side,
            "num_inference_steps": case.steps,
            "guidance_scale": case.guidance,
            "generator": [torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        }
        if case.is_flux:
            arguments["max_sequence_length"] = case.length
        for image in self._pipe(**arguments).images:
            self._count += 1
            data = imaging.encode(image, ImageFormat.JPEG, metadata={}, quality=None)
            self._storage.put(f"bench/{self._count}.jpg", data, media_type="image/jpeg")
