"""The catalogue: public model id → what it can do, its limits and defaults, and who draws it."""

import difflib
import math
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.domain.spec import Operation
from app.errors import FieldProblem, SetupError, UnknownModel

QueueName = Annotated[str, Field(pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*$", max_length=60)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Target(_Entry):
    """One way to get a model's images drawn: provider, its own name for the model, and the queue."""

    provider: str
    model: str
    queue: QueueName


PILLOW: Final = Target(provider="pillow", model="pillow", queue="cpu")
"""Who does what needs no model: resize, crop, rotate and the like."""


class SizeLimits(_Entry):
    """What width and height may be, in pixels."""

    min: Annotated[int, Field(ge=1)]
    max: Annotated[int, Field(le=8192)]
    multiple: Annotated[int, Field(ge=1, le=64)] = 1
    max_pixels: Annotated[int, Field(ge=1)]

    def problem_with(self, side: int) -> str | None:
        """Give why `side` cannot be a width or height, with the remedy, or None when it can."""
        if not self.min <= side <= self.max:
            return f"must be between {self.min} and {self.max} pixels, not {side}"
        if side % self.multiple:
            nearest = round(side / self.multiple) * self.multiple
            return f"must be a multiple of {self.multiple} pixels; {nearest} is the nearest"
        return None

    def fit(self, width: int, height: int) -> tuple[int, int]:
        """Give the allowed size that comes closest to an input image's, keeping its proportions.

        An image already within the limits keeps its size, but for the multiple, which rounds down.
        """
        shrink = min(1.0, self.max / max(width, height), math.sqrt(self.max_pixels / (width * height)))
        grow = max(1.0, self.min / (min(width, height) * shrink))
        wanted = (width * shrink * grow, height * shrink * grow)
        fitted = [
            min(max(int(side + 1e-6) // self.multiple * self.multiple, self._lowest()), self._highest())
            for side in wanted
        ]
        return fitted[0], fitted[1]

    def _lowest(self) -> int:
        return -(-self.min // self.multiple) * self.multiple

    def _highest(self) -> int:
        return self.max // self.multiple * self.multiple


class Defaults(_Entry):
    """diffusers' parameters where a request names none."""

    num_inference_steps: Annotated[int, Field(ge=1, le=500)]
    guidance_scale: Annotated[float, Field(ge=0, le=100)]
    strength: Annotated[float, Field(ge=0, le=1)]


class Model(_Entry):
    """One entry of the catalogue."""

    id: Annotated[str, Field(min_length=1, max_length=200)]
    aliases: tuple[str, ...] = ()
    name: str
    description: str = ""
    created_at: datetime
    tags: tuple[str, ...] = ()
    operations: frozenset[Operation]
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    size: SizeLimits
    max_images: Annotated[int, Field(ge=1, le=16)]
    defaults: Defaults
    targets: Annotated[tuple[Target, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _preferred_size_is_allowed(self) -> Self:
        for side in (self.width, self.height):
            if problem := self.size.problem_with(side):
                raise ValueError(f"preferred size of {self.id}: {problem}")
        return self

    def problems_with(
        self, *, operation: Operation, width: int, height: int, num_images: int
    ) -> list[FieldProblem]:
        """Give what this model cannot do of a request, under the spec's field names; none: all is well."""
        problems = []
        if operation not in self.operations:
            able = ", ".join(sorted(self.operations))
            problems.append(FieldProblem(field="model", message=f"{self.id} does {able}, not {operation}"))
        for name, side in (("width", width), ("height", height)):
            if problem := self.size.problem_with(side):
                problems.append(FieldProblem(field=name, message=problem))
        limit = self.size.max_pixels
        if not problems and width * height > limit:
            message = f"width x height must be at most {limit:,} pixels, not {width * height:,}"
            problems.append(FieldProblem(field="width", message=message))
        if num_images > self.max_images:
            message = f"must be at most {self.max_images} for {self.id}, not {num_images}"
            problems.append(FieldProblem(field="num_images", message=message))
        return problems


class Catalog(_Entry):
    """All models of this installation."""

    models: Annotated[tuple[Model, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [name for model in self.models for name in (model.id, *model.aliases)]
        if doubled := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"model ids and aliases must be unique; doubled: {', '.join(sorted(doubled))}")
        return self

    def find(self, name: str) -> Model:
        """Give the model with this id or alias.

        Raises:
            UnknownModel: there is none; the message names the nearest one.
        """
        for model in self.models:
            if name == model.id or name in model.aliases:
                return model
        near = difflib.get_close_matches(name[:80], [model.id for model in self.models], n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UnknownModel(f"There is no model {name[:80]!r}; {hint}GET /v1/models lists them.")

    def queues(self) -> list[str]:
        """Give the names of all queues that jobs go to, sorted: the targets', and that of transformations."""
        return sorted({PILLOW.queue, *(target.queue for model in self.models for target in model.targets)})


def load(path: Path | None = None) -> Catalog:
    """Read a catalogue file; None reads the built-in one.

    Raises:
        SetupError: the file cannot be read or is not a catalogue; the message says where and why.
    """
    try:
        text = (path or resources.files("app.domain") / "models.yaml").read_text(encoding="utf-8")
        content: Any = yaml.safe_load(text)
        return Catalog.model_validate(content)
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise SetupError(f"The catalogue {path or 'models.yaml'} cannot be used: {error}") from error
