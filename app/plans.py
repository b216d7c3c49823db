"""What becomes of a wish: the model's defaults filled in, its limits kept, a seed drawn."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.domain.catalog import PILLOW, Model
from app.domain.spec import ImageFormat, JobSpec, Operation
from app.domain.transform import problems_with, result_format
from app.errors import FieldProblem, InvalidFields
from app.inputs import Input, watermarks_of
from app.wish import Wish

_SEEDS: Final = 2**32
"""Seeds are drawn below this, so that every JSON reader can hold them exactly."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What does it, and the members of the spec that follow from the model and not from the request alone.

    Attributes:
        queue: where it goes if nothing speaks against the first target.
        draws: the model; None: none, as it is a transformation.
    """

    model: str
    queue: str
    draws: Model | None
    chosen: Mapping[str, Any]

    def draft(self, wish: Wish) -> JobSpec:
        """Give a drawing's spec without its input images, which are not stored before somebody takes it."""
        return JobSpec.model_construct(
            operation=wish.operation,
            model=self.model,
            prompt=wish.prompt,
            negative_prompt=wish.negative_prompt or "",
            **self.chosen,
        )

    def spec(self, wish: Wish, inputs: Mapping[str, Input]) -> JobSpec:
        """Give the whole spec, with the input images as they lie in the store."""
        images = {role: stored.image for role, stored in inputs.items()}
        return JobSpec(
            operation=wish.operation,
            model=self.model,
            prompt=wish.prompt,
            negative_prompt=wish.negative_prompt or "",
            image=images.get("image"),
            mask_image=images.get("mask_image"),
            mask_from_alpha=wish.mask_from_alpha,
            watermarks=watermarks_of(images),
            quality=wish.quality,
            safety_checker=wish.safety_checker,
            safety_checker_type=wish.safety_checker_type,
            test=wish.terms.test,
            **self.chosen,
        )


def plan_drawing(wish: Wish, model: Model) -> Plan:
    """Give the plan of a wish that this model draws.

    Raises:
        InvalidFields: the model cannot do it; each problem under the name the caller used.
    """
    width, height = _size(wish, model)
    _check(wish, model, width=width, height=height)
    return Plan(
        model=model.id,
        queue=model.targets[0].queue,
        draws=model,
        chosen=_chosen(wish, model, width=width, height=height),
    )


def _size(wish: Wish, model: Model) -> tuple[int, int]:
    """The size asked for; else the input image's as far as the model can; else the model's preferred one."""
    width, height = model.width, model.height
    if wish.image is not None:
        width, height = model.size.fit(*wish.image.size)
    return wish.width or width, wish.height or height


def _check(wish: Wish, model: Model, *, width: int, height: int) -> None:
    problems = model.problems_with(
        operation=wish.operation, width=width, height=height, num_images=wish.num_images or 1
    )
    _refuse(wish, problems)


def _refuse(wish: Wish, problems: Sequence[FieldProblem]) -> None:
    if problems:
        raise InvalidFields(
            *(FieldProblem(field=wish.fields.get(p.field, p.field), message=p.message) for p in problems)
        )


def _chosen(wish: Wish, model: Model, *, width: int, height: int) -> dict[str, Any]:
    """The model's defaults and a seed where the request named none, so that every attempt draws the same."""
    named: dict[str, Any] = {
        "num_inference_steps": wish.num_inference_steps,
        "guidance_scale": wish.guidance_scale,
        "strength": wish.strength,
    }
    chosen = {**model.defaults.model_dump(), **{k: v for k, v in named.items() if v is not None}}
    if wish.operation is Operation.TEXT_TO_IMAGE:
        chosen["strength"] = 1.0
    return {
        **chosen,
        "width": width,
        "height": height,
        "seed": secrets.randbelow(_SEEDS) if wish.seed is None else wish.seed,
        "num_images": wish.num_images or 1,
        "output_format": wish.output_format or ImageFormat.PNG,
    }


def plan_transform(wish: Wish) -> Plan:
    """Give the plan of a wish that needs no model.

    Raises:
        InvalidFields: its image does not allow it; each problem under the name the caller used.
    """
    transform, image = wish.transform, wish.image
    assert transform is not None
    if image is None:
        raise InvalidFields(FieldProblem(field=wish.fields.get("image", "image"), message="is required"))
    width, height = image.size
    marks = [mark.size for mark in wish.watermarks]
    _refuse(wish, problems_with(transform, width, height, image.format, watermarks=marks))
    return Plan(
        model=PILLOW.model,
        queue=PILLOW.queue,
        draws=None,
        chosen={
            "transform": transform,
            "width": width,
            "height": height,
            "seed": 0,
            "output_format": wish.output_format or result_format(transform, image.format),
        },
    )
