"""Jobs written together: each caller gets its own, all are there, and a refused one fails alone."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from uuid_utils.compat import uuid7

from app.db import Database
from app.db.door import NewJob
from app.db.together import Writer
from app.errors import DatabaseDown
from tests.conftest import Account
from tests.rows import make_spec
from tests.waiting import eventually

ENOUGH = 10.0


class Gate(Database):
    """The database whose first writer waits at a gate, so that the others gather behind it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.is_away = False
        self.opened = threading.Event()
        self.arrived = threading.Event()
        self.statements = 0

    @contextmanager
    def raw(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        self.statements += 1
        self.arrived.set()
        assert self.opened.wait(ENOUGH)
        if self.is_away:
            raise DatabaseDown
        with self.database.raw() as connection:
            yield connection


@pytest.fixture
def gate(database: Database) -> Gate:
    return Gate(database)


@pytest.fixture
def job(account: Account) -> NewJob:
    return NewJob(
        id=uuid7(),
        account_id=account.id,
        dialect="realm",
        operation="text_to_image",
        model="sketch",
        provider="sketch",
        queue="cpu",
        spec=make_spec(prompt='quotes " and \\ and a comma, and {braces}').model_dump_json(),
        output_prefix=uuid4(),
        max_attempts=5,
    )


def another(job: NewJob, **changes: Any) -> NewJob:
    return replace(job, id=uuid7(), output_prefix=uuid4(), **changes)


@contextmanager
def all_waiting(writer: Writer, gate: Gate, jobs: list[NewJob]) -> Iterator[list[Any]]:
    """The first job at the gate and the others behind it; gives the futures and opens the gate at the end."""
    with ThreadPoolExecutor(len(jobs)) as threads:
        futures = [threads.submit(writer.write, jobs[0])]
        assert gate.arrived.wait(ENOUGH)
        futures += [threads.submit(writer.write, one) for one in jobs[1:]]
        eventually(lambda: len(writer._waiting) == len(jobs) - 1, within=ENOUGH)
        yield futures
        gate.opened.set()


def test_jobs_that_come_during_a_write_go_into_one_statement(
    database: Database, gate: Gate, job: NewJob
) -> None:
    jobs = [another(job, max_attempts=number) for number in range(1, 9)]
    with all_waiting(Writer(gate), gate, jobs) as futures:
        pass
    assert [future.result().id for future in futures] == [one.id for one in jobs]
    assert gate.statements == 2
    with database.autocommit() as tx:
        rows = tx.exec_driver_sql(
            "SELECT j.id, j.max_attempts, j.spec->>'prompt' AS prompt, e.reason FROM jobs j "
            "JOIN job_events e ON e.job_id = j.id ORDER BY j.max_attempts"
        ).all()
    assert [(row.id, row.max_attempts) for row in rows] == [(one.id, one.max_attempts) for one in jobs]
    assert {(row.prompt, row.reason) for row in rows} == {
        ('quotes " and \\ and a comma, and {braces}', "submitted")
    }


def test_a_refused_job_fails_alone(database: Database, gate: Gate, job: NewJob) -> None:
    jobs = [job, another(job), another(job, operation="no such operation"), another(job)]
    with all_waiting(Writer(gate), gate, jobs) as futures:
        pass
    with pytest.raises(psycopg.errors.CheckViolation):
        futures[2].result()
    assert [futures[place].result().id for place in (0, 1, 3)] == [jobs[0].id, jobs[1].id, jobs[3].id]
    with database.autocommit() as tx:
        assert tx.exec_driver_sql("SELECT count(*) FROM jobs").scalar_one() == 3


def test_everybody_hears_that_the_database_is_away_and_the_next_job_is_written(
    gate: Gate, job: NewJob
) -> None:
    writer = Writer(gate)
    gate.is_away = True
    with all_waiting(writer, gate, [job, another(job), another(job)]) as futures:
        pass
    for future in futures:
        with pytest.raises(DatabaseDown):
            future.result()
    gate.is_away = False
    last = another(job)
    assert writer.write(last).id == last.id


def test_many_writers_lose_nothing(database: Database, job: NewJob) -> None:
    writer = Writer(database)
    jobs = [another(job) for _ in range(400)]
    with ThreadPoolExecutor(16) as threads:
        written = list(threads.map(writer.write, jobs))
    assert [one.id for one in written] == [one.id for one in jobs]
    with database.autocommit() as tx:
        stored = {row.id for row in tx.exec_driver_sql("SELECT id FROM jobs")}
    assert stored == {one.id for one in jobs}
