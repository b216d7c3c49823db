"""A relay's passes over the queues: jobs whose target is gone or too full go to another one of their model.

A job is moved with its spec, its seed and its turn. It never goes back to a target that failed it, nor within
a minute to one that it was moved away from. Because its queue is too full it only goes to a target where it
waits less, and of an ordered model only to a later one. So no job is passed to and fro.

What nobody draws fails once its queue has been without anybody for `unservable_after`, and the job has waited
as long; an upstream that is probed in vain is nobody. Each relay counts that time from when it first saw the
queue so: one that starts anew counts anew, as nothing in the tables says when a worker was there last.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.engine import Connection

from app.db import Database, moves, queues
from app.db.jobs import Place
from app.db.moves import Cursor, Move, Waiting
from app.domain.catalog import Catalog, Model, Target
from app.domain.routing import Option, QueueState, Scene, pick, unservable
from app.domain.spec import JobSpec
from app.errors import UnknownModel, Unservable
from app.lookout import Lookout
from app.settings import Settings

_BATCHES: Final = 5
"""Batches of one queue per pass: 500 jobs a second can leave, and the relay goes on releasing in between."""
_LONGEST_EXCHANGE: Final = timedelta(minutes=10)
"""With an upstream: a worker may be about to write what came of a call for so long after its job's end."""


@dataclass(frozen=True, kw_only=True)
class Rerouted:
    """How many jobs were moved to another target, and how many failed because nobody can draw them."""

    moved: int = 0
    given_up: int = 0

    def __add__(self, other: "Rerouted") -> "Rerouted":
        return Rerouted(moved=self.moved + other.moved, given_up=self.given_up + other.given_up)


def move_to(
    catalog: Catalog,
    spec: JobSpec,
    target: Target,
    *,
    left: str,
    left_queue: str,
    why: str,
    error_code: str | None = None,
) -> Move:
    """Give the move of a job to a target.

    Args:
        left: the target that it leaves, as provider/model.
        why: a sentence that a customer may read.
    """
    detail: dict[str, object] = {
        "from": left,
        "from_queue": left_queue,
        "to": target.label,
        "to_queue": target.queue,
        "why": why,
    }
    place = Place(
        provider=target.provider,
        target_model=target.model,
        queue=target.queue,
        batch_key=catalog.batch_key(spec, target),
    )
    return Move(place=place, detail=detail if error_code is None else {**detail, "error_code": error_code})


@dataclass(frozen=True, kw_only=True)
class _Sorted:
    """What becomes of jobs that were looked at; those in neither stay."""

    moves: dict[UUID, Move] = field(default_factory=dict)
    hopeless: dict[UUID, str] = field(default_factory=dict)


