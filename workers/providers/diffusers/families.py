"""The pipelines of each family of models, and the schedulers a profile may name."""

from typing import Any, Final

from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel

from app.domain.profiles import Family, Scheduler
from app.domain.spec import Operation

PIPELINES: Final[dict[Family, dict[Operation, Any]]] = {
    Family.SD15: {
        Operation.TEXT_TO_IMAGE: StableDiffusionPipeline,
        Operation.IMAGE_TO_IMAGE: StableDiffusionImg2ImgPipeline,
        Operation.INPAINT: StableDiffusionInpaintPipeline,
    },
    Family.SDXL: {
        Operation.TEXT_TO_IMAGE: StableDiffusionXLPipeline,
        Operation.IMAGE_TO_IMAGE: StableDiffusionXLImg2ImgPipeline,
        Operation.INPAINT: StableDiffusionXLInpaintPipeline,
    },
    Family.FLUX: {
        Operation.TEXT_TO_IMAGE: FluxPipeline,
        Operation.IMAGE_TO_IMAGE: FluxImg2ImgPipeline,
        Operation.INPAINT: FluxInpaintPipeline,
    },
}
"""The class for each operation; all three of a family work on the same parts."""

PARTS: Final[dict[Family, dict[str, Any]]] = {
    Family.SD15: {"text_encoder": CLIPTextModel, "unet": UNet2DConditionModel, "vae": AutoencoderKL},
    Family.SDXL: {
        "text_encoder": CLIPTextModel,
        "text_encoder_2": CLIPTextModelWithProjection,
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
    },
    Family.FLUX: {
        "text_encoder": CLIPTextModel,
        "text_encoder_2": T5EncoderModel,
        "transformer": FluxTransformer2DModel,
        "vae": AutoencoderKL,
    },
}
"""The parts that have weights. `loading` loads each by itself: a pipeline would too, but does not always say
which of them is broken."""

_SCHEDULERS: Final = {
    "euler": EulerDiscreteScheduler,
    "euler_ancestral": EulerAncestralDiscreteScheduler,
    "pndm": PNDMScheduler,
    "ddim": DDIMScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler,
    "flow_match_euler": FlowMatchEulerDiscreteScheduler,
}
_FOR_LATENTS: Final[dict[str, dict[str, object]]] = {
    "pndm": {"skip_prk_steps": True, "set_alpha_to_one": False},
    "ddim": {"clip_sample": False, "set_alpha_to_one": False},
}
"""What Stable Diffusion's own files say of these two, for models whose file is another scheduler's: the
classes' defaults are for pixels, and draw something else without an error."""


def scheduler_for(asked: Scheduler | None, own: Any) -> Any:
    """Give a new scheduler as a profile asks, made from the model's own; each call is a fresh copy.

    A scheduler keeps the state of the run it is in, so no two pipelines may share one.
    """
    if asked is None:
        return type(own).from_config(own.config)
    given = {
        "timestep_spacing": asked.timestep_spacing,
        "prediction_type": asked.prediction_type,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    # What the file did not say, its own class filled in: for another class that is not said.
    said = own.config.keys() - set(own.config.get("_use_default_values", ()))
    absent = {name: value for name, value in _FOR_LATENTS.get(asked.name, {}).items() if name not in said}
    return _SCHEDULERS[asked.name].from_config(own.config, **absent | changes)
