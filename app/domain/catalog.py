"""The catalogue: public model id → what it can do, its limits and defaults, and who draws it."""

import difflib
import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.domain.capabilities import CAPABILITIES, Capability
from app.domain.effective import batch_key
from app.domain.profiles import Profile
from app.domain.spec import JobSpec, Operation
from app.domain.upstreams import LOCAL, Upstream, queue_of
from app.errors import FieldProblem, SetupError, UnknownModel

QueueName = Annotated[str, Field(pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*$", max_length=60)]


_Form = TypeVar("_Form", "Catalog", "Shelf")


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Target(_Entry):
    """One way to get a model's images drawn: provider, its own name for the model, and the queue.

    Attributes:
        provider: diffusers, sketch, or the name of an upstream.
        model: the provider's own name for it; of diffusers a profile's.
        queue: of an upstream it is `provider.<name>`, and need not be said.
        weight: its share of the jobs where the model's `routing` is weighted.
        cost_per_image: what an image costs, in the currency the operator keeps books in; None: unknown.
        capability: what this target can do, where that is less, or more, than its provider's kind.
    """

    provider: str
    model: str
    queue: QueueName
    weight: Annotated[int, Field(ge=1, le=1000)] = 1
    cost_per_image: Annotated[Decimal | None, Field(ge=0, max_digits=12, decimal_places=6)] = None
    capability: Capability | None = None

    @model_validator(mode="before")
    @classmethod
    def _has_a_queue(cls, given: Any) -> Any:
        if isinstance(given, dict) and "queue" not in given and isinstance(given.get("provider"), str):
            return {**given, "queue": queue_of(given["provider"])}
        return given

    @property
    def label(self) -> str:
        """How events and messages call it: provider/model."""
        return f"{self.provider}/{self.model}"


PILLOW: Final = Target(provider="pillow", model="pillow", queue="cpu")
"""Who does what needs no model: resize, crop, rotate and the like."""


class SizeLimits(_Entry):
    """What width and height may be, in pixels."""

    min: Annotated[int, Field(ge=1)]
    max: Annotated[int, Field(le=8192)]
    multiple: Annotated[int, Field(ge=1, le=512)] = 1
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
    routing: Literal["ordered", "weighted"] = "ordered"
    """Whether the first target is preferred, or each by its weight."""
    spill_after: Annotated[timedelta | None, Field(gt=timedelta(0))] = None
    """Expected wait on a target's queue beyond which the next target is taken; None: however long it is."""
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
    """All models of this installation, the profiles they are drawn by, and the upstreams they go to."""

    models: Annotated[tuple[Model, ...], Field(min_length=1)]
    profiles: tuple[Profile, ...] = ()
    upstreams: tuple[Upstream, ...] = ()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [name for model in self.models for name in (model.id, *model.aliases)]
        if doubled := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"model ids and aliases must be unique; doubled: {', '.join(sorted(doubled))}")
        return self

    @model_validator(mode="after")
    def _targets_exist(self) -> Self:
        for kind, names in (
            ("profile", [one.name for one in self.profiles]),
            ("upstream", [one.name for one in self.upstreams]),
        ):
            if doubled := {name for name in names if names.count(name) > 1}:
                raise ValueError(
                    f"each {kind} needs a name of its own; doubled: {', '.join(sorted(doubled))}"
                )
        if taken := LOCAL & {one.name for one in self.upstreams}:
            raise ValueError(f"no upstream may be called {', '.join(sorted(taken))}: that is our own")
        for model in self.models:
            for target in model.targets:
                self._check(model, target)
        return self

    def _check(self, model: Model, target: Target) -> None:
        at_upstream = self.upstream(target.provider) is not None
        if at_upstream != (target.queue == queue_of(target.provider)):
            why = (
                f"its queue is {queue_of(target.provider)}"
                if at_upstream
                else f"there is no upstream {target.provider!r}; a provider of our own needs its own queue"
            )
            raise ValueError(f"model {model.id}, target {target.label}: {why}")
        if target.provider == "diffusers":
            self._check_profile(model, target)

    def _check_profile(self, model: Model, target: Target) -> None:
        profile = next((one for one in self.profiles if one.name == target.model), None)
        if profile is None:
            raise ValueError(f"model {model.id}: there is no profile {target.model!r}")
        if model.size.multiple % profile.size_multiple:
            raise ValueError(f"model {model.id}: its sizes must be multiples of {profile.size_multiple}")
        if profile.fixed_steps not in (None, model.defaults.num_inference_steps):
            raise ValueError(f"model {model.id}: its default steps must be {profile.fixed_steps}")

    def profile(self, name: str) -> Profile:
        """Give the profile that a target of diffusers names; KeyError when there is none."""
        return {one.name: one for one in self.profiles}[name]

    def upstream(self, name: str) -> Upstream | None:
        """Give the upstream of this name; None when it is a provider of our own."""
        return next((one for one in self.upstreams if one.name == name), None)

    def capability(self, target: Target) -> Capability | None:
        """Give what a target can do; None: whatever its model's entry says."""
        upstream = self.upstream(target.provider)
        return target.capability or (CAPABILITIES[upstream.api] if upstream else None)

    def problem_with(self, spec: JobSpec, target: Target) -> str | None:
        """Give why a target cannot do a spec that its model can; None when it can."""
        capability = self.capability(target)
        return None if capability is None else capability.problem_with(spec)

    def batch_key(self, spec: JobSpec, target: Target) -> str | None:
        """Give what jobs on one queue must share to be drawn together; None: each is drawn alone."""
        if target.provider != "diffusers":
            return None
        return batch_key(spec, self.profile(target.model))

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


class Shelf(_Entry):
    """The real models that come with Darkroom, each offered only where its operator says so.

    They need weights to be pulled, or a key. Two of them may have an alias in common.
    """

    models: tuple[Model, ...]
    profiles: tuple[Profile, ...]
    upstreams: tuple[Upstream, ...]

    def names(self) -> list[str]:
        """Give what `offered` of `load` may name: ids of local models, and upstreams for all models there."""
        at = {upstream.name for upstream in self.upstreams}
        return list(dict.fromkeys(self._name(model, at) for model in self.models))

    def name_of(self, model: Model) -> str:
        """Give the name under which a model is offered."""
        return self._name(model, {upstream.name for upstream in self.upstreams})

    @staticmethod
    def _name(model: Model, upstreams: set[str]) -> str:
        provider = model.targets[0].provider
        return provider if provider in upstreams else model.id

    def take(self, offered: Sequence[str], base: Catalog) -> Catalog:
        """Give a catalogue that has these models, in this order, before its own.

        An id stays with its model. An alias that several have goes to the first of them.

        Raises:
            SetupError: there is none of this name; the message lists all.
        """
        chosen: dict[str, Model] = {}
        for name in offered:
            found = [model for model in self.models if name in {model.id, self.name_of(model)}]
            if not found:
                raise SetupError(
                    f"DARKROOM_MODELS names {name!r}; on the shelf are {', '.join(self.names())}"
                )
            chosen.update((model.id, model) for model in found)
        models = _without_clashes([*chosen.values(), *base.models])
        targets = [target for model in chosen.values() for target in model.targets]
        profiles = {target.model for target in targets if target.provider == "diffusers"}
        upstreams = {target.provider for target in targets}
        return Catalog(
            models=tuple(models),
            profiles=(*base.profiles, *(one for one in self.profiles if one.name in profiles)),
            upstreams=(*base.upstreams, *(one for one in self.upstreams if one.name in upstreams)),
        )


def _without_clashes(models: Sequence[Model]) -> list[Model]:
    taken = {model.id for model in models}
    kept = []
    for model in models:
        aliases = tuple(alias for alias in model.aliases if alias not in taken)
        taken.update(aliases)
        kept.append(model.model_copy(update={"aliases": aliases}))
    return kept


def load(path: Path | None = None, *, offered: Sequence[str] = ()) -> Catalog:
    """Read a catalogue file; None reads the built-in one, with what is offered of the shelf before it.

    Raises:
        SetupError: the file cannot be read or is not a catalogue, or the shelf has no such name; the message
            says where and why.
    """
    catalog = _read(Catalog, path or resources.files("app.domain") / "models.yaml")
    return shelf().take(offered, catalog) if offered else catalog


def shelf() -> Shelf:
    """Read the shelf."""
    return _read(Shelf, resources.files("app.domain") / "shelf.yaml")


def _read(form: type[_Form], file: Traversable) -> _Form:
    try:
        return form.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        where = file if isinstance(file, Path) and file.is_absolute() else file.name
        raise SetupError(f"The catalogue {where} cannot be used: {error}") from error
