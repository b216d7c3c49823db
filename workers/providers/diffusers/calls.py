"""One call of a pipeline: rows of one shape in, pictures out. Decoding and composing are our own stages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import torch
from PIL import Image

from app.domain.effective import effective
from app.domain.profiles import Family, Guidance, Profile
from app.domain.spec import JobSpec, Operation
from workers.providers.diffusers.model import Model
from workers.providers.diffusers.prompts import Wording

_OF_SIZE: Final = {
    # The others take their size from the image; Flux then draws 1024 × 1024 whatever that is (gpu.md 2.3).
    (family, operation)
    for family in Family
    for operation in (Operation.TEXT_TO_IMAGE, Operation.INPAINT)
} | {(Family.FLUX, Operation.IMAGE_TO_IMAGE)}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the rows of a call have in common; none of it can be given per row.

    Attributes:
        strength: of image_to_image and inpaint; with 0 there is nothing to call.
    """

    operation: Operation
    width: int
    height: int
    num_inference_steps: int
    strength: float
    guidance_scale: float

    @classmethod
    def of(cls, spec: JobSpec, profile: Profile) -> Self:
        """Give the shape of the call that draws a spec."""
        made = effective(spec, profile)
        return cls(
            operation=spec.operation,
            width=spec.width,
            height=spec.height,
            num_inference_steps=made.num_inference_steps,
            strength=made.strength,
            guidance_scale=made.guidance_scale,
        )

    def guided(self, profile: Profile) -> bool:
        """Whether each step runs twice, and negative prompts count."""
        return profile.guidance is Guidance.CFG and self.guidance_scale > 1


@dataclass(frozen=True, kw_only=True)
class Row:
    """One picture to draw: what may differ from row to row.

    Attributes:
        image: RGB, of the shape's size; None for text_to_image.
        mask_image: L, of the same size, 255 where it is painted anew; None unless inpaint.
    """

    wording: Wording
    seed: int
    image: Image.Image | None = None
    mask_image: Image.Image | None = None


def draw(
    model: Model,
    shape: Shape,
    rows: Sequence[Row],
    *,
    on_row: Callable[[], None] = lambda: None,
    on_step: Callable[[int, int], None] = lambda _step, _steps: None,
) -> list[Image.Image | None]:
    """Draw rows in one call; gives a picture each, or None where the calculation left the range of numbers.

    A row's picture depends on its own prompt, seed, image and mask; on the others only by rounding.

    Args:
        on_row: called before each row's prompt is encoded; what it raises passes through.
        on_step: takes the step that is done, from 1, and how many there are; what it raises passes through,
            and the pipeline is fit for the next call.
    """
    try:
        return _drawn(model, shape, rows, on_row=on_row, on_step=on_step)
    finally:
        # Also after an error: what is left on the device would be in the way of the next prompt's encoding.
        model.rest()


def _drawn(
    model: Model,
    shape: Shape,
    rows: Sequence[Row],
    *,
    on_row: Callable[[], None],
    on_step: Callable[[int, int], None],
) -> list[Image.Image | None]:
    pipe = model.view(shape.operation)
    embeddings = model.prompts.together(
        [row.wording for row in rows], guided=shape.guided(model.profile), before_each=on_row
    )

    def after_step(running: Any, step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step(step + 1, running.num_timesteps)  # PNDM runs one more than it was asked for
        return tensors

    latents = pipe(
        **embeddings,
        **_arguments(model.profile, shape, rows),
        num_inference_steps=shape.num_inference_steps,
        guidance_scale=shape.guidance_scale,
        # On the CPU, so that every machine draws the same; one for each, as one for all would make a picture
        # depend on those before it.
        generator=[torch.Generator("cpu").manual_seed(row.seed) for row in rows],
        callback_on_step_end=after_step,
        output_type="latent",
        return_dict=False,
    )[0]
    pictures = model.pictures(latents, width=shape.width, height=shape.height)
    return [_composed(row, picture) for row, picture in zip(rows, pictures, strict=True)]


def _arguments(profile: Profile, shape: Shape, rows: Sequence[Row]) -> dict[str, Any]:
    """Give what only some pipelines take. Lists always: a number of images per prompt is not the same."""
    given: dict[str, Any] = {}
    if (profile.family, shape.operation) in _OF_SIZE:
        given |= {"width": shape.width, "height": shape.height}
    if profile.family is Family.FLUX:
        given["max_sequence_length"] = profile.max_sequence_length
    if shape.operation is not Operation.TEXT_TO_IMAGE:
        given |= {"image": [row.image for row in rows], "strength": shape.strength}
    if shape.operation is Operation.INPAINT:
        given["mask_image"] = [row.mask_image for row in rows]
    return given


def _composed(row: Row, picture: Image.Image | None) -> Image.Image | None:
    """Put the kept pixels back: they went through the VAE, which changes them a little."""
    if picture is None or row.image is None or row.mask_image is None:
        return picture
    return Image.composite(picture, row.image, row.mask_image)
