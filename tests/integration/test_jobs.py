"""The guarded statements of app/db/jobs.py, each against the race it was written for."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from sqlalchemy.exc import IntegrityError
from uuid_utils.compat import uuid7

from app.db import Database, history, jobs
from app.db.jobs import Claim
from app.domain.job import MAX_CRASHES, TERMINAL, Reason, Status
from tests import rows
from tests.conftest import Account

LEASE = timedelta(seconds=30)
OUTPUT: dict[str, object] = {
    "index": 0,
    "sha256": "0" * 64,
    "size": 3,
    "width": 1,
    "height": 1,
    "format": "png",
    "seed": 1,
}


def claim(database: Database, job_id: UUID, worker: str = "w1", *, lease: timedelta = LEASE) -> Claim | None:
    with database.autocommit() as tx:
        return jobs.claim(tx, job_id, worker=worker, lease=lease, deadline=timedelta(minutes=1))


def claimed(database: Database, job_id: UUID, worker: str = "w1", *, lease: timedelta = LEASE) -> Claim:
    found = claim(database, job_id, worker, lease=lease)
    assert found is not None
    return found


def complete(database: Database, job_id: UUID, *, attempt: int, cost: Decimal | None = None) -> bool:
    output = {**OUTPUT, "id": str(uuid7()), "key": f"{job_id}/{attempt}"}
    with database.autocommit() as tx:
        return jobs.settle_completed(
            tx,
            job_id,
            attempt=attempt,
            worker="w1",
            outputs=[output],
            retention=timedelta(hours=24),
            detail={},
            cost=cost,
        )


def held(job_id: UUID, attempt: int, progress: float) -> jobs.Held:
    return jobs.Held(job_id=job_id, attempt=attempt, progress=progress)


def retry(database: Database, job_id: UUID, *, attempt: int, delay: timedelta = timedelta(0)) -> bool:
    with database.autocommit() as tx:
        return jobs.end_attempt(
            tx,
            job_id,
            attempt=attempt,
            worker="w1",
            to_status=Status.QUEUED,
            reason=Reason.RETRY,
            charge=True,
            error_code="storage_unavailable",
            error_message="away",
            delay=delay,
        )


def test_a_claim_makes_the_job_processing_and_writes_its_event(database: Database, account: Account) -> None:
    job_id = rows.insert_job(database, account.id)

    found = claimed(database, job_id)

    row = rows.job(database, job_id)
    assert (row.status, row.attempt, row.lease_owner) == ("processing", 1, "w1")
    assert found.attempt == 1
    assert found.spec["prompt"] == "a red hill under stars"
    assert rows.reasons(database, job_id) == ["claimed"]


def test_of_many_claims_at_once_exactly_one_wins(database: Database, account: Account) -> None:
    job_id = rows.insert_job(database, account.id)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: claim(database, job_id, f"w{n}"), range(16)))

    assert sum(one is not None for one in found) == 1
    assert rows.reasons(database, job_id) == ["claimed"]


def test_a_job_that_is_not_due_yet_cannot_be_claimed(database: Database, account: Account) -> None:
    job_id = rows.insert_job(database, account.id, run_at="now() + interval '1 hour'")

    assert claim(database, job_id) is None


def test_a_job_whose_cancel_was_requested_cannot_be_claimed(database: Database, account: Account) -> None:
    job_id = rows.insert_job(database, account.id, cancel_requested_at="now()")

    assert claim(database, job_id) is None


def test_a_completed_attempt_makes_its_outputs_visible_for_a_day(
    database: Database, account: Account
) -> None:
    job_id = rows.insert_job(database, account.id)
    claimed(database, job_id)

    assert complete(database, job_id, attempt=1)

    row = rows.job(database, job_id)
    assert (row.status, row.progress, row.lease_owner) == ("completed", 1, None)
    (output,) = rows.query(database, "SELECT *, expires_at - created_at AS life FROM outputs")
    assert (output.job_id, output.attempt, output.state) == (job_id, 1, "live")
    assert output.life == timedelta(hours=24)


def test_a_worker_presumed_dead_finds_its_settle_refused(database: Database, account: Account) -> None:
    job_id = rows.insert_job(database, account.id)
    claimed(database, job_id, lease=timedelta(0))
    with database.autocommit() as tx:
        assert jobs.rescue(tx).requeued == 1
    claimed(database, job_id, "w2")

    assert not complete(database, job_id, attempt=1)
    assert complete(database, job_id, attempt=2)
    assert not complete(database, job_id, attempt=1)

    outputs = rows.query(database, "SELECT attempt FROM outputs")
    assert [output.attempt for output in outputs] == [2]


def test_a_settle_that_is_repeated_changes_nothing(database: Database, account: Account) -> None:
    job_id = rows.insert_job(database, account.id)
    claimed(database, job_id)

    assert complete(database, job_id, attempt=1)
    assert not complete(database, job_id, attempt=1)

    with database.autocommit() as tx:
        assert history.attempt_won(tx, job_id, attempt=1)
    assert len(rows.query(database, "SELECT 1 AS one FROM outputs")) == 1


@pytest.mark.parametrize(
    ("before", "cost", "after"),
    [("0.01", "0.002", "0.012"), ("0.01", None, "0.01"), (None, "0.002", "0.002"), (None, None, None)],
)
def test_what_a_job_costs_is_what_all_who_drew_for_it_took(
    database: Database, account: Account, before: str | None, cost: str | None, after: str | None
) -> None:
    job_id = rows.insert_job(database, account.id, cost=None if before is None else Decimal(before))
    claimed(database, job_id)

    assert complete(database, job_id, attempt=1, cost=None if cost is None else Decimal(cost))

    assert rows.job(database, job_id).cost == (None if after is None else Decimal(after))


def test_a_retry_makes_the_job_due_later_and_charges_it(database: Database, account: Account) -> None:
    job_id = rows.insert_job(database, account.id, dispatched_at="now()")
    claimed(database, job_id)

    assert retry(database, job_id, attempt=1, delay=timedelta(hours=1))

    row = rows.job(database, job_id)
    assert (row.status, row.failures, row.dispatched_at) == ("queued", 1, None)
    assert row.error_code == "storage_unavailable"
    assert claim(database, job_id) is None
    assert rows.reasons(database, job_id) == ["claimed", "retry"]


def test_a_drained_job_is_due_at_once_and_not_charged(database: Database, account: Account) -> None:
    job_id = rows.insert_job(database, account.id)
    claimed(database, job_id)

    with database.autocommit() as tx:
        assert jobs.end_attempt(
            tx,
            job_id,
            attempt=1,
            worker="w1",
            to_status=Status.QUEUED,
            reason=Reason.DRAINED,
            charge=False,
        )

    assert rows.job(database, job_id).failures == 0
    assert claimed(database, job_id).attempt == 2


def test_a_heartbeat_renews_only_leases_that_are_still_ours(database: Database, account: Account) -> None:
    ours, lost = (rows.insert_job(database, account.id) for _ in range(2))
    for job_id in (ours, lost):
        claimed(database, job_id, lease=timedelta(seconds=1))
    assert retry(database, lost, attempt=1)

    with database.autocommit() as tx:
        beats = jobs.heartbeat(tx, [held(ours, 1, 0.5), held(lost, 1, 0.5)], lease=LEASE)

    assert set(beats) == {ours}
    assert rows.job(database, ours).progress == 0.5
    (left,) = rows.query(database, "SELECT lease_until - now() AS left FROM jobs WHERE id = %(id)s", id=ours)
    assert left.left > timedelta(seconds=20)


def test_a_heartbeat_tells_that_a_cancel_was_requested(database: Database, account: Account) -> None:
    job_id = rows.insert_job(database, account.id)
    claimed(database, job_id)
    rows.execute(database, "UPDATE jobs SET cancel_requested_at = now()")

    with database.autocommit() as tx:
        beats = jobs.heartbeat(tx, [held(job_id, 1, 0.0)], lease=LEASE)

    assert beats[job_id].cancel_requested


def test_a_job_past_its_deadline_keeps_its_lease_no_longer(database: Database, account: Account) -> None:
    job_id = rows.insert_job(database, account.id)
    claimed(database, job_id)
    rows.execute(database, "UPDATE jobs SET deadline_at = now(), lease_until = now() + interval '1 ms'")

    with database.autocommit() as tx:
        assert jobs.heartbeat(tx, [held(job_id, 1, 0.0)], lease=LEASE)[job_id].overdue
        assert jobs.rescue(tx).failed == 1

    row = rows.job(database, job_id)
    assert (row.status, row.error_code) == ("failed", "timeout")


def test_rescue_leaves_a_job_alone_whose_lease_still_runs(database: Database, account: Account) -> None:
    job_id = rows.insert_job(database, account.id)
    claimed(database, job_id)

    with database.autocommit() as tx:
        rescued = jobs.rescue(tx)

    assert (rescued.requeued, rescued.failed) == (0, 0)
    assert rows.job(database, job_id).status == "processing"


def test_a_job_that_kills_its_workers_fails_after_three(database: Database, account: Account) -> None:
    job_id = rows.insert_job(database, account.id)

    for _ in range(MAX_CRASHES):
        claimed(database, job_id, lease=timedelta(0))
        with database.autocommit() as tx:
            jobs.rescue(tx)

    row = rows.job(database, job_id)
    assert (row.status, row.error_code, row.crashes) == ("failed", "worker_crashed", MAX_CRASHES)
    assert claim(database, job_id) is None


def test_a_job_whose_worker_fell_silent_is_due_again_however_late_it_is_found(
    database: Database, account: Account
) -> None:
    """An outage of ours that is longer than the deadline is not the job's fault."""
    job_id = rows.insert_job(database, account.id)
    claimed(database, job_id)
    rows.execute(
        database,
        "UPDATE jobs SET lease_until = now() - interval '14 min', deadline_at = now() - interval '5 min'",
    )

    with database.autocommit() as tx:
        assert jobs.rescue(tx).requeued == 1


