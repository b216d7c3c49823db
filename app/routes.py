"""The door's choice of who draws a job, made from numbers that are there already: it costs no statement."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from app.db.jobs import to_json
from app.domain.catalog import Catalog, Model, Target
from app.domain.routing import Choice, choose, unservable
from app.domain.spec import JobSpec
from app.errors import FieldProblem, InvalidFields, Unservable
from app.forecast import Forecast
from app.settings import Settings

_AGAIN: Final = timedelta(seconds=30)
"""After which a refused request may be sent again: the time in which a worker that came would be known."""
_ORDER: Final = ("width", "height", "prompt", "model")
"""Members of a spec, from the one whose problem is nearest to none."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """Who draws a job, and for its first event why not the one whom its model prefers (JSON; None: it is)."""

    target: Target
    routed: str | None = None


class Routes:
    """Chooses targets; thread-safe.

    Args:
        chance: gives random numbers in [0, 1), for weighted routing.
    """

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        forecast: Forecast,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._catalog = catalog
        self._forecast = forecast
        self._chance = chance
        self._refuses = not settings.unservable_after

    def choose(self, model: Model, spec: JobSpec, *, fields: Mapping[str, str]) -> Route:
        """Give who draws a job of this model; its spec, seed included, is the same wherever it goes.

        Args:
            spec: of what is to be drawn; its input images do not matter.
            fields: public names of the spec's members, for the error.

        Raises:
            InvalidFields: none of the model's targets can do it; names the problem of the nearest one.
            Unservable: nobody is there who can, and this installation accepts no job that must wait for that.
        """
        if len(model.targets) == 1 and not self._refuses:
            self._check(model, spec, fields)
            return Route(target=model.targets[0])
        given = self._forecast.options(model, spec)
        choice = choose(model, given, chance=self._chance())
        if choice is None:
            self._check(model, spec, fields)
        assert choice is not None
        if self._refuses and self._forecast.may_judge() and (reason := unservable(given)) is not None:
            raise Unservable(f"{model.id} cannot be drawn now: {reason}.", retry_after=_AGAIN)
        return Route(target=choice.option.target, routed=_told(choice) if choice.passed else None)

    def _check(self, model: Model, spec: JobSpec, fields: Mapping[str, str]) -> None:
        """Refuse a spec that no target can do."""
        problems: list[FieldProblem] = []
        for target in model.targets:
            capability = self._catalog.capability(target)
            problem = None if capability is None else capability.first_problem(spec)
            if problem is None:
                return
            problems.append(problem)
        nearest = min(problems, key=lambda problem: _ORDER.index(problem.field))
        who = "its provider says" if len(problems) == 1 else "the nearest of its providers says"
        raise InvalidFields(
            FieldProblem(
                field=fields.get(nearest.field, nearest.field),
                message=f"{model.id} cannot do this; {who}: {nearest.message}",
            )
        )


def _told(choice: Choice) -> str:
    target = choice.option.target
    return to_json(
        {
            "to": target.label,
            "to_queue": target.queue,
            "why": "; ".join(f"not {passed.label}: {why}" for passed, why in choice.passed),
        }
    )
