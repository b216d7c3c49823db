"""Promises at the seams of the core: what happens when two statements meet, and what no test held before."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy
from flask.testing import FlaskClient
from sqlalchemy.engine import Connection
from uuid_utils.compat import uuid7

from app import auth
from app.db import Database, bell, connect, door, history, jobs
from app.db.door import NewJob, Once
from app.domain.job import Reason, Status
from app.errors import DatabaseDown
from app.settings import Settings
from tests import rows
from tests.conftest import Account
from tests.rows import make_spec
from tests.waiting import eventually

MINUTE = timedelta(minutes=1)
ENOUGH = 10.0


# A cancel that meets the end of an attempt


def claimed(database: Database, account: Account) -> UUID:
    """A job that a worker w1 runs."""
    job_id = rows.insert_job(database, account.id)
    with database.autocommit() as tx:
        assert jobs.claim(tx, job_id, worker="w1", lease=MINUTE, deadline=MINUTE)
    return job_id


@contextmanager
def meeting(
    database: Database, first: Callable[[Connection], object], second: Callable[[Connection], object]
) -> Iterator[Future[Any]]:
    """Run `first` in a transaction, `second` up to where it waits for that, and then let both go on."""

    def run() -> object:
        with database.autocommit() as tx:
            return second(tx)

    with ThreadPoolExecutor(1) as thread, database.transaction() as tx:
        first(tx)
        future = thread.submit(run)
        eventually(lambda: _is_waiting(database), within=ENOUGH)
        yield future


def _is_waiting(database: Database) -> bool:
    return bool(
        rows.query(database, "SELECT 1 AS one FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'")
    )


@pytest.mark.parametrize("reason", [Reason.RETRY, Reason.DRAINED])
def test_a_cancel_that_meets_the_end_of_an_attempt_is_not_lost(
    database: Database, account: Account, reason: Reason
) -> None:
    """Else the job is queued for ever: no worker may claim what is to be cancelled."""
    job_id = claimed(database, account)

    def cancel(tx: Connection) -> object:
        return jobs.cancel(tx, job_id, account_id=account.id)

    def end(tx: Connection) -> object:
        return jobs.end_attempt(
            tx, job_id, attempt=1, worker="w1", to_status=Status.QUEUED, reason=reason, charge=False
        )

    with meeting(database, cancel, end) as ended:
        pass

    assert ended.result()
    assert rows.job(database, job_id).status == "cancelled"
    assert rows.reasons(database, job_id) == ["claimed", "cancelled"]


@pytest.mark.parametrize("how", ["retry", "rescue"])
def test_a_cancelled_job_says_that_it_was_cancelled_however_its_attempt_ended(
    database: Database, account: Account, how: str
) -> None:
    job_id = claimed(database, account)
    with database.autocommit() as tx:
        jobs.cancel(tx, job_id, account_id=account.id)
        if how == "retry":
            jobs.end_attempt(
                tx,
                job_id,
                attempt=1,
                worker="w1",
                to_status=Status.QUEUED,
                reason=Reason.RETRY,
                charge=True,
                error_code="provider_down",
                error_message="The provider is away.",
            )
        else:
            rows.execute(database, "UPDATE jobs SET lease_until = now() - interval '1 second'")
            jobs.rescue(tx)

    job = rows.job(database, job_id)
    assert (job.status, job.error_code) == ("cancelled", "cancelled")
    assert "again" not in job.error_message


def test_a_cancel_and_a_claim_that_meet_agree(database: Database, account: Account) -> None:
    job_id = rows.insert_job(database, account.id)

    def claim(tx: Connection) -> object:
        return jobs.claim(tx, job_id, worker="w1", lease=MINUTE, deadline=MINUTE)

    def cancel(tx: Connection) -> object:
        return jobs.cancel(tx, job_id, account_id=account.id)

    with meeting(database, claim, cancel) as cancelled:
        pass
    assert cancelled.result() is Status.PROCESSING
    job = rows.job(database, job_id)
    assert (job.status, job.cancel_requested_at is not None) == ("processing", True)

    other_id = rows.insert_job(database, account.id)
    job_id = other_id
    with meeting(database, cancel, claim) as refused:
        pass
    assert refused.result() is None
    assert rows.job(database, other_id).status == "cancelled"


# Rings


class Dying(Database):
    """The database whose listening connections lose their server before they can say LISTEN."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.opened = 0

    def listen_connection(self) -> psycopg.Connection[tuple[Any, ...]]:
        connection = self.database.listen_connection()
        self.opened += 1
        if self.opened == 1:
            with self.database.autocommit() as tx:
                tx.exec_driver_sql(
                    "SELECT pg_terminate_backend(%(pid)s, 5000)", {"pid": connection.info.backend_pid}
                )
        return connection


