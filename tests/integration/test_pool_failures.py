"""One pool: where a job goes that its provider failed, and what becomes of one that nobody can draw."""

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app.db import Database, jobs
from app.db.jobs import Claim
from app.db.moves import Move
from app.domain.breaker import LONGEST_OPENING
from app.domain.job import Reason, Status
from app.domain.spec import JobSpec
from app.errors import (
    ContentRefused,
    DarkroomError,
    DeadlineExceeded,
    Deferred,
    ProviderBusy,
    ProviderDenied,
    ProviderDown,
    ProviderRefused,
    StorageDown,
    UpstreamAmbiguous,
)
from app.settings import Settings
from tests import invariants, rows
from tests.conftest import Account
from tests.targets import ANNEX, GPU, SHOP, Basin, break_, buy, dismiss, mend, staff, with_targets

HOUR = timedelta(hours=1)


@pytest.fixture
def basin(settings: Settings, database: Database, account: Account, tmp_path: Path) -> Basin:
    return Basin(with_targets(settings, tmp_path), database, account.id)


# Nobody at all


def test_a_job_fails_once_nobody_could_draw_it_for_so_long(basin: Basin, database: Database) -> None:
    old, young = basin.job(created_at="now() - interval '2 hours'"), basin.job()
    assert basin.reroute() == (0, 0)
    basin.pass_by(HOUR - timedelta(seconds=5))
    assert basin.reroute() == (0, 0)

    basin.pass_by(timedelta(seconds=5))
    assert basin.reroute() == (0, 1)

    job = rows.job(database, old)
    assert (job.status, job.error_code, job.attempt) == ("failed", "unservable", 0)
    for queue in (GPU, SHOP, ANNEX):
        assert f"no live worker takes jobs from {queue}" in job.error_message
    assert basin.last_event(old).detail["error_code"] == "unservable"
    assert rows.job(database, young).status == "queued", "it has not waited so long"


def test_jobs_on_a_queue_that_left_the_catalogue_go_where_their_model_is_drawn_now(
    basin: Basin, database: Database
) -> None:
    staff(database, SHOP)
    waits = basin.job(queue="gpu.gone", provider="diffusers", target_model="old")
    released = basin.job(queue="gpu.gone", dispatched_at="now() - interval '1 hour'")
    assert basin.reroute() == (0, 0), "another process may know the queue"
    basin.pass_by(timedelta(minutes=1))

    assert basin.reroute() == (2, 0)

    assert (basin.queue(waits), basin.queue(released)) == (SHOP, SHOP)
    assert basin.last_event(waits).detail["why"] == "the catalogue has no target on gpu.gone any more"


def test_a_queue_that_only_its_worker_knows_is_left_alone(basin: Basin, database: Database) -> None:
    staff(database, SHOP)
    staff(database, "gpu.newer")
    job_id = basin.job(queue="gpu.newer")
    basin.reroute()
    basin.pass_by(2 * HOUR)
    assert basin.reroute() == (0, 0)
    assert basin.queue(job_id) == "gpu.newer"


def test_a_job_whose_model_left_the_catalogue_fails_after_the_time_for_what_nobody_draws(
    basin: Basin, database: Database
) -> None:
    job_id = basin.job(queue="gpu.gone", created_at="now() - interval '2 hours'")
    rows.execute(database, "UPDATE jobs SET model = 'gone' WHERE id = %(id)s", id=job_id)
    assert basin.reroute() == (0, 0)
    basin.pass_by(HOUR)
    assert basin.reroute() == (0, 1)
    job = rows.job(database, job_id)
    assert (job.status, job.error_code) == ("failed", "unservable")
    assert "the catalogue has no target on gpu.gone any more" in job.error_message


def test_a_worker_that_was_there_meanwhile_begins_the_time_anew(basin: Basin, database: Database) -> None:
    job_id = basin.job("lone", created_at="now() - interval '2 hours'")
    basin.reroute()
    basin.pass_by(HOUR / 2)
    staff(database, GPU)
    basin.reroute()
    dismiss(database, GPU)
    basin.reroute()
    basin.pass_by(HOUR * 0.9)

    assert basin.reroute() == (0, 0)
    assert rows.job(database, job_id).status == "queued"


