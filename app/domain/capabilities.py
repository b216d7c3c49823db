"""What each kind of provider can do, checked at the door; and which parameters it pays no heed to.

The limits are those of the vendors' own pages, gathered with their sources in the research's
api-contracts.md; a target in the catalogue may narrow them.
"""

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from app.domain.spec import JobSpec, Operation
from app.errors import FieldProblem

_DRAWING: Final = frozenset({Operation.TEXT_TO_IMAGE, Operation.IMAGE_TO_IMAGE, Operation.INPAINT})


class Capability(BaseModel):
    """What a provider, or one target at it, can do.

    Attributes:
        operations: what it does.
        sizes: the only sizes it draws, width and height in pixels; empty: any within min_side … multiple.
        max_prompt: characters.
        honours: parameters that have an effect, of the spec's; the others are reported as ignored.
        images_per_call: images one paid call makes; 1 where each image needs a seed of its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    operations: frozenset[Operation] = _DRAWING
    sizes: tuple[tuple[int, int], ...] = ()
    min_side: Annotated[int, Field(ge=1)] = 1
    max_side: Annotated[int, Field(ge=1)] = 8192
    multiple: Annotated[int, Field(ge=1)] = 1
    max_prompt: Annotated[int, Field(ge=1)] = 10_000
    honours: frozenset[str] = frozenset()
    images_per_call: Annotated[int, Field(ge=1)] = 1

    def problem_with(self, spec: JobSpec) -> str | None:
        """Give why this spec cannot be done here, in half a sentence; None when it can."""
        problem = self.first_problem(spec)
        return None if problem is None else problem.message

    def first_problem(self, spec: JobSpec) -> FieldProblem | None:
        """Give the first member of a spec that cannot be done here and why; None when all can.

        Operation, then prompt, then size: of two providers the one whose problem comes later is nearer.
        """
        if spec.operation not in self.operations:
            return FieldProblem(field="model", message=f"it does not do {spec.operation}")
        if len(spec.prompt) > self.max_prompt:
            message = f"it takes prompts of at most {self.max_prompt:,} characters"
            return FieldProblem(field="prompt", message=message)
        size = (spec.width, spec.height)
        if self.sizes and size not in self.sizes:
            able = ", ".join(f"{width} × {height}" for width, height in self.sizes)
            message = f"it draws {able}, not {spec.width} × {spec.height}"
            return FieldProblem(field="width", message=message)
        for name, side in (("width", spec.width), ("height", spec.height)):
            if not self.min_side <= side <= self.max_side or side % self.multiple:
                by = f", in multiples of {self.multiple}" if self.multiple > 1 else ""
                message = f"its sides are {self.min_side} to {self.max_side} pixels{by}, not {side}"
                return FieldProblem(field=name, message=message)
        return None

    def ignored(self, spec: JobSpec, usual: Mapping[str, object]) -> list[str]:
        """Give a sentence for each parameter of a spec that has no effect here.

        Args:
            usual: the model's defaults: a parameter that has its default was not asked for.
        """
        asked = {
            "negative_prompt": spec.negative_prompt or None,
            "num_inference_steps": spec.num_inference_steps,
            "guidance_scale": spec.guidance_scale,
            "strength": None if spec.operation is Operation.TEXT_TO_IMAGE else spec.strength,
            "seed": spec.seed,
        }
        return [
            f"{name} has no effect: the provider does not take it"
            for name, value in asked.items()
            if name not in self.honours and value is not None and value != usual.get(name)
        ]


CAPABILITIES: Final[Mapping[str, Capability]] = {
    "modelslab": Capability(
        min_side=8,
        max_side=1024,
        multiple=8,
        honours=frozenset({"negative_prompt", "strength", "seed", "num_inference_steps", "guidance_scale"}),
    ),
    "imgprocessing": Capability(
        operations=frozenset({Operation.TEXT_TO_IMAGE}),
        sizes=((1024, 1024),),
        max_prompt=1000,
        honours=frozenset({"negative_prompt", "seed"}),
    ),
    "realm": Capability(
        honours=frozenset({"negative_prompt", "guidance_scale", "strength"}),
        images_per_call=4,
    ),
    "openai": Capability(
        min_side=16,
        max_side=4096,
        honours=frozenset(),
        images_per_call=10,
    ),
}
"""By `Upstream.api`. OpenAI's clients may ask for any size; what a model draws is for the target to say."""
