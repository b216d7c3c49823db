"""One pool: what a relay does with jobs whose target is gone, broken or too full."""

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app.db import Database, jobs, moves, upstreams
from app.settings import Settings
from tests import rows
from tests.conftest import Account
from tests.targets import ANNEX, GPU, SHOP, Basin, break_, buy, dismiss, mend, staff, with_targets

HOUR = timedelta(hours=1)


@pytest.fixture
def basin(settings: Settings, database: Database, account: Account, tmp_path: Path) -> Basin:
    return Basin(with_targets(settings, tmp_path), database, account.id)


# A target that is gone


def test_jobs_of_a_queue_without_a_worker_go_to_the_next_target_as_they_are(
    basin: Basin, database: Database
) -> None:
    staff(database, SHOP)
    moved, single = basin.job(), basin.job("lone")
    before = rows.job(database, moved)

    assert basin.reroute() == (1, 0)

    after = rows.job(database, moved)
    changed = {name for name, value in after.columns.items() if value != before.columns[name]}
    assert changed == {"provider", "target_model", "queue", "batch_key"}, "neither spec nor turn"
    assert (after.provider, after.target_model, after.queue) == ("shop", "hills-1", SHOP)
    assert before.batch_key is not None
    assert after.batch_key is None
    event = basin.last_event(moved)
    assert (event.from_status, event.to_status, event.reason) == ("queued", "queued", "rerouted")
    assert event.detail == {
        "from": "diffusers/hill",
        "from_queue": GPU,
        "to": "shop/hills-1",
        "to_queue": SHOP,
        "why": "no live worker takes jobs from gpu.hill",
    }
    assert basin.queue(single) == GPU


def test_a_move_to_a_gpu_gives_the_job_the_batch_key_of_that_gpu(basin: Basin, database: Database) -> None:
    staff(database, GPU)
    there, back = basin.job(), basin.job(at=1)

    assert basin.reroute() == (1, 0)

    assert rows.job(database, back).batch_key == rows.job(database, there).batch_key is not None


def test_a_job_goes_only_where_its_spec_can_be_drawn(basin: Basin, database: Database) -> None:
    staff(database, SHOP)
    small, large = basin.job(width=128), basin.job(width=256)

    assert basin.reroute() == (1, 0)
    assert (basin.queue(small), basin.queue(large)) == (SHOP, GPU)

    staff(database, ANNEX)
    assert basin.reroute() == (1, 0)
    assert basin.queue(large) == ANNEX


def test_an_open_breaker_sends_jobs_on_and_a_closed_one_takes_no_job_back(
    basin: Basin, database: Database
) -> None:
    staff(database, SHOP)
    staff(database, ANNEX)
    job_id = basin.job("bought")
    assert basin.reroute() == (0, 0)

    break_(database, "shop")
    assert basin.reroute() == (1, 0)
    assert basin.queue(job_id) == ANNEX
    assert "10.0.0.7" not in basin.last_event(job_id).detail["why"]

    mend(database, "shop")
    assert basin.reroute() == (0, 0)
    assert basin.queue(job_id) == ANNEX


def test_a_long_pause_sends_jobs_on_and_a_short_one_does_not(basin: Basin, database: Database) -> None:
    staff(database, SHOP)
    staff(database, ANNEX)
    basin.job("bought")
    with database.autocommit() as tx:
        upstreams.ensure(tx, "shop")
        upstreams.failed(tx, "shop", reason="busy", pause=timedelta(seconds=5))
    assert basin.reroute() == (0, 0)

    with database.autocommit() as tx:
        upstreams.failed(tx, "shop", reason="busy", pause=timedelta(seconds=60))
    assert basin.reroute() == (1, 0)