def probed_for(basin: Basin, time: timedelta) -> int:
    """Let each probe of the shop fail for this long; gives how many jobs were given up."""
    given_up = 0
    for _ in range(int(time / LONGEST_OPENING)):
        break_(basin.database, "shop")
        given_up += basin.reroute()[1]
        basin.pass_by(LONGEST_OPENING)
        rows.execute(basin.database, "UPDATE provider_state SET opened_until = now()")
        given_up += basin.reroute()[1]
    break_(basin.database, "shop")
    return given_up + basin.reroute()[1]


def test_an_upstream_that_fails_every_probe_is_nobody(basin: Basin, database: Database) -> None:
    staff(database, SHOP)
    old = basin.job("bought", created_at="now() - interval '2 hours'", tried=["annex/hills-2"])
    assert probed_for(basin, HOUR * 0.9) == 0

    assert probed_for(basin, HOUR * 0.2) == 1

    job = rows.job(database, old)
    assert (job.status, job.error_code) == ("failed", "unservable")
    assert "upstream shop failed too often" in job.error_message


def test_an_upstream_whose_probe_went_well_begins_the_time_anew(basin: Basin, database: Database) -> None:
    staff(database, SHOP)
    basin.job("bought", created_at="now() - interval '2 hours'", tried=["annex/hills-2"])
    assert probed_for(basin, HOUR * 0.9) == 0
    mend(database, "shop")
    basin.reroute()

    assert probed_for(basin, HOUR * 0.9) == 0


def test_a_model_whose_worker_is_merely_busy_is_served(basin: Basin, database: Database) -> None:
    staff(database, GPU)
    for _ in range(3):
        basin.job("lone", created_at="now() - interval '2 hours'")
    basin.reroute()
    basin.pass_by(HOUR * 3)

    assert basin.reroute() == (0, 0)


def test_a_transformation_waits_for_its_worker(basin: Basin, database: Database) -> None:
    transform = {
        "operation": "mirror",
        "model": "pillow",
        "transform": {"operation": "mirror", "mode": "horizontal"},
        "width": 8,
        "height": 8,
        "seed": 0,
        "image": {"key": "k", "sha256": "0" * 64, "width": 8, "height": 8},
    }
    spec = JobSpec.model_validate(transform)
    rows.insert_job(
        database, basin.account_id, spec=spec, provider="pillow", created_at="now() - interval '2 hours'"
    )
    basin.reroute()
    basin.pass_by(HOUR * 3)

    assert basin.reroute() == (0, 0)


def test_with_no_patience_at_all_a_restarting_worker_still_has_a_lease(
    settings: Settings, database: Database, account: Account, tmp_path: Path
) -> None:
    basin = Basin(with_targets(settings, tmp_path, unservable_after=timedelta(0)), database, account.id)
    basin.job("lone", created_at="now() - interval '1 minute'")

    assert basin.reroute() == (0, 0)
    basin.pass_by(basin.settings.lease)
    assert basin.reroute() == (0, 1)


# A target that failed


def claimed(basin: Basin, job_id: UUID) -> tuple[Claim, JobSpec]:
    with basin.database.autocommit() as tx:
        claim = jobs.claim(tx, job_id, worker="w", lease=HOUR, deadline=HOUR)
    assert claim is not None
    return claim, JobSpec.model_validate(claim.spec)


@pytest.mark.parametrize(
    ("error", "moves_on"),
    [
        (ProviderDown("It does not answer."), True),
        (ProviderBusy(), True),
        (ProviderDenied("HTTP 401: key sk-1 is not known"), True),
        (ProviderRefused("It takes no such size."), True),
        (ContentRefused(), False),
        (UpstreamAmbiguous(), False),
        (DeadlineExceeded(), False),
        (StorageDown(), False),
    ],
)
def test_a_failure_that_another_target_can_cure_leads_there(
    basin: Basin, database: Database, error: DarkroomError, *, moves_on: bool
) -> None:
    staff(database, ANNEX)
    claim, spec = claimed(basin, basin.job("bought"))

    move = basin.pool.after_failure(claim, spec, error)

    assert (move is not None) == moves_on
    if move is not None:
        assert move.place == jobs.Place(provider="annex", target_model="hills-2", queue=ANNEX, batch_key=None)
        assert move.detail == {
            "from": "shop/hills-1",
            "from_queue": SHOP,
            "to": "annex/hills-2",
            "to_queue": ANNEX,
            "why": error.public_message,
            "error_code": error.code,
        }
        assert "sk-1" not in str(move.detail)


