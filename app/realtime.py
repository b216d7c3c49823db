"""What ModelsLab's realtime API tells of a job, in its answers and in the webhooks it sends."""

from collections.abc import Sequence
from typing import Any, Final

from app.db.history import JobRow, OutputRow
from app.domain.job import Status
from app.domain.spec import JobSpec, Operation
from app.shown import JOB_PREFIX

_OUTDIR: Final = "out"
"""What that API always says; nothing of ours has such a folder."""


def was_checked(outputs: Sequence[OutputRow]) -> bool:
    """Whether a safety checker looked at every one of these images; no image: nobody looked."""
    return bool(outputs) and all(output.flagged is not None for output in outputs)


def meta(job: JobRow, *, checked: bool) -> dict[str, Any]:
    """Give the member `meta`: what is drawn, with the defaults filled in and the prompt as it is drawn.

    It has the names of both generations of that API: `width` and `W`, yes and no for switches. `model` is
    the one that draws; there is no `vae`, `revision` or `enable_attention_slicing`, of which we know nothing.

    Args:
        checked: whether a safety checker looks, or looked, at the images; never what was only asked for.
    """
    spec = JobSpec.model_validate(job.spec)
    made: dict[str, Any] = {
        "id": str(job.number or f"{JOB_PREFIX}{job.id.hex}"),
        "file_prefix": job.output_prefix.hex,
        "model": job.model,
        "prompt": spec.prompt,
        "negative_prompt": spec.negative_prompt,
        "width": spec.width,
        "height": spec.height,
        "W": spec.width,
        "H": spec.height,
        "n_samples": spec.num_images,
        "seed": spec.seed,
        "steps": spec.num_inference_steps,
        "guidance_scale": spec.guidance_scale,
        "outdir": _OUTDIR,
        "safety_checker": "yes" if checked else "no",
        "safety_checker_type": spec.safety_checker_type,
    }
    if spec.operation is not Operation.TEXT_TO_IMAGE:
        made["strength"] = spec.strength
    return {**(job.echo or {}).get("meta", {}), **made}


def generation_seconds(job: JobRow) -> float:
    """Give how long the attempt that made the images took; 0.0 while there is none."""
    if job.started_at is None or job.finished_at is None:
        return 0.0
    return round((job.finished_at - job.started_at).total_seconds(), 2)


def failure(job: JobRow) -> str:
    """Give the sentence for a job that ended without images."""
    verb = "was cancelled" if job.status is Status.CANCELLED else "failed"
    return job.error_message or f"The generation {verb}."
