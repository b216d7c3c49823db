"""Requests that wait for a job while their process is asked to end."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from app.db import Database
from app.waits import Waits
from tests import rows
from tests.conftest import Account

LONG = timedelta(seconds=60)


@pytest.fixture
def waits(database: Database) -> Iterator[Waits]:
    made = Waits(database, most=4)
    made.start()
    yield made
    made.stop()


def test_a_wait_is_over_before_the_server_cuts_it_off(
    waits: Waits, database: Database, account: Account
) -> None:
    job_id = rows.insert_job(database, account.id)
    began = time.monotonic()
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = pool.submit(waits.until_ended, job_id, timeout=LONG)
        waits.let_go(waits_end_in=timedelta(seconds=0.3))

        assert waiting.result(timeout=10) is False
    assert 0.3 <= time.monotonic() - began < 10


def test_whoever_asks_when_it_is_over_is_answered_at_once(
    waits: Waits, database: Database, account: Account
) -> None:
    job_id = rows.insert_job(database, account.id)
    waits.let_go(waits_end_in=timedelta(0))

    began = time.monotonic()
    ended = [waits.until_ended(job_id, timeout=LONG) for _ in range(3)]

    assert ended == [False, False, False]
    assert time.monotonic() - began < 10


def test_a_job_that_ends_meanwhile_is_still_waited_for(
    waits: Waits, database: Database, account: Account
) -> None:
    job_id = rows.insert_job(database, account.id)
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = pool.submit(waits.until_ended, job_id, timeout=LONG)
        waits.let_go(waits_end_in=LONG)
        rows.execute(
            database, "UPDATE jobs SET status = 'cancelled', finished_at = now() WHERE id = %(id)s", id=job_id
        )

        assert waiting.result(timeout=10) is True