class Rerouting:
    """A relay's passes, and what it remembers from one to the next."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        catalog: Catalog,
        *,
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._lookout = Lookout(settings, catalog)
        self._clock = clock
        self._chance = chance
        self._stranded_after = settings.redispatch_after
        # A worker that is restarted is away for a moment, which says nothing.
        self._patience = max(settings.unservable_after, settings.lease).total_seconds()
        several = [model for model in catalog.models if len(model.targets) > 1]
        self._movable = _by_queue(several)
        self._spilling = _by_queue(model for model in several if model.spill_after is not None)
        self._pooled = sorted(self._movable)
        self._scene = Scene()
        self._away_since: dict[str, float] = {}
        self._stray_since: dict[str, float] = {}
        self._walks: dict[str, Cursor] = {}
        """How far the queues were walked through whose first jobs have nowhere to go."""

    def run(self) -> Rerouted:
        """Do one pass.

        Raises:
            DatabaseDown: what was moved so far stays moved.
        """
        with self._database.autocommit() as tx:
            runs = queues.run_seconds(tx) if self._spilling else None
            depths = moves.depths(tx, self._pooled) if self._pooled else None
            self._scene = self._lookout.look(tx, depths=depths, runs=runs)
            done = Rerouted()
            known = self._catalog.queues()
            for queue in known:
                done += self._visit(tx, self._scene.state(queue))
            done += self._visit_strays(tx, moves.strays(tx, known))
            if self._catalog.upstreams:
                moves.end_orphaned_calls(tx, after=_LONGEST_EXCHANGE)
        return done

    def _visit_strays(self, tx: Connection, strays: Sequence[str]) -> Rerouted:
        """Move jobs off queues that the catalogue no longer names, and give up what nobody else draws.

        Not before they were seen so for a while: where a release is under way, another process may know them.
        """
        now = self._clock()
        self._stray_since = {queue: self._stray_since.get(queue, now) for queue in strays}
        done = Rerouted()
        for queue, since in self._stray_since.items():
            if now - since >= moves.REST.total_seconds():
                moves.take_back_stranded(tx, queue, older_than=self._stranded_after)
                why = f"the catalogue has no target on {queue} any more"
                done += self._sift(tx, queue, why, gives_up=now - since >= self._patience)
        return done

    def _visit(self, tx: Connection, state: QueueState) -> Rerouted:
        if state.serves:
            self._away_since.pop(state.queue, None)
        if (why := state.away or state.paused) is not None:
            return self._leave(tx, state, why)
        self._walks.pop(state.queue, None)
        return self._spill(tx, state)

    def _leave(self, tx: Connection, state: QueueState, why: str) -> Rerouted:
        """Move what can be drawn elsewhere away from a queue, and give up what has waited too long on it."""
        queue, gives_up = state.queue, False
        if state.away is not None:
            since = self._away_since.setdefault(queue, self._clock())
            gives_up = self._clock() - since >= self._patience
        models = self._with_a_way_out(queue)
        if not models and not gives_up:
            return Rerouted()
        if state.slots is None:
            moves.take_back_stranded(tx, queue, older_than=self._stranded_after)
        return self._sift(tx, queue, why, gives_up=gives_up, models=models)

    def _sift(
        self, tx: Connection, queue: str, why: str, *, gives_up: bool, models: Sequence[str] | None = None
    ) -> Rerouted:
        """Look at the jobs of a queue that nobody draws, and write down what becomes of them.

        Those whose turn is next come first, while most of them leave. Behind those that stay the rest is
        walked through, a part in each pass: a backlog that stays is not read every time.
        """
        done, at_the_head = Rerouted(), True
        for _ in range(_BATCHES):
            if at_the_head:
                window = moves.waiting(tx, queue)
                at_an_end = len(window) < moves.WINDOW
            else:
                window, at_an_end = self._walk(tx, queue, models, gives_up=gives_up)
            ended = self._write(tx, queue, self._sorted(window, why, gives_up=gives_up))
            done += ended
            if at_an_end:
                break
            at_the_head = at_the_head and 2 * (ended.moved + ended.given_up) > len(window)
        return done

    def _walk(
        self, tx: Connection, queue: str, models: Sequence[str] | None, *, gives_up: bool
    ) -> tuple[list[Waiting], bool]:
        """Give the next jobs of a queue that may leave it, and whether they are the last ones."""
        window, cursor = moves.walk(
            tx,
            queue,
            after=self._walks.pop(queue, moves.START),
            models=models,
            older_than=timedelta(seconds=self._patience) if gives_up else None,
        )
        if cursor is not None:
            self._walks[queue] = cursor
        return window, cursor is None

    def _with_a_way_out(self, queue: str) -> list[str]:
        """Ids of the models on a queue of which another target is ready; jobs of others need not be read."""
        return [
            model.id
            for model in self._movable.get(queue, ())
            if any(
                option.unready is None and option.target.queue != queue
                for option in self._lookout.options(model, self._scene, None)
            )
        ]

    def _sorted(self, window: Sequence[Waiting], why: str, *, gives_up: bool) -> _Sorted:
        found = _Sorted()
        for job in window:
            spec = JobSpec.model_validate(job.spec)
            if spec.operation.transforms:
                continue  # only we do it, and no model is missed
            model = self._model(job)
            given = [] if model is None else self._options(model, spec, job)
            others = [option for option in given if not _is_at(option, job) and _is_open(option, job)]
            chosen = None if model is None else pick(model, others, chance=self._chance())
            if chosen is not None:
                found.moves[job.id] = self._moved(job, spec, chosen, why)
            elif gives_up and job.age >= self._patience:
                left = [one for one in given if _is_at(one, job) or not job.bought]
                reason = unservable(left) if left else why
                if reason is not None:
                    found.hopeless[job.id] = _sentence(reason)
        return found

    def _spill(self, tx: Connection, state: QueueState) -> Rerouted:
        """Move jobs that would wait too long on a queue to targets where they wait less."""
        here = self._spilling.get(state.queue, ())
        limits = [
            state.holds(self._scene.run(model.id, state.queue), model.spill_after)
            for model in here
            if model.spill_after is not None
        ]
        if not limits or state.depth <= min(limits):
            return Rerouted()
        done = Rerouted()
        # What is skipped are jobs that may wait here, no more than were counted, however long the queue is.
        for _ in range(_BATCHES):
            occupied = queues.occupied(tx, state.queue)
            skip = max(0, min(limits) - occupied + 1)
            window = moves.waiting(tx, state.queue, skip=skip)
            ended = self._write(tx, state.queue, self._too_late(window, state, occupied))
            done += ended
            if ended.moved < moves.WINDOW:
                break
        return done

    def _too_late(self, window: Sequence[Waiting], state: QueueState, occupied: int) -> _Sorted:
        found = _Sorted()
        for job in window:
            model = self._model(job)
            limit = None if model is None else model.spill_after
            if model is None or limit is None or job.bought:
                continue
            wait = state.wait(self._scene.run(model.id, state.queue), behind=occupied + job.position - 1)
            if wait <= limit:
                continue
            spec = JobSpec.model_validate(job.spec)
            given = self._options(model, spec, job)
            at = next((nth for nth, option in enumerate(given) if _is_at(option, job)), -1)
            others = [
                option
                for nth, option in enumerate(given)
                if option.wait < wait
                and _is_open(option, job)
                and (nth > at if model.routing == "ordered" else nth != at)
            ]
            chosen = pick(model, others, chance=self._chance())
            if chosen is not None:
                seconds, most = wait.total_seconds(), limit.total_seconds()
                why = f"the expected wait on {state.queue} is {seconds:.0f} s, more than {most:.0f} s"
                found.moves[job.id] = self._moved(job, spec, chosen, why)
        return found

    def _model(self, job: Waiting) -> Model | None:
        try:
            return self._catalog.find(job.model)
        except UnknownModel:
            return None

    def _options(self, model: Model, spec: JobSpec, job: Waiting) -> list[Option]:
        """The targets that can do a job and have not failed it, and the one where it is."""
        return [
            option
            for option in self._lookout.options(model, self._scene, spec)
            if _is_at(option, job) or (option.problem is None and option.target.label not in job.tried)
        ]

    def _moved(self, job: Waiting, spec: JobSpec, chosen: Option, why: str) -> Move:
        self._scene = self._scene.joined(chosen.target.queue)
        return move_to(
            self._catalog,
            spec,
            chosen.target,
            left=f"{job.provider}/{job.target_model or job.model}",
            left_queue=job.queue,
            why=why,
        )

    def _write(self, tx: Connection, queue: str, found: _Sorted) -> Rerouted:
        moved = moves.move(tx, queue, found.moves) if found.moves else []
        given_up = moves.give_up(tx, queue, found.hopeless, code=Unservable.code) if found.hopeless else []
        return Rerouted(moved=len(moved), given_up=len(given_up))


def _by_queue(models: Iterable[Model]) -> dict[str, list[Model]]:
    found: dict[str, list[Model]] = {}
    for model in models:
        for queue in {target.queue for target in model.targets}:
            found.setdefault(queue, []).append(model)
    return found


def _is_at(option: Option, job: Waiting) -> bool:
    target = option.target
    return (target.queue, target.provider) == (job.queue, job.provider) and job.target_model in {
        target.model,
        None,
    }


def _is_open(option: Option, job: Waiting) -> bool:
    """Whether a job may go there as far as its own past is concerned."""
    return not job.bought and option.target.queue not in job.left_queues


def _sentence(reason: str) -> str:
    return f"Nobody could draw it for too long: {reason}."
