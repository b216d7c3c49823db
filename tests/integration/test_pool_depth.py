"""One pool: what a relay's look at a long queue costs, and that it sees all of it in the end."""

from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app.db import Database, moves
from app.settings import Settings
from tests import rows
from tests.conftest import Account
from tests.targets import GPU, SHOP, Basin, staff, with_targets

DEPTH = 20_000


@pytest.fixture
def basin(settings: Settings, database: Database, account: Account, tmp_path: Path) -> Basin:
    return Basin(with_targets(settings, tmp_path), database, account.id)


def fill(basin: Basin, model: str, **columns: Any) -> None:
    """Have thousands of equal jobs wait, older than all others that a test makes."""
    basin.job(model, run_at="now() - interval '2 hours'", **columns)
    rows.execute(
        basin.database,
        f"""INSERT INTO jobs (id, account_id, dialect, operation, model, provider, queue, target_model,
                              status, spec, output_prefix, max_attempts, created_at, run_at)
            SELECT gen_random_uuid(), account_id, dialect, operation, model, provider, queue, target_model,
                   status, spec, gen_random_uuid(), max_attempts, created_at, run_at + nth * interval '1 ms'
            FROM jobs, generate_series(1, {DEPTH}) AS nth""",
    )
    rows.execute(basin.database, "ANALYZE jobs")


def blocks_of(database: Database, statement: str, **parameters: Any) -> int:
    """Give how many blocks of the database a statement reads."""
    with database.transaction() as tx:
        (plan,) = tx.exec_driver_sql(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement, parameters
        ).scalars()
    return int(plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"])


@pytest.mark.parametrize("skip", [0, 1000, moves._COUNTED])
def test_the_backlogs_depth_does_not_slow_a_look_at_its_head(
    basin: Basin, database: Database, skip: int
) -> None:
    fill(basin, "hill")
    statement = moves._WAITING.format(most=skip + moves.WINDOW, skip=skip)

    blocks = blocks_of(database, statement, queue=GPU, rest=moves.REST)

    assert blocks < 4 * moves.WINDOW + 2 * skip


@pytest.mark.parametrize("models", [["hill"], ["lone"]], ids=["none matches", "all match"])
@pytest.mark.parametrize("older_than", [None, timedelta(hours=1)], ids=["any age", "all too young"])
def test_the_backlogs_depth_does_not_slow_a_walk_through_it_wherever_that_has_come_to(
    basin: Basin, database: Database, models: list[str], older_than: timedelta | None
) -> None:
    fill(basin, "lone")
    deep = rows.query(
        database, "SELECT * FROM jobs ORDER BY run_at OFFSET %(depth)s LIMIT 1", depth=DEPTH // 2
    )
    at = {name: deep[0].columns[name] for name in asdict(moves.START)}

    for after in (moves.START, replace(moves.START, **at)):
        wanted = {"models": models, "older_than": older_than}
        blocks = blocks_of(database, moves._WALK, queue=GPU, **asdict(after), **wanted)
        assert blocks < 2 * moves.STRIDE


def walked(database: Database, **wanted: Any) -> list[UUID]:
    """Give the jobs that a walk through a whole queue meets, in order."""
    found: list[UUID] = []
    cursor: moves.Cursor | None = moves.START
    with database.autocommit() as tx:
        while cursor is not None:
            jobs, cursor = moves.walk(tx, GPU, after=cursor, **wanted)
            assert len(jobs) <= moves.WINDOW
            found += [job.id for job in jobs]
    return found


def test_a_walk_meets_each_due_job_once_in_the_order_of_its_accounts_turns(
    basin: Basin, database: Database, stranger: Account
) -> None:
    ids = {}
    for owner in (basin.account_id, stranger.id):
        ids[owner] = [
            basin.job(owner=owner, priority=priority, run_at=f"now() - interval '{age} s'")
            for priority in (5, 0)
            for age in range(moves.WINDOW + 60, 60, -1)
        ]
    basin.job(run_at="now() + interval '1 hour'")
    basin.job(dispatched_at="now()")
    basin.job("bought")

    assert walked(database) == [job_id for owner in sorted(ids) for job_id in ids[owner]]


def test_a_walk_leaves_out_what_is_neither_of_these_models_nor_old_enough(
    basin: Basin, database: Database
) -> None:
    mine = basin.job()
    old = basin.job("lone", created_at="now() - interval '2 hours'")
    basin.job("lone")

    assert set(walked(database, models=["hill"])) == {mine}
    assert set(walked(database, models=["hill"], older_than=timedelta(hours=1))) == {mine, old}


def test_a_job_behind_thousands_that_cannot_leave_is_moved_within_some_passes(
    basin: Basin, database: Database
) -> None:
    fill(basin, "lone")
    last = basin.job()
    staff(database, SHOP)

    passes = DEPTH // (4 * moves.STRIDE) + 1
    assert sum(basin.reroute()[0] for _ in range(passes)) == 1
    assert basin.queue(last) == SHOP


def test_a_job_behind_thousands_that_are_too_young_is_given_up_within_some_passes(
    basin: Basin, database: Database
) -> None:
    fill(basin, "lone")
    last = basin.job("lone", created_at="now() - interval '2 hours'")
    basin.reroute()
    basin.pass_by(timedelta(hours=1))

    passes = DEPTH // (4 * moves.STRIDE) + 1
    assert sum(basin.reroute()[1] for _ in range(passes)) == 1
    assert rows.job(database, last).error_code == "unservable"
