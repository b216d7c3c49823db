"""A procedural draughtsman: it reads a few words of the prompt and draws with numpy, on any laptop.

It is no model and says so beside every picture. It keeps the promise of `workers.providers.base` in full,
so that every path through Darkroom can be walked without a GPU, without weights and without a network.

The way of a drawing: `vocabulary` → `scene` (what is meant) → `drawing` (which strokes) → `sky`, `land`,
`water`, `city`, `meadow`, `dream`, `figures`, `weather` (each paints on a `canvas`) → `finish`.
"""

import hashlib
from collections.abc import Iterator
from typing import Final

from PIL import Image

from app.domain.spec import JobSpec, Operation
from app.errors import ProviderRefused
from workers.providers.base import Attempt, Inputs, Picture
from workers.providers.sketch.canvas import Canvas
from workers.providers.sketch.drawing import strokes
from workers.providers.sketch.rework import repainted, reworked
from workers.providers.sketch.scene import understand

MAX_PIXELS: Final = 4096 * 4096
"""Above this a drawing would need over 1 GB of memory."""


MIN_SIDE: Final = 16
"""Smaller pictures are cut from one this wide and high: a stroke needs some room."""


class Sketch:
    """Draws landscapes, skies and abstractions from a prompt's words and a seed.

    The same prompt, negative prompt, seed, size, steps, guidance, strength and inputs give the same bits, in
    any process and thread of one machine type; it holds no state. Steps refine the texture up to 32 and
    otherwise only pace progress; guidance sets contrast and saturation.
    """

    name = "sketch"

    def generate(self, spec: JobSpec, inputs: Inputs, attempt: Attempt) -> Iterator[Picture]:
        """Draw `spec.num_images` pictures, each yielded as soon as it is done.

        Costs about a second of one core per megapixel.

        Raises:
            ProviderRefused: over 16.8 megapixels, or an input of the operation is missing.
            AttemptEnded: passed on from `attempt.check`, which is called before every stroke and step.
        """
        _check(spec, inputs)
        for index in range(spec.num_images):
            seed = spec.seed_of(index)
            drawing = _draw(spec, seed, attempt, size=_size(spec, inputs), done=index)
            image = _applied(spec, inputs, drawing)
            attempt.progress((index + 1) / spec.num_images)
            yield Picture(
                image=image, seed=seed, notes={"engine": self.name, "note": "procedural drawing, not a model"}
            )


def _check(spec: JobSpec, inputs: Inputs) -> None:
    if spec.width * spec.height > MAX_PIXELS:
        raise ProviderRefused(f"sketch draws at most {MAX_PIXELS:,} pixels; ask for a smaller picture")
    if spec.operation is not Operation.TEXT_TO_IMAGE and inputs.image is None:
        raise ProviderRefused(f"{spec.operation} needs an input image")
    if spec.operation is Operation.INPAINT and inputs.mask_image is None:
        raise ProviderRefused("inpaint needs a mask")


def _draw(spec: JobSpec, seed: int, attempt: Attempt, *, size: tuple[int, int], done: int) -> Image.Image:
    """Paint one picture, its strokes spread over the steps; `done` pictures were finished before."""
    scene = understand(
        prompt=spec.prompt,
        negative_prompt=spec.negative_prompt,
        key=_key(spec, seed),
        steps=spec.num_inference_steps,
        guidance_scale=spec.guidance_scale,
    )
    canvas, todo, steps = (
        Canvas(*(max(side, MIN_SIDE) for side in size)),
        strokes(scene),
        spec.num_inference_steps,
    )
    painted = 0
    for step in range(1, steps + 1):
        attempt.check()
        due = len(todo) * step // steps
        for stroke in todo[painted:due]:
            attempt.check()
            stroke(canvas, scene)
        painted = due
        attempt.step(done * steps + step, spec.num_images * steps)
        attempt.progress((done + step / (steps + 1)) / spec.num_images)
    return canvas.picture().crop((0, 0, *size))


def _size(spec: JobSpec, inputs: Inputs) -> tuple[int, int]:
    """Give width and height to draw: for inpaint the hole's, so that what is drawn lies in it."""
    box = inputs.mask_image.getbbox() if spec.operation is Operation.INPAINT and inputs.mask_image else None
    return (box[2] - box[0], box[3] - box[1]) if box else (spec.width, spec.height)


def _key(spec: JobSpec, seed: int) -> bytes:
    """Give what all random numbers follow from; Python's own hash() differs from process to process."""
    return hashlib.blake2b(f"{seed} {spec.prompt}".encode(), digest_size=32).digest()


def _applied(spec: JobSpec, inputs: Inputs, drawing: Image.Image) -> Image.Image:
    """Bring the drawing and the given image together, as the operation asks."""
    if inputs.image is None or spec.operation is Operation.TEXT_TO_IMAGE:
        return drawing
    if inputs.mask_image is None or spec.operation is Operation.IMAGE_TO_IMAGE:
        return reworked(inputs.image, drawing, strength=spec.strength)
    return repainted(inputs.image, drawing, inputs.mask_image, strength=spec.strength)