def test_two_targets_that_break_in_turn_do_not_pass_a_job_to_and_fro(
    basin: Basin, database: Database
) -> None:
    staff(database, SHOP)
    staff(database, ANNEX)
    job_id = basin.job("bought")
    break_(database, "shop")
    assert basin.reroute() == (1, 0)

    mend(database, "shop")
    break_(database, "annex")
    assert [basin.reroute() for _ in range(5)] == [(0, 0)] * 5

    rows.execute(database, "UPDATE job_events SET at = at - interval '61 s'")
    assert basin.reroute() == (1, 0)
    assert basin.queue(job_id) == SHOP


def test_a_job_never_goes_back_to_a_target_that_failed_it(basin: Basin, database: Database) -> None:
    staff(database, SHOP)
    staff(database, ANNEX)
    job_id = basin.job(tried=["shop/hills-1"])

    assert basin.reroute() == (1, 0)

    assert basin.queue(job_id) == ANNEX


@pytest.mark.parametrize(("state", "stays"), [("accepted", True), ("refused", False)])
def test_a_job_whose_provider_took_the_call_waits_for_it_and_is_not_bought_twice(
    basin: Basin, database: Database, state: str, *, stays: bool
) -> None:
    staff(database, SHOP)
    staff(database, ANNEX)
    job_id = basin.job("bought", attempt=1)
    buy(database, job_id, state)
    break_(database, "shop")

    assert basin.reroute() == ((0, 0) if stays else (1, 0))


def test_jobs_stranded_with_a_dead_workers_wake_ups_are_moved_too(basin: Basin, database: Database) -> None:
    staff(database, SHOP)
    stranded = basin.job(dispatched_at="now() - interval '1 minute'")
    fresh = basin.job(dispatched_at="now()")

    assert basin.reroute() == (1, 0)

    assert (basin.queue(stranded), basin.queue(fresh)) == (SHOP, GPU)


def test_what_runs_or_was_released_to_a_live_worker_is_left_alone(basin: Basin, database: Database) -> None:
    staff(database, SHOP)
    staff(database, ANNEX)
    basin.job("bought", dispatched_at="now() - interval '1 minute'")
    running: dict[str, Any] = {"status": "processing", "attempt": 1, "lease_owner": "w"}
    basin.job("bought", **running, lease_until="now() + interval '9 s'", deadline_at="now() + interval '9 s'")
    break_(database, "shop")

    assert basin.reroute() == (0, 0)


def test_nobody_is_judged_before_workers_had_the_time_of_a_lease(basin: Basin, database: Database) -> None:
    staff(database, SHOP)
    basin.job()
    fresh = basin.another()

    assert fresh.reroute_now_and_then().moved == 0
    basin.pool.give_time()
    assert basin.pool.reroute_now_and_then().moved == 0

    basin.pass_by(basin.settings.lease)
    assert fresh.reroute_now_and_then().moved == 1


def test_relays_at_once_move_each_job_once(basin: Basin, database: Database) -> None:
    staff(database, SHOP)
    ids = [basin.job() for _ in range(450)]
    pools = [basin.another() for _ in range(3)]
    basin.pass_by(HOUR / 2)

    threads = [threading.Thread(target=pool.reroute_now_and_then) for pool in pools]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while basin.reroute() != (0, 0):
        continue

    assert {basin.queue(job_id) for job_id in ids} == {SHOP}
    events = rows.query(database, "SELECT job_id FROM job_events WHERE reason = 'rerouted'")
    assert sorted(event.job_id for event in events) == sorted(ids)


def test_jobs_that_can_go_nowhere_do_not_hide_those_that_can(basin: Basin, database: Database) -> None:
    staff(database, SHOP)
    for _ in range(moves.WINDOW + 50):
        basin.job(width=512)
    last = basin.job()

    assert sum(basin.reroute()[0] for _ in range(3)) == 1
    assert basin.queue(last) == SHOP


# A target that is too full


