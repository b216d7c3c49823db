"""Who could draw what at this moment: live workers, upstream accounts and their keys, as one `Scene`."""

from collections.abc import Mapping

from sqlalchemy.engine import Connection

from app.db import moves, upstreams
from app.domain import routing
from app.domain.catalog import Catalog, Model
from app.domain.routing import Option, QueueState, Scene
from app.domain.spec import JobSpec
from app.settings import Settings


class Lookout:
    """Looks at the tables for all that routing asks about; keeps nothing, so it is thread-safe."""

    def __init__(self, settings: Settings, catalog: Catalog) -> None:
        self._catalog = catalog
        self._upstreams = {upstream.queue: upstream for upstream in catalog.upstreams}
        self._rates = {upstream.name: upstream.calls_per_minute for upstream in catalog.upstreams}
        self._keys = frozenset(settings.keys_of_upstreams)

    def look(
        self,
        tx: Connection,
        *,
        depths: Mapping[str, int] | None = None,
        runs: Mapping[tuple[str, str], float] | None = None,
    ) -> Scene:
        """Give how all queues are doing; two small statements, or one where there are no upstreams.

        Args:
            depths: how many jobs each queue holds; None: none, as far as waits are concerned.
            runs: how long jobs run, by model and queue.
        """
        crews = moves.crews(tx)
        conditions = upstreams.conditions(tx, self._rates) if self._rates else {}
        found = {}
        for queue in self._catalog.queues():
            upstream = self._upstreams.get(queue)
            crew = crews.get(queue)
            state = QueueState(
                queue=queue,
                slots=crew.slots if crew else None,
                depth=(depths or {}).get(queue, 0),
                warm=crew.warm if crew else frozenset(),
            )
            if upstream is not None:
                state = routing.at_upstream(
                    state,
                    upstream,
                    condition=conditions[upstream.name],
                    has_key=upstream.name in self._keys,
                )
            found[queue] = state
        return Scene(queues=found, runs=runs or {})

    def options(self, model: Model, scene: Scene, spec: JobSpec | None) -> list[Option]:
        """Give a model's targets as a job sees them; without a spec none is unable."""
        problems = None
        if spec is not None:
            problems = {
                index: self._catalog.problem_with(spec, target) for index, target in enumerate(model.targets)
            }
        return routing.options(model, scene, problems)
