"""Promises where two statements meet: a cancel and an end, a ring and a stop, a key and its end."""

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
from sqlalchemy.engine import Connection
from uuid_utils.compat import uuid7

from app import retention, webhooks
from app.db import Database, bell, connect, door, jobs, outputs
from app.db.door import NewJob, Once
from app.domain.job import Reason, Status
from app.domain.webhook import Form
from app.errors import DatabaseDown, Gone
from app.settings import Settings
from app.vault import Vault
from tests import rows
from tests.conftest import Account
from tests.rows import make_spec
from tests.waiting import eventually

Step = Callable[[Connection], object]
MINUTE = timedelta(minutes=1)
ENOUGH = 10.0


# A cancel that meets the end of an attempt


def claimed(database: Database, account: Account) -> UUID:
    """A job that a worker w1 runs."""
    job_id = rows.insert_job(database, account.id)
    with database.autocommit() as tx:
        assert jobs.claim(tx, job_id, worker="w1", lease=MINUTE, deadline=MINUTE)
    return job_id


def claiming(job_id: UUID) -> Step:
    """Claim the job for worker w1."""
    return lambda tx: jobs.claim(tx, job_id, worker="w1", lease=MINUTE, deadline=MINUTE)


def cancelling(job_id: UUID, account: Account) -> Step:
    """Cancel the job as its owner."""
    return lambda tx: jobs.cancel(tx, job_id, account_id=account.id)


@contextmanager
def meeting(database: Database, first: Step, second: Step) -> Iterator[Future[Any]]:
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

    def end(tx: Connection) -> object:
        return jobs.end_attempt(
            tx, job_id, attempt=1, worker="w1", to_status=Status.QUEUED, reason=reason, charge=False
        )

    with meeting(database, cancelling(job_id, account), end) as ended:
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
    first, second = (rows.insert_job(database, account.id) for _ in range(2))

    with meeting(database, claiming(first), cancelling(first, account)) as asked:
        pass
    with meeting(database, cancelling(second, account), claiming(second)) as refused:
        pass

    assert asked.result() is Status.PROCESSING
    job = rows.job(database, first)
    assert (job.status, job.cancel_requested_at is not None) == ("processing", True)
    assert refused.result() is None
    assert rows.job(database, second).status == "cancelled"
    assert rows.reasons(database, second) == ["cancelled"]


def test_a_cancel_that_meets_the_completion_comes_too_late(database: Database, account: Account) -> None:
    job_id = claimed(database, account)

    def complete(tx: Connection) -> object:
        return jobs.settle_completed(
            tx, job_id, attempt=1, worker="w1", outputs=[], retention=MINUTE, detail={}
        )

    with meeting(database, complete, cancelling(job_id, account)) as asked:
        pass

    assert asked.result() is None
    job = rows.job(database, job_id)
    assert (job.status, job.cancel_requested_at) == ("completed", None)


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


class Slow(Database):
    """The database whose first connection is not to be had before a gate opens."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.asked, self.opened = threading.Event(), threading.Event()

    @contextmanager
    def raw(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        self.asked.set()
        assert self.opened.wait(ENOUGH)
        with self.database.raw() as connection:
            yield connection


def test_what_was_asked_before_the_stop_is_rung(database: Database) -> None:
    slow = Slow(database)
    doorbell = bell.Doorbell(slow)
    with bell.wake_up_calls(database, bell.PROGRESS) as wait:
        doorbell.start()
        doorbell.ring(bell.JOBS)
        assert slow.asked.wait(ENOUGH)
        doorbell.ring(bell.PROGRESS)
        with ThreadPoolExecutor(1) as thread:
            thread.submit(doorbell.stop)
            eventually(lambda: doorbell._stopping, within=ENOUGH)
            slow.opened.set()

        assert wait(timedelta(seconds=ENOUGH)) == {bell.PROGRESS}


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


# Outputs


def output_of(database: Database, account: Account, **columns: Any) -> UUID:
    """An output of a completed job; it lies in no store."""
    job_id = rows.insert_job(
        database, account.id, status="completed", started_at="now()", finished_at="now()"
    )
    return rows.insert_output(database, job_id, key=f"outputs/{job_id}", expires_in=MINUTE, **columns)


@pytest.mark.parametrize("keep", [outputs.persist, outputs.publish])
def test_what_its_owner_deletes_while_he_keeps_it_is_deleted(
    database: Database, account: Account, keep: Callable[..., bool]
) -> None:
    """Whichever comes first; and nobody who was told that it is kept loses it to anybody but himself."""
    first, second = (output_of(database, account) for _ in range(2))

    def keeping(output_id: UUID) -> Step:
        return lambda tx: keep(tx, output_id, account_id=account.id)

    def deleting(output_id: UUID) -> Step:
        return lambda tx: outputs.discard(tx, output_id, account_id=account.id)

    with meeting(database, keeping(first), deleting(first)) as deleted:
        pass
    with meeting(database, deleting(second), keeping(second)) as refused:
        pass

    assert (deleted.result(), refused.result()) == (True, False)
    found = rows.query(database, "SELECT state, persisted_at, published_at, access FROM outputs")
    assert [tuple(row.columns.values()) for row in found] == [("purging", None, None, "private")] * 2


def test_an_expired_output_cannot_be_published_nor_made_private(database: Database, account: Account) -> None:
    output_id = output_of(database, account)
    rows.execute(database, "UPDATE outputs SET expires_at = now()")

    for change in (retention.publish, retention.unpublish):
        with pytest.raises(Gone):
            change(database, output_id, account_id=account.id)

    (found,) = rows.query(database, "SELECT access, persisted_at FROM outputs")
    assert (found.access, found.persisted_at) == ("link", None)


def test_an_endpoint_of_somebody_else_is_told_nothing_even_if_a_job_names_it(
    database: Database, settings: Settings, account: Account, stranger: Account
) -> None:
    endpoint_id = webhooks.endpoint_of_request(
        database, Vault(settings), account_id=stranger.id, url="https://example.com/", form=Form.JOBS
    )
    for owner in (account, stranger):
        job_id = rows.insert_job(database, owner.id, webhook_endpoint_id=endpoint_id)
        with database.autocommit() as tx:
            jobs.cancel(tx, job_id, account_id=owner.id)

    found = rows.query(database, "SELECT account_id FROM deliveries")
    assert [row.account_id for row in found] == [stranger.id]