def test_a_job_to_be_cancelled_is_cancelled_instead_of_tried_again(
    database: Database, account: Account
) -> None:
    retried, silent = (rows.insert_job(database, account.id) for _ in range(2))
    claimed(database, retried)
    claimed(database, silent, lease=timedelta(0))
    rows.execute(database, "UPDATE jobs SET cancel_requested_at = now()")

    assert retry(database, retried, attempt=1)
    with database.autocommit() as tx:
        jobs.rescue(tx)

    assert [rows.job(database, job_id).status for job_id in (retried, silent)] == ["cancelled"] * 2
    assert rows.reasons(database, retried) == ["claimed", "cancelled"]


def test_two_rescues_at_once_give_a_job_back_once(database: Database, account: Account) -> None:
    job_ids = [rows.insert_job(database, account.id) for _ in range(20)]
    for job_id in job_ids:
        claimed(database, job_id, lease=timedelta(0))

    def rescue(_: int) -> int:
        with database.autocommit() as tx:
            return jobs.rescue(tx, limit=7).requeued

    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(rescue, range(8)))

    assert sum(counts) == 20
    assert all(rows.reasons(database, job_id) == ["claimed", "lease_lost"] for job_id in job_ids)


@pytest.mark.parametrize("status", sorted(TERMINAL))
@pytest.mark.parametrize("next_status", sorted(Status))
def test_nobody_can_move_a_job_out_of_a_terminal_status(
    database: Database, account: Account, status: Status, next_status: Status
) -> None:
    if next_status is status:
        pytest.skip("staying is no move")
    job_id = rows.insert_job(database, account.id, status=status.value, finished_at="now()", error_code="x")

    with pytest.raises(IntegrityError, match="for good"):
        rows.execute(database, "UPDATE jobs SET status = %(to)s", to=next_status.value)

    assert rows.job(database, job_id).status == status


def test_a_processing_job_always_has_a_lease(database: Database, account: Account) -> None:
    rows.insert_job(database, account.id)

    with pytest.raises(IntegrityError, match="jobs_lease_check"):
        rows.execute(database, "UPDATE jobs SET status = 'processing'")