def test_a_connection_lost_before_it_listens_is_replaced(database: Database) -> None:
    heard = threading.Event()
    listener = bell.Listener(Dying(database), {bell.PROGRESS: heard.set})
    listener.start()
    try:
        assert heard.wait(ENOUGH), "the listener is dead"
    finally:
        listener.stop()


# A key that is forgotten in the middle


def new_job(account: Account, **columns: Any) -> NewJob:
    """A job about to be written."""
    return NewJob(
        id=uuid7(),
        account_id=account.id,
        dialect="realm",
        operation="text_to_image",
        model="sketch",
        provider="sketch",
        queue="cpu",
        spec=make_spec().model_dump_json(),
        output_prefix=uuid4(),
        max_attempts=5,
        **columns,
    )


class Forgetting(psycopg.Connection[Any]):
    """A connection on which the key is forgotten right after the first statement."""

    after: Callable[[], None] | None = None

    def execute(self, *args: Any, **options: Any) -> Any:
        cursor = super().execute(*args, **options)
        after, self.after = self.after, None
        if after is not None:
            after()
        return cursor


def test_a_key_that_is_forgotten_while_it_is_looked_up_makes_a_job(
    settings: Settings, database: Database, account: Account
) -> None:
    once = Once(endpoint="realm generate", key="k", request_sha256=b"1")
    with database.raw() as connection:
        first = door.insert_once(connection, new_job(account), once)

    with Forgetting.connect(settings.database_url.get_secret_value(), autocommit=True) as connection:
        connection.after = lambda: rows.execute(database, "DELETE FROM idempotency_keys")
        second = door.insert_once(connection, new_job(account), once)

    assert second.id != first.id
    assert rows.job(database, second.id).status == "queued"


# Test keys


def test_a_live_key_never_gets_the_job_of_a_test_key(
    client: FlaskClient, settings: Settings, database: Database, account: Account
) -> None:
    """Both belong to one account, and both send the order's number as Idempotency-Key."""
    with database.transaction() as tx:
        test_key = auth.create_key(
            tx,
            account="alice",
            name="test",
            secret_key=settings.secret_key.get_secret_value(),
            prefix=auth.TEST_PREFIX,
        )
    assert test_key is not None
    made = [
        client.post(
            "/v1/images/generate",
            json={"modelId": "sketch", "prompt": "a hill"},
            headers={"X-API-Key": key, "Idempotency-Key": "order 17".replace(" ", "-")},
        ).json["jobId"]  # type: ignore[index]
        for key in (test_key.key, account.key, account.key)
    ]
    assert made[0] != made[1] == made[2]
    found = rows.query(database, "SELECT test FROM jobs ORDER BY id")
    assert [row.test for row in found] == [True, False]


def test_a_server_that_closes_what_it_just_opened_is_away_and_nothing_else(
    settings: Settings, database: Database
) -> None:
    """Else the thread that looks at jobs for all who wait dies of an error it does not know."""

    def close_at_once(connection: psycopg.Connection[Any], _record: object) -> None:
        with database.autocommit() as tx:
            tx.exec_driver_sql(
                "SELECT pg_terminate_backend(%(pid)s, 5000)", {"pid": connection.info.backend_pid}
            )

    going = connect(settings, pool_size=1)
    sqlalchemy.event.listen(going._engine, "connect", close_at_once)
    try:
        for _ in range(2):
            with pytest.raises(DatabaseDown), going.autocommit() as tx:
                tx.exec_driver_sql("SELECT 1")
            with pytest.raises(DatabaseDown), going.raw() as connection:
                connection.execute("SELECT 1")
    finally:
        going.close()
