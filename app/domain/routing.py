"""Which of a model's targets draws a job: the rules that door, relay and workers share.

Pure. A target can be unable (it cannot do the spec), away (nobody draws there now), paused or probed (its
provider asked not to be called for a while, or is tried with one job), or too full (its queue's expected wait
passes the model's `spill_after`). What is left is taken in order, or by weight.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from app.domain.breaker import BreakerState, Condition
from app.domain.catalog import Model, Target
from app.domain.upstreams import Upstream

LOADING: Final = timedelta(seconds=10)
"""How much longer a queue may be whose worker has the model in memory than one whose worker must bring it in
first, which takes 1 to 50 s. Also how long a pause that a provider asks for counts as a wait like others."""
USUAL_RUN: Final = 5.0
"""Seconds a job is taken to run while its model has no history on a queue."""
_WELL: Final = Condition(breaker=BreakerState.CLOSED, closed_for=0.0)


@dataclass(frozen=True, kw_only=True)
class QueueState:
    """Who takes jobs from a queue now, and how many it holds.

    Attributes:
        slots: jobs that its live workers take at a time; 0 while they get ready; None: there are none.
        depth: jobs that wait on it or run.
        warm: models that its live workers have in memory, as targets name them.
        upstream: the account whose queue it is; None: our own workers draw.
        condition: how that account is doing.
        has_key: whether a key for it is configured.
    """

    queue: str
    slots: int | None = None
    depth: int = 0
    warm: frozenset[str] = frozenset()
    upstream: Upstream | None = None
    condition: Condition = _WELL
    has_key: bool = True

    @property
    def away(self) -> str | None:
        """Why nobody draws here now, in words that a customer may read; None: somebody does."""
        if self.upstream is not None and not self.has_key:
            return f"no key is set for upstream {self.upstream.name}"
        if self.upstream is not None and self.condition.breaker is BreakerState.OPEN:
            return f"upstream {self.upstream.name} failed too often and is left alone for a while"
        if self.slots is None:
            return f"no live worker takes jobs from {self.queue}"
        return None

    @property
    def serves(self) -> bool:
        """Whether jobs are drawn here: one that is being probed only may be, so this is less than not away.

        An account that is closed for good is probed after every opening of its breaker.
        """
        return self.away is None and self.condition.breaker is BreakerState.CLOSED

    @property
    def paused(self) -> str | None:
        """Why it should be left alone although it is not away: its provider asked for a long pause."""
        if self.upstream is None or self.condition.closed_for <= LOADING.total_seconds():
            return None
        return f"upstream {self.upstream.name} asked not to be called for {self.condition.closed_for:.0f} s"

    @property
    def probed(self) -> str | None:
        """Why it takes no more although it is not away: a job that shows whether it is well is there."""
        if self.upstream is None or self.condition.breaker is not BreakerState.HALF_OPEN or self.depth < 1:
            return None
        return f"upstream {self.upstream.name} is being tried with one job"

    def wait(self, run: float, *, behind: int | None = None) -> timedelta:
        """Give how long a job waits here before it starts, a pause that the provider asked for included.

        As long as a slot is free the next job starts at once; each one more before it costs one `pace`.

        Args:
            run: seconds a job runs.
            behind: jobs before it, the running ones included; None: all that are here.
        """
        before = max(0, (self.depth if behind is None else behind) - self._width + 1)
        return timedelta(seconds=self._pause + before * self.pace(run))

    def holds(self, run: float, limit: timedelta) -> int:
        """Give how many jobs may be before one so that it waits no longer than this; may be negative."""
        left = limit.total_seconds() - self._pause
        return -1 if left < 0 else self._width - 1 + int(left / self.pace(run))

    def pace(self, run: float) -> float:
        """Give the mean seconds between two starts while jobs wait.

        A run divided by the slots, of an upstream at most its concurrency; no less than its rate limit asks.
        """
        least = 0.0
        if self.upstream is not None and self.upstream.calls_per_minute is not None:
            least = 60 / self.upstream.calls_per_minute
        return max(run / self._width, least, 1e-6)

    @property
    def _width(self) -> int:
        """Jobs that run here at a time."""
        if self.upstream is None:
            return max(1, self.slots or 0)
        alone = self.condition.breaker is BreakerState.HALF_OPEN
        return max(1, min(self.slots or 0, 1 if alone else self.upstream.concurrency))

    @property
    def _pause(self) -> float:
        """Seconds until anything starts."""
        warming = LOADING.total_seconds() if self.slots == 0 else 0.0
        return max(warming, self.condition.closed_for)


def at_upstream(state: QueueState, upstream: Upstream, *, condition: Condition, has_key: bool) -> QueueState:
    """Give the state of a queue whose jobs go to an upstream account."""
    return replace(state, upstream=upstream, condition=condition, has_key=has_key)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """All queues at one moment, and how long jobs run.

    Attributes:
        runs: mean seconds by model and queue, where there is a history.
    """

    queues: Mapping[str, QueueState] = field(default_factory=dict)
    runs: Mapping[tuple[str, str], float] = field(default_factory=dict)

    def state(self, queue: str) -> QueueState:
        """Give a queue's state; of one that is not known: nobody is there."""
        return self.queues.get(queue) or QueueState(queue=queue)

    def run(self, model: str, queue: str) -> float:
        """Give how many seconds a job of this model runs on this queue, by its recent ones."""
        return self.runs.get((model, queue), USUAL_RUN)

    def joined(self, queue: str) -> "Scene":
        """Give the scene with one more job on a queue."""
        state = self.state(queue)
        return replace(self, queues={**self.queues, queue: replace(state, depth=state.depth + 1)})


