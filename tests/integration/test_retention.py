"""Persist, unpersist and the two-phase purge, on real rows and real objects."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest

from app import retention
from app.db import Database
from app.errors import Gone, UnknownOutput
from app.settings import Settings
from app.storage import Storage
from tests import rows
from tests.conftest import Account

LONG_AGO = timedelta(hours=-1)
SOON = timedelta(hours=1)


@pytest.fixture
def job_id(database: Database, account: Account) -> UUID:
    return rows.insert_job(database, account.id, status="completed", finished_at="now()")


def make_output(
    database: Database, storage: Storage, job_id: UUID, *, expires_in: timedelta, index: int = 0
) -> UUID:
    key = f"outputs/{job_id}/{index}.png"
    storage.put(key, b"png", media_type="image/png")
    return rows.insert_output(database, job_id, key=key, index=index, expires_in=expires_in)


def state(database: Database, output_id: UUID) -> str:
    (row,) = rows.query(database, "SELECT state FROM outputs WHERE id = %(id)s", id=output_id)
    found: str = row.state
    return found


def test_a_purge_deletes_what_expired_and_keeps_the_row(
    settings: Settings, database: Database, storage: Storage, job_id: UUID
) -> None:
    old = make_output(database, storage, job_id, expires_in=LONG_AGO)
    young = make_output(database, storage, job_id, expires_in=SOON, index=1)

    purged = retention.purge(settings, database=database, storage=storage)

    assert (purged.marked, purged.deleted, purged.failed) == (1, 1, 0)
    assert (state(database, old), state(database, young)) == ("purged", "live")
    assert not storage.exists(f"outputs/{job_id}/0.png")
    assert storage.exists(f"outputs/{job_id}/1.png")
    (row,) = rows.query(database, "SELECT purged_at FROM outputs WHERE state = 'purged'")
    assert row.purged_at is not None


def test_a_purge_waits_out_the_grace_after_the_expiry(
    settings: Settings, database: Database, storage: Storage, job_id: UUID
) -> None:
    output_id = make_output(database, storage, job_id, expires_in=timedelta(minutes=-14))

    retention.purge(settings, database=database, storage=storage)

    assert state(database, output_id) == "live"


def test_a_purge_never_touches_what_was_persisted(
    settings: Settings, database: Database, storage: Storage, job_id: UUID, account: Account
) -> None:
    output_id = make_output(database, storage, job_id, expires_in=SOON)
    retention.persist(database, output_id, account_id=account.id)
    rows.execute(database, "UPDATE outputs SET expires_at = now() - interval '1 year'")

    retention.purge(settings, database=database, storage=storage)

    assert state(database, output_id) == "live"
    assert storage.exists(f"outputs/{job_id}/0.png")


def test_a_purge_that_died_after_marking_is_finished_by_the_next(
    settings: Settings, database: Database, storage: Storage, job_id: UUID
) -> None:
    output_id = make_output(database, storage, job_id, expires_in=LONG_AGO)
    rows.execute(database, "UPDATE outputs SET state = 'purging'")

    retention.purge(settings, database=database, storage=storage)

    assert state(database, output_id) == "purged"
    assert not storage.exists(f"outputs/{job_id}/0.png")


def test_a_purge_that_died_after_the_deletion_is_finished_by_the_next(
    settings: Settings, database: Database, storage: Storage, job_id: UUID
) -> None:
    output_id = make_output(database, storage, job_id, expires_in=LONG_AGO)
    rows.execute(database, "UPDATE outputs SET state = 'purging'")
    storage.delete([f"outputs/{job_id}/0.png"])

    assert retention.purge(settings, database=database, storage=storage).deleted == 1
    assert state(database, output_id) == "purged"


def test_a_purge_takes_more_than_one_batch(
    settings: Settings, database: Database, storage: Storage, account: Account
) -> None:
    rows.insert_job(database, account.id, status="completed", finished_at="now()")
    rows.execute(
        database,
        """INSERT INTO outputs (id, job_id, account_id, attempt, index, key, sha256, size, width, height,
                                format, seed, expires_at)
           SELECT gen_random_uuid(), id, account_id, 1, n, 'outputs/many/' || n, '', 1, 1, 1, 'png', 1,
                  now() - interval '1 day'
           FROM jobs, generate_series(1, 2500) AS n""",
    )

    assert retention.purge(settings, database=database, storage=storage).deleted == 2500


def test_inputs_go_a_retention_after_their_job_ended(
    settings: Settings, database: Database, storage: Storage, account: Account
) -> None:
    ended = rows.insert_job(
        database, account.id, status="completed", finished_at="now() - interval '25 hours'"
    )
    waiting = rows.insert_job(database, account.id, created_at="now() - interval '9 days'")
    for job_id in (ended, waiting):
        key = f"inputs/{job_id}.png"
        storage.put(key, b"png", media_type="image/png")
        rows.execute(
            database,
            "INSERT INTO inputs (key, job_id, role, sha256, size) VALUES (%(key)s, %(job)s, 'image', '', 3)",
            key=key,
            job=job_id,
        )

    retention.purge(settings, database=database, storage=storage)

    assert not storage.exists(f"inputs/{ended}.png")
    assert storage.exists(f"inputs/{waiting}.png")


def test_a_dry_run_counts_and_changes_nothing(
    settings: Settings, database: Database, storage: Storage, job_id: UUID
) -> None:
    output_id = make_output(database, storage, job_id, expires_in=LONG_AGO)

    due = retention.due(settings, database)

    assert (due.outputs, due.bytes, due.inputs) == (1, 3, 0)
    assert state(database, output_id) == "live"


def test_persisting_twice_is_harmless(
    database: Database, storage: Storage, job_id: UUID, account: Account
) -> None:
    output_id = make_output(database, storage, job_id, expires_in=SOON)

    first = retention.persist(database, output_id, account_id=account.id)
    second = retention.persist(database, output_id, account_id=account.id)

    assert first.persisted_at == second.persisted_at


def test_an_expired_output_cannot_be_persisted_even_before_its_purge(
    database: Database, storage: Storage, job_id: UUID, account: Account
) -> None:
    output_id = make_output(database, storage, job_id, expires_in=timedelta(seconds=-1))

    with pytest.raises(Gone):
        retention.persist(database, output_id, account_id=account.id)


def test_somebody_elses_output_is_unknown(
    database: Database, storage: Storage, job_id: UUID, stranger: Account
) -> None:
    output_id = make_output(database, storage, job_id, expires_in=SOON)

    with pytest.raises(UnknownOutput):
        retention.persist(database, output_id, account_id=stranger.id)
    (row,) = rows.query(database, "SELECT persisted_at FROM outputs")
    assert row.persisted_at is None


def test_an_unpersisted_output_expires_at_its_old_time(
    settings: Settings, database: Database, storage: Storage, job_id: UUID, account: Account
) -> None:
    output_id = make_output(database, storage, job_id, expires_in=SOON)
    before = retention.persist(database, output_id, account_id=account.id)

    after = retention.unpersist(settings, database, output_id, account_id=account.id)

    assert after.persisted_at is None
    assert after.expires_at == before.expires_at


def test_an_output_unpersisted_long_after_its_old_time_lives_for_another_retention(
    settings: Settings, database: Database, storage: Storage, job_id: UUID, account: Account
) -> None:
    output_id = make_output(database, storage, job_id, expires_in=SOON)
    retention.persist(database, output_id, account_id=account.id)
    rows.execute(database, "UPDATE outputs SET expires_at = now() - interval '1 year'")

    retention.unpersist(settings, database, output_id, account_id=account.id)
    retention.purge(settings, database=database, storage=storage)

    assert state(database, output_id) == "live"


def test_of_a_persist_and_a_purge_that_meet_exactly_one_wins(
    settings: Settings, database: Database, storage: Storage, job_id: UUID, account: Account
) -> None:
    """Outputs expire in the middle of it: whoever was told "kept" still has the object at the end."""
    ids = [
        make_output(database, storage, job_id, expires_in=timedelta(seconds=n / 40), index=n)
        for n in range(40)
    ]
    without_grace = settings.model_copy(update={"purge_grace": timedelta(0)})

    def persist(output_id: UUID) -> bool:
        try:
            retention.persist(database, output_id, account_id=account.id)
        except Gone:
            return False
        return True

    def purge(_: int) -> None:
        retention.purge(without_grace, database=database, storage=storage)

    with ThreadPoolExecutor(4) as pool:
        purges = pool.map(purge, range(30))
        kept = list(pool.map(persist, reversed(ids)))
        list(purges)
    retention.purge(without_grace, database=database, storage=storage)

    for index, (output_id, was_kept) in enumerate(zip(reversed(ids), kept, strict=True)):
        key = f"outputs/{job_id}/{39 - index}.png"
        assert storage.exists(key) == (state(database, output_id) == "live")
        if was_kept:
            assert storage.exists(key)