@pytest.mark.parametrize("why", ["tried", "gone", "broken", "unable", "single"])
def test_a_failure_leads_nowhere_when_no_other_target_is_fit(
    basin: Basin, database: Database, why: str
) -> None:
    if why != "gone":
        staff(database, ANNEX)
        staff(database, GPU)
    if why == "broken":
        break_(database, "annex")
    because: dict[str, dict[str, Any]] = {"tried": {"tried": ["annex/hills-2"]}, "unable": {"width": 264}}
    changes = because.get(why, {})
    claim, spec = claimed(basin, basin.job("lone" if why == "single" else "bought", **changes))

    assert basin.pool.after_failure(claim, spec, ProviderDown()) is None


def test_a_paid_call_is_resumed_where_it_was_made_unless_it_can_bring_nothing(
    basin: Basin, database: Database
) -> None:
    staff(database, ANNEX)
    claim, spec = claimed(basin, basin.job("bought"))
    buy(database, claim.job_id, "accepted")

    assert basin.pool.after_failure(claim, spec, ProviderDown()) is None
    assert basin.pool.after_failure(claim, spec, ProviderRefused()) is not None


def test_a_job_that_must_wait_its_turn_moves_only_where_it_starts_at_once(
    basin: Basin, database: Database
) -> None:
    staff(database, ANNEX, slots=2)
    claim, spec = claimed(basin, basin.job("bought"))
    assert basin.pool.after_failure(claim, spec, Deferred()) is not None

    for _ in range(2):
        basin.job("bought", at=1)
    assert basin.pool.after_failure(claim, spec, Deferred()) is None
    assert basin.pool.after_failure(claim, spec, ProviderBusy()) is not None


def end(basin: Basin, claim: Claim, error: DarkroomError, move: Move | None) -> None:
    """Let an attempt end as a worker ends it."""
    with basin.database.autocommit() as tx:
        assert jobs.end_attempt(
            tx,
            claim.job_id,
            attempt=claim.attempt,
            worker="w",
            to_status=Status.FAILED if move is None else Status.QUEUED,
            reason=Reason.FAILED if move is None else Reason.REROUTED,
            charge=move is None,
            error_code=error.code,
            detail=None if move is None else move.detail,
            move=None if move is None else move.place,
        )


@pytest.mark.parametrize("busy", [ProviderBusy(), Deferred()], ids=lambda error: error.code)
def test_a_target_that_was_only_too_busy_is_open_again_to_a_job_after_a_minute(
    basin: Basin, database: Database, busy: DarkroomError
) -> None:
    staff(database, SHOP)
    staff(database, ANNEX)
    job_id = basin.job("bought")
    claim, spec = claimed(basin, job_id)
    end(basin, claim, busy, basin.pool.after_failure(claim, spec, busy))
    claim, spec = claimed(basin, job_id)
    assert (claim.provider, claim.tried) == ("annex", [])

    assert basin.pool.after_failure(claim, spec, busy) is None, "not to and fro"
    rows.execute(database, "UPDATE job_events SET at = at - interval '61 s'")
    move = basin.pool.after_failure(claim, spec, ProviderDown())

    assert move is not None
    assert move.place.provider == "shop"


def test_jobs_that_had_to_wait_their_turn_may_be_moved_back_where_that_is_the_only_one_left(
    basin: Basin, database: Database
) -> None:
    staff(database, SHOP)
    staff(database, ANNEX)
    job_id = basin.job("bought")
    claim, spec = claimed(basin, job_id)
    end(basin, claim, ProviderBusy(), basin.pool.after_failure(claim, spec, ProviderBusy()))
    rows.execute(database, "UPDATE job_events SET at = at - interval '61 s'")

    break_(database, "annex")

    assert basin.reroute() == (1, 0)
    assert basin.queue(job_id) == SHOP


def test_a_failed_job_goes_through_its_targets_once_with_one_spec(basin: Basin, database: Database) -> None:
    for queue in (GPU, SHOP, ANNEX):
        staff(database, queue)
    job_id = basin.job()
    way = []
    while True:
        claim, spec = claimed(basin, job_id)
        way.append(claim.provider)
        move = basin.pool.after_failure(claim, spec, ProviderRefused())
        end(basin, claim, ProviderRefused(), move)
        if move is None:
            break

    job = rows.job(database, job_id)
    assert way == ["diffusers", "shop", "annex"]
    assert job.tried == ["diffusers/hill", "shop/hills-1"]
    assert spec == rows.make_spec(model="hill", width=64, height=64, seed=77)
    with database.autocommit() as tx:
        assert list(invariants._timelines(tx)) == []
