"""What the GPU bench draws: full-size architectures where there is a GPU, else thumbnails of them."""

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model with random weights, and what is asked of it.

    Attributes:
        weights: name of the folder that `gpu_weights.build` writes.
        batch: images of one call where several are drawn together.
        jobs: jobs of one measurement.
        length: tokens of Flux's second text encoder.
    """

    name: str
    family: str
    weights: str
    side: int
    steps: int
    guidance: float
    batch: int
    jobs: int
    dtype: str = "bfloat16"
    trailing: bool = False
    length: int = 256
    prompt: str = "a lighthouse on a cliff at dusk, long exposure, soft waves, film grain"

    @property
    def is_flux(self) -> bool:
        """Whether it is a flow transformer, with parameters of its own."""
        return self.family == "flux"

    def catalog(self, folder: str, *, max_batch: int) -> dict[str, Any]:
        """Give a catalogue that has only this model, drawn so many images at a time."""
        guidance = "none" if self.guidance == 0 else "embedded" if self.is_flux else "cfg"
        profile: dict[str, Any] = {
            "name": "bench",
            "family": self.family,
            "source": folder,
            "dtype": self.dtype,
            "guidance": guidance,
            "max_sequence_length": self.length,
            "max_batch": max_batch,
        }
        if self.trailing:
            profile |= {
                "scheduler": {"name": "euler", "timestep_spacing": "trailing"},
                "fixed_steps": self.steps,
            }
        model = {
            "id": "bench",
            "name": self.name,
            "created_at": "2026-11-25T00:00:00Z",
            "operations": ["text_to_image"],
            "width": self.side,
            "height": self.side,
            "size": {"min": 16, "max": 2048, "multiple": 16, "max_pixels": 4194304},
            "max_images": 1,
            "defaults": {
                "num_inference_steps": self.steps,
                "guidance_scale": self.guidance,
                "strength": 1,
            },
            "targets": [{"provider": "diffusers", "model": "bench", "queue": "gpu.bench"}],
        }
        return {"models": [model], "profiles": [profile]}


ON_GPU: Final = (
    Case(
        name="SD 1.5, 512², 20 steps, CFG",
        family="sd15",
        weights="sd15",
        side=512,
        steps=20,
        guidance=7.5,
        batch=8,
        jobs=64,
    ),
    Case(
        name="SDXL, 1024², 30 steps, CFG",
        family="sdxl",
        weights="sdxl",
        side=1024,
        steps=30,
        guidance=5.0,
        batch=4,
        jobs=16,
    ),
    Case(
        name="SDXL-Lightning, 1024², 4 steps",
        family="sdxl",
        weights="sdxl",
        side=1024,
        steps=4,
        guidance=0.0,
        batch=8,
        jobs=64,
        trailing=True,
    ),
    Case(
        name="Flux schnell, 1024², 4 steps",
        family="flux",
        weights="schnell",
        side=1024,
        steps=4,
        guidance=0.0,
        batch=4,
        jobs=24,
    ),
)
ON_CPU: Final = (
    Case(
        name="tiny SD 1.5, 256², 8 steps, CFG",
        family="sd15",
        weights="sd15",
        side=256,
        steps=8,
        guidance=7.5,
        batch=4,
        jobs=24,
        dtype="float32",
    ),
    Case(
        name="tiny SDXL, 256², 4 steps, trailing",
        family="sdxl",
        weights="sdxl",
        side=256,
        steps=4,
        guidance=0.0,
        batch=4,
        jobs=24,
        dtype="float32",
        trailing=True,
    ),
    Case(
        name="tiny Flux, 256², 4 steps",
        family="flux",
        weights="schnell",
        side=256,
        steps=4,
        guidance=0.0,
        batch=4,
        jobs=24,
        dtype="float32",
    ),
)
