"""What a model really does with a spec: parameters made to work, and those without effect named.

Pure. The door makes the batch key of it, the engine draws by it, and the customer is told what differs.
"""

import hashlib
import json
import math
from dataclasses import dataclass

from app.domain.profiles import Guidance, Profile
from app.domain.spec import JobSpec, Operation


@dataclass(frozen=True, kw_only=True)
class Effective:
    """The parameters a call is made with.

    Attributes:
        strength: of image_to_image and inpaint; 0 means that no model runs. Else at least one step's worth:
            below that SDXL breaks and Flux draws something else (gpu.md 2.2).
        guidance_scale: 0 where it has no effect, so that jobs which only differ in it share a batch.
        negative_prompt: None where it is empty or has no effect. For SDXL that is not the same as "": None
            means zeroed embeddings, and the picture differs (gpu.md 2.1).
        warnings: a sentence for each parameter that was changed or has no effect.
    """

    num_inference_steps: int
    strength: float
    guidance_scale: float
    negative_prompt: str | None
    warnings: tuple[str, ...]


def effective(spec: JobSpec, profile: Profile) -> Effective:
    """Give what a profile makes of a drawing's parameters."""
    warnings: list[str] = []
    steps = _steps(spec, profile, warnings)
    guidance = _guidance(spec, profile, warnings)
    guided = profile.guidance is Guidance.CFG and guidance > 1
    if spec.negative_prompt and not guided:
        why = "guidance_scale is at most 1" if profile.reads_negative_prompts else "the model reads none"
        warnings.append(f"negative_prompt has no effect: {why}")
    return Effective(
        num_inference_steps=steps,
        strength=_strength(spec, steps, warnings),
        guidance_scale=guidance,
        negative_prompt=spec.negative_prompt or None if guided else None,
        warnings=tuple(warnings),
    )


def _steps(spec: JobSpec, profile: Profile, warnings: list[str]) -> int:
    fixed = profile.fixed_steps
    if fixed is None or spec.num_inference_steps == fixed:
        return spec.num_inference_steps
    asked = spec.num_inference_steps
    warnings.append(f"num_inference_steps {asked} has no effect: the model was made for exactly {fixed}")
    return fixed


def _guidance(spec: JobSpec, profile: Profile, warnings: list[str]) -> float:
    if profile.guidance is Guidance.NONE:
        if spec.guidance_scale:
            warnings.append(f"guidance_scale {spec.guidance_scale:g} has no effect: the model has none")
        return 0.0
    if profile.guidance is Guidance.CFG and spec.guidance_scale <= 1:
        return 1.0  # 0, 0.5 and 1 give the same bits
    return spec.guidance_scale


def _strength(spec: JobSpec, steps: int, warnings: list[str]) -> float:
    if spec.operation is Operation.TEXT_TO_IMAGE:
        return 1.0
    if spec.strength == 0 or int(steps * spec.strength) >= 1:
        return spec.strength
    least = 1 / steps
    while int(steps * least) < 1:  # 49 * (1 / 49) is a little less than 1
        least = math.nextafter(least, 1.0)
    warnings.append(
        f"strength {spec.strength:g} is less than one of {steps} steps; {least:.4g} was used in its place"
    )
    return least


def batch_key(spec: JobSpec, profile: Profile) -> str | None:
    """Give what jobs must have in common to be drawn in one call; None for one that needs no model.

    Prompts, negative prompts, seeds, images, masks and formats mix freely in a call. Guidance and strength
    cannot be given per row, and size and steps are the call's own.
    """
    made = effective(spec, profile)
    if spec.operation is not Operation.TEXT_TO_IMAGE and made.strength == 0:
        return None
    parts = [
        *(spec.operation.value, profile.fingerprint, spec.width, spec.height),
        *(made.num_inference_steps, made.strength, made.guidance_scale),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