def test_jobs_beyond_the_expected_wait_spill_over_until_it_is_as_long_there(
    basin: Basin, database: Database
) -> None:
    """Without a history a job counts 5 s: one slot starts six more jobs within 30 s, the shop two at once."""
    staff(database, GPU, slots=1)
    staff(database, SHOP, slots=8)
    ids = [basin.job() for _ in range(40)]

    moved, _ = basin.reroute()

    assert [basin.queue(job_id) for job_id in ids[:7]] == [GPU] * 7
    assert [basin.queue(job_id) for job_id in ids[7 : 7 + moved]] == [SHOP] * moved
    assert 20 <= moved <= 33
    event = basin.last_event(ids[7])
    assert event.detail["why"] == "the expected wait on gpu.hill is 35 s, more than 30 s"
    assert rows.job(database, ids[7]).spec["seed"] == 77


def test_what_spilled_over_stays_there(basin: Basin, database: Database) -> None:
    staff(database, GPU)
    staff(database, SHOP, slots=8)
    staff(database, ANNEX, slots=8)
    for _ in range(60):
        basin.job()
    while basin.reroute() != (0, 0):
        continue

    dismiss(database, ANNEX)
    staff(database, GPU, slots=50)
    rows.execute(database, "UPDATE job_events SET at = at - interval '61 s'")

    assert basin.reroute()[0] > 0, "only those of the annex, which is gone"
    assert basin.reroute() == (0, 0)
    ways = rows.query(database, "SELECT detail->>'from' AS left FROM job_events WHERE reason = 'rerouted'")
    assert "shop/hills-1" not in {way.left for way in ways}


def test_nothing_spills_over_to_where_it_would_wait_as_long(basin: Basin, database: Database) -> None:
    staff(database, GPU)
    staff(database, SHOP)
    for _ in range(20):
        basin.job()
    for _ in range(25):
        basin.job("bought")

    assert basin.reroute() == (0, 0)


def test_by_weight_too_nothing_swings(basin: Basin, database: Database) -> None:
    staff(database, SHOP, slots=2)
    staff(database, ANNEX, slots=2)
    for _ in range(60):
        basin.job("dice")
    moved = [basin.reroute()[0] for _ in range(6)]

    assert moved[0] > 10
    assert moved[1:] == [0] * 5


def test_the_expected_wait_is_by_the_latest_runs_on_that_queue(basin: Basin, database: Database) -> None:
    staff(database, GPU)
    staff(database, SHOP)
    for _ in range(30):
        basin.job()
    done: dict[str, Any] = {"status": "completed", "attempt": 1, "started_at": "now() - interval '1 s'"}
    basin.job(**done, finished_at="now()")

    assert basin.reroute() == (0, 0), "thirty jobs of a second each"


def test_an_account_with_few_jobs_is_not_moved_behind_one_with_many(
    basin: Basin, database: Database, stranger: Account
) -> None:
    staff(database, GPU)
    staff(database, SHOP)
    for _ in range(40):
        basin.job()
    few = [basin.job(owner=stranger.id) for _ in range(2)]

    assert basin.reroute()[0] > 0

    assert [basin.queue(job_id) for job_id in few] == [GPU, GPU]


# Paid calls that nobody asks for any more


@pytest.mark.parametrize(
    ("state", "becomes"), [("accepted", "failed"), ("sending", "unknown"), ("completed", "completed")]
)
def test_a_call_of_a_job_that_was_cancelled_between_two_attempts_does_not_stay_open(
    basin: Basin, database: Database, state: str, becomes: str
) -> None:
    cancelled, waiting = basin.job("bought", attempt=1), basin.job("bought", attempt=1)
    for job_id in (cancelled, waiting):
        buy(database, job_id, state)
    with database.autocommit() as tx:
        assert jobs.cancel(tx, cancelled, account_id=basin.account_id) == "cancelled"

    def states() -> dict[UUID, str]:
        calls = rows.query(database, "SELECT job_id, state FROM upstream_calls")
        return {call.job_id: call.state for call in calls}

    basin.reroute()
    assert set(states().values()) == {state}, "a worker may still be at it"

    rows.execute(database, "UPDATE jobs SET finished_at = finished_at - interval '11 minutes'")
    basin.reroute()
    assert states() == {cancelled: becomes, waiting: state}