@dataclass(frozen=True, kw_only=True)
class Option:
    """A target as one job sees it.

    Attributes:
        problem: why it cannot do the spec; None: it can.
        wait: how long the job would wait there.
    """

    target: Target
    state: QueueState
    wait: timedelta = timedelta(0)
    problem: str | None = None

    @property
    def is_warm(self) -> bool:
        """Whether the job need not wait for the model: it is in memory, or not ours to bring there."""
        return self.target.provider != "diffusers" or self.target.model in self.state.warm

    @property
    def unready(self) -> str | None:
        """Why the job should not be sent here now, however full it is; None: it may."""
        return self.problem or self.state.away or self.state.paused or self.state.probed

    def unfit(self, limit: timedelta | None) -> str | None:
        """Give why the job should rather go elsewhere; None: it is well placed here.

        Args:
            limit: the wait that is too long.
        """
        if self.unready is None and limit is not None and self.wait > limit:
            asked, most = self.wait.total_seconds(), limit.total_seconds()
            return f"the expected wait on {self.state.queue} is {asked:.0f} s, more than {most:.0f} s"
        return self.unready


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The target that was chosen.

    Attributes:
        passed: those that were passed over, each with the reason; none: it is the first preference.
    """

    option: Option
    passed: tuple[tuple[Target, str], ...] = ()


def options(model: Model, scene: Scene, problems: Mapping[int, str | None] | None = None) -> list[Option]:
    """Give a model's targets as a job sees them that would join the end of each queue.

    Args:
        problems: why a target cannot do the spec, by its place in the model's list; None: all can.
    """
    found = []
    for index, target in enumerate(model.targets):
        state = scene.state(target.queue)
        found.append(
            Option(
                target=target,
                state=state,
                wait=state.wait(scene.run(model.id, target.queue)),
                problem=problems.get(index) if problems else None,
            )
        )
    return found


def choose(model: Model, given: Sequence[Option], *, chance: float) -> Choice | None:
    """Give who draws a new job; None when no target can do its spec.

    The best one by `pick`. When none is ready: the one that is there with the least wait; when none is there:
    the first that can do it, and the job waits for somebody to come.

    Args:
        given: the model's targets, in order.
        chance: a random number in [0, 1), for weighted routing.
    """
    able = [option for option in given if option.problem is None]
    if not able:
        return None
    there = [option for option in able if option.state.away is None]
    chosen = pick(model, able, chance=chance)
    if chosen is None:
        chosen = min(there, key=lambda option: option.wait) if there else able[0]
    before = given if model.routing == "weighted" else given[: given.index(chosen)]
    passed = [
        (option.target, why)
        for option in before
        if option is not chosen and (why := _why_passed(option, model)) is not None
    ]
    return Choice(option=chosen, passed=tuple(passed))


def _why_passed(option: Option, model: Model) -> str | None:
    why = option.unfit(model.spill_after)
    if why is None and model.routing == "ordered":
        return f"its model is not in memory on {option.state.queue}"
    return why


def pick(model: Model, given: Sequence[Option], *, chance: float) -> Option | None:
    """Give the best of the targets that a job may be sent to now; None when there is none.

    Of those whose wait is within `spill_after` the first, or one by weight; of targets that are equal, which
    name the same provider and model on another queue, rather one that has the model in memory. When all wait
    too long, the one with the least wait.
    """
    ready = [option for option in given if option.unready is None]
    fitting = [option for option in ready if option.unfit(model.spill_after) is None]
    if not fitting:
        return min(ready, key=lambda option: option.wait, default=None)
    first = _by_weight(fitting, chance) if model.routing == "weighted" else fitting[0]
    return _warm_equal(first, fitting)


def _by_weight(given: Sequence[Option], chance: float) -> Option:
    left = chance * sum(option.target.weight for option in given)
    for option in given:
        left -= option.target.weight
        if left < 0:
            return option
    return given[-1]


def _warm_equal(first: Option, given: Sequence[Option]) -> Option:
    if first.is_warm:
        return first
    equals = [
        option
        for option in given
        if option.target.label == first.target.label
        and option.is_warm
        and option.wait <= first.wait + LOADING
    ]
    return min(equals, key=lambda option: option.wait, default=first)


def unservable(given: Sequence[Option]) -> str | None:
    """Give why nobody can draw a job now, in words that a customer may read; None when somebody can.

    One that is merely full, asked for a pause, or is being probed can.

    Args:
        given: the targets of its model.
    """
    able = [option.state.away for option in given if option.problem is None]
    reasons = [reason for reason in able if reason is not None]
    if len(reasons) < len(able):
        return None
    return "; ".join(dict.fromkeys(reasons)) or "no target of its model can do what it asks for"
