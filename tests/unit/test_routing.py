"""Routing: which target draws a job, in order or by weight, and why the others do not."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.breaker import BreakerState, Condition
from app.domain.catalog import Model
from app.domain.routing import LOADING, Choice, QueueState, Scene, choose, options, pick, unservable
from app.domain.upstreams import Upstream

FIRST, SECOND, THIRD = "gpu.a", "gpu.b", "provider.shop"
SHOP = Upstream(name="shop", api="openai", base_url="https://shop.example/v1", concurrency=4)


def model(*, targets: list[dict[str, Any]] | None = None, **changes: Any) -> Model:
    """A model with three targets: two queues of our own GPUs with the same weights, then an upstream."""
    fields: dict[str, Any] = {
        "id": "hill",
        "name": "Hill",
        "created_at": "2026-11-25T00:00:00Z",
        "operations": ["text_to_image"],
        "width": 64,
        "height": 64,
        "size": {"min": 8, "max": 2048, "max_pixels": 4_194_304},
        "max_images": 4,
        "defaults": {"num_inference_steps": 4, "guidance_scale": 5.0, "strength": 0.7},
        "targets": targets
        or [
            {"provider": "diffusers", "model": "hill", "queue": FIRST},
            {"provider": "diffusers", "model": "hill", "queue": SECOND},
            {"provider": "shop", "model": "hills-1"},
        ],
    }
    return Model.model_validate({**fields, **changes})


def at(queue: str, slots: int | None = 1, **changes: Any) -> QueueState:
    """A queue with a worker that has the model in memory, unless told otherwise."""
    return QueueState(queue=queue, slots=slots, **{"warm": frozenset({"hill"}), **changes})


def shop(
    breaker: BreakerState = BreakerState.CLOSED, *, closed_for: float = 0.0, **changes: Any
) -> QueueState:
    condition = Condition(breaker=breaker, closed_for=closed_for, reason="HTTP 500 from 10.0.0.7")
    return at(THIRD, **{"upstream": SHOP, "condition": condition, "slots": 8, **changes})


def chosen(
    wanted: Model,
    *states: QueueState,
    chance: float = 0.0,
    problems: dict[int, str | None] | None = None,
    run: float = 1.0,
) -> Choice:
    queues = {state.queue: state for state in states}
    runs = {(wanted.id, queue): run for queue in queues}
    choice = choose(wanted, options(wanted, Scene(queues=queues, runs=runs), problems), chance=chance)
    assert choice is not None
    return choice


def queue_of(choice: Choice) -> str:
    return choice.option.target.queue


def reasons(choice: Choice) -> list[str]:
    return [why for _, why in choice.passed]


def test_the_first_target_is_taken_while_it_is_there_and_nothing_is_said() -> None:
    choice = chosen(model(), at(FIRST), at(SECOND), shop())

    assert queue_of(choice) == FIRST
    assert choice.passed == ()


def test_a_target_without_a_live_worker_is_passed_over_and_the_reason_kept() -> None:
    choice = chosen(model(), at(FIRST, None), at(SECOND), shop())

    assert queue_of(choice) == SECOND
    assert reasons(choice) == ["no live worker takes jobs from gpu.a"]


def test_a_target_that_cannot_do_the_spec_is_passed_over() -> None:
    problems: dict[int, str | None] = {0: "it draws 64 × 64, not 128 × 128", 1: None, 2: None}

    choice = chosen(model(), at(FIRST), at(SECOND), problems=problems)

    assert queue_of(choice) == SECOND
    assert reasons(choice) == ["it draws 64 × 64, not 128 × 128"]


def test_no_able_target_gives_no_choice() -> None:
    wanted = model()

    assert choose(wanted, options(wanted, Scene(), dict.fromkeys(range(3), "it cannot")), chance=0) is None


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (shop(BreakerState.OPEN, closed_for=12), "failed too often"),
        (shop(has_key=False), "no key is set for upstream shop"),
        (shop(slots=None), "no live worker takes jobs from provider.shop"),
        (shop(closed_for=60), "asked not to be called for 60 s"),
        (shop(BreakerState.HALF_OPEN, depth=1), "is being tried with one job"),
    ],
)
def test_an_upstream_that_is_not_to_be_called_is_passed_over(state: QueueState, why: str) -> None:
    wanted = model(
        targets=[{"provider": "shop", "model": "h"}, {"provider": "x", "model": "h", "queue": FIRST}]
    )

    choice = chosen(wanted, state, at(FIRST))

    assert queue_of(choice) == FIRST
    assert why in reasons(choice)[0]
    assert "10.0.0.7" not in reasons(choice)[0], "what a provider said of itself is for operators"


@pytest.mark.parametrize(
    "state", [shop(), shop(BreakerState.HALF_OPEN), shop(closed_for=LOADING.total_seconds())]
)
def test_an_upstream_that_is_well_about_to_be_tried_or_briefly_paused_is_taken(state: QueueState) -> None:
    wanted = model(
        targets=[{"provider": "shop", "model": "h"}, {"provider": "x", "model": "h", "queue": FIRST}]
    )

    assert queue_of(chosen(wanted, state, at(FIRST))) == THIRD


def test_a_job_spills_over_once_the_expected_wait_passes_the_limit() -> None:
    wanted = model(spill_after=timedelta(seconds=30))

    # One slot, a second each: 30 waiting jobs and the running one are 31 s.
    assert queue_of(chosen(wanted, at(FIRST, depth=30), at(SECOND, depth=50), shop())) == FIRST
    choice = chosen(wanted, at(FIRST, depth=31), at(SECOND, depth=50), shop())
    assert queue_of(choice) == THIRD
    assert reasons(choice)[0] == "the expected wait on gpu.a is 31 s, more than 30 s"


def test_without_a_limit_a_job_waits_however_long() -> None:
    assert queue_of(chosen(model(), at(FIRST, depth=5000), at(SECOND), shop())) == FIRST


def test_when_all_are_too_full_the_shortest_wait_is_taken() -> None:
    wanted = model(spill_after=timedelta(seconds=5))

    assert queue_of(chosen(wanted, at(FIRST, depth=90), at(SECOND, depth=20), at(THIRD, depth=50))) == SECOND


def test_when_nobody_is_there_the_first_able_target_waits_for_somebody() -> None:
    choice = chosen(model(), problems={0: "it cannot", 1: None, 2: None})

    assert queue_of(choice) == SECOND


def test_a_paused_provider_is_better_than_one_that_is_away() -> None:
    wanted = model(
        targets=[{"provider": "x", "model": "h", "queue": FIRST}, {"provider": "shop", "model": "h"}]
    )

    assert queue_of(chosen(wanted, at(FIRST, None), shop(closed_for=60))) == THIRD


@given(chance=st.floats(min_value=0, max_value=1, exclude_max=True))
def test_every_chance_gives_a_target_that_fits(chance: float) -> None:
    wanted = model(routing="weighted")

    assert queue_of(chosen(wanted, at(FIRST, None), at(SECOND), shop(), chance=chance)) != FIRST


def test_weights_share_the_jobs_between_those_that_fit() -> None:
    weights = {FIRST: 7, SECOND: 2, THIRD: 1}
    wanted = model(
        routing="weighted",
        targets=[
            {"provider": "x", "model": "a", "queue": FIRST, "weight": 7},
            {"provider": "x", "model": "b", "queue": SECOND, "weight": 2},
            {"provider": "shop", "model": "c", "weight": 1},
        ],
    )

    def share(*states: QueueState) -> Counter[str]:
        return Counter(queue_of(chosen(wanted, *states, chance=nth / 2000)) for nth in range(2000))

    all_there, one_gone = share(at(FIRST), at(SECOND), shop()), share(at(FIRST, None), at(SECOND), shop())

    assert all(abs(all_there[queue] / 2000 - weight / 10) < 0.001 for queue, weight in weights.items())
    assert one_gone[FIRST] == 0
    assert abs(one_gone[SECOND] / 2000 - 2 / 3) < 0.001


def test_a_choice_by_weight_says_only_who_could_not_take_it() -> None:
    wanted = model(routing="weighted")

    assert chosen(wanted, at(FIRST), at(SECOND), shop(), chance=0.9).passed == ()
    assert reasons(chosen(wanted, at(FIRST, None), at(SECOND), shop(), chance=0.9)) == [
        "no live worker takes jobs from gpu.a"
    ]


def test_of_equal_targets_the_one_with_the_model_in_memory_is_preferred() -> None:
    cold = frozenset[str]()

    choice = chosen(model(), at(FIRST, warm=cold), at(SECOND), shop())

    assert queue_of(choice) == SECOND
    assert reasons(choice) == ["its model is not in memory on gpu.a"]
    assert queue_of(chosen(model(), at(FIRST, warm=cold), at(SECOND, warm=cold), shop())) == FIRST


def test_a_model_in_memory_is_worth_about_the_time_it_takes_to_load() -> None:
    cold, load = frozenset[str](), int(LOADING.total_seconds())

    assert queue_of(chosen(model(), at(FIRST, warm=cold), at(SECOND, depth=load))) == SECOND
    assert queue_of(chosen(model(), at(FIRST, warm=cold), at(SECOND, depth=load + 1))) == FIRST


def test_another_provider_is_no_equal_however_cold_the_first_one_is() -> None:
    wanted = model(
        targets=[
            {"provider": "diffusers", "model": "hill", "queue": FIRST},
            {"provider": "shop", "model": "h"},
        ]
    )

    assert queue_of(chosen(wanted, at(FIRST, warm=frozenset()), shop())) == FIRST


def test_a_wait_is_counted_in_slots_concurrency_and_rate() -> None:
    slow = SHOP.model_copy(update={"calls_per_minute": 6})

    def seconds(state: QueueState) -> float:
        return state.wait(8.0).total_seconds()

    assert seconds(at(FIRST, 4, depth=3)) == 0
    assert seconds(at(FIRST, 4, depth=4)) == 2
    assert seconds(at(FIRST, 4, depth=7)) == 8
    assert seconds(shop(depth=5)) == 4, "eight slots, and a concurrency of four"
    assert seconds(shop(BreakerState.HALF_OPEN, depth=5)) == 40, "one at a time"
    assert seconds(shop(depth=5, upstream=slow)) == 20, "one in ten seconds"
    assert seconds(shop(depth=4, closed_for=7)) == 9


def test_a_worker_that_is_getting_ready_is_there_and_worth_a_wait() -> None:
    state = at(FIRST, 0)

    assert state.away is None
    assert state.wait(1.0) == LOADING


@given(
    depth=st.integers(0, 500),
    slots=st.integers(1, 9),
    run=st.floats(0.1, 60),
    limit=st.integers(1, 600),
)
def test_a_queue_holds_as_many_jobs_as_wait_within_the_limit(
    depth: int, slots: int, run: float, limit: int
) -> None:
    state, most = at(FIRST, slots), timedelta(seconds=limit)

    holds = state.holds(run, most)

    assert state.wait(run, behind=holds) <= most + timedelta(milliseconds=1)
    assert state.wait(run, behind=holds + 1) > most - timedelta(milliseconds=1)
    assert (state.wait(run, behind=depth) <= most) == (depth <= holds) or depth in {holds, holds + 1}


def test_nobody_being_there_is_unservable_with_every_reason_once() -> None:
    wanted = model()
    scene = Scene(queues={state.queue: state for state in (at(FIRST, None), shop(has_key=False))})

    assert unservable(options(wanted, scene)) == (
        "no live worker takes jobs from gpu.a; no live worker takes jobs from gpu.b; "
        "no key is set for upstream shop"
    )


@pytest.mark.parametrize(
    "state",
    [at(FIRST, depth=9000), at(FIRST, 0), shop(closed_for=600), shop(BreakerState.HALF_OPEN, depth=3)],
)
def test_one_that_is_full_getting_ready_paused_or_tried_is_not_unservable(state: QueueState) -> None:
    assert unservable(options(model(), Scene(queues={state.queue: state}))) is None


def test_a_target_that_is_there_but_cannot_do_the_spec_serves_nobody() -> None:
    scene = Scene(queues={THIRD: shop()})

    given_ = options(model(), scene, {0: None, 1: None, 2: "it does not do inpaint"})

    assert unservable(given_) == "no live worker takes jobs from gpu.a; no live worker takes jobs from gpu.b"


def test_nothing_is_picked_where_nobody_is_ready() -> None:
    wanted = model()
    scene = Scene(queues={THIRD: shop(closed_for=99)})

    assert pick(wanted, options(wanted, scene), chance=0.5) is None
