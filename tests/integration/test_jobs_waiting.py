"""Waiting for a job: `?wait=` and `Prefer: wait=` are wishes, and never an error."""

import itertools
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import web
from app.api import events
from app.db import Database
from app.settings import Settings
from app.storage import Storage
from tests import rows
from tests.conftest import Account
from tests.drawing import drawing
from tests.submitter import JOBS, Submitter, problems, row_id, shown


@pytest.fixture(scope="module")
def flask(base_settings: Settings) -> Iterator[Flask]:
    """One application for all tests of this file."""
    made = web.create_app(base_settings.model_copy(update={"rate_limit_per_minute": 100_000}))
    yield made
    web.close(made)


@pytest.fixture
def owner(client: FlaskClient, database: Database, account: Account) -> Submitter:
    del database  # emptied before the test
    return Submitter(client, account)


def test_a_wait_answers_within_a_moment_of_the_end(
    owner: Submitter, settings: Settings, database: Database, storage: Storage
) -> None:
    delays: list[float] = []
    with drawing(settings, database, storage):
        for _ in range(5):
            job = shown(owner.submit(path=f"{JOBS}?wait=20", prompt="a hill", width=16, height=16))
            ended = datetime.fromisoformat(job["finished_at"])
            delays.append((datetime.now(UTC) - ended).total_seconds())
            assert (job["status"], len(job["outputs"])) == ("completed", 1)

    assert statistics.median(delays) < 0.5


def test_a_preference_is_honoured_as_far_as_this_installation_waits(
    owner: Submitter, settings: Settings, database: Database, storage: Storage
) -> None:
    with drawing(settings, database, storage):
        answers = [
            owner.submit(headers={"Prefer": preference}, prompt="a hill", width=16, height=16)
            for preference in ("respond-async, wait=20", 'wait="99999"', "Wait = 7; x=y")
        ]

    assert [shown(answer)["status"] for answer in answers] == ["completed"] * 3
    applied = [answer.headers["Preference-Applied"] for answer in answers]
    assert applied == ["wait=20", "wait=55", "wait=7"]


def test_a_wait_that_is_too_short_answers_202_with_the_job_as_it_is(owner: Submitter) -> None:
    began = time.monotonic()

    answer = owner.submit(headers={"Prefer": "wait=1"}, prompt="a hill")

    assert shown(answer, 202)["status"] == "queued"
    assert answer.headers["Preference-Applied"] == "wait=1"
    assert 0.9 < time.monotonic() - began < 10


@pytest.mark.parametrize(
    "preference", ["wait=abc", "wait=-1", "respond-async", "wait", "", "x;wait=5", "\x7f"]
)
def test_a_preference_that_cannot_be_read_is_none(preference: str, owner: Submitter) -> None:
    answer = owner.submit(headers={"Prefer": preference}, prompt="a hill")

    assert answer.status_code == 202
    assert "Preference-Applied" not in answer.headers


@pytest.mark.parametrize("wait", ["abc", "-1", "1e999", "nan"])
def test_a_wait_that_is_no_number_is_refused_before_anything_is_written(
    wait: str, owner: Submitter, database: Database
) -> None:
    assert set(problems(owner.submit(path=f"{JOBS}?wait={wait}", prompt="a hill"))) == {"wait"}
    assert rows.query(database, "SELECT count(*) AS jobs FROM jobs")[0].jobs == 0


def test_a_wait_is_a_wish_while_all_places_are_taken(owner: Submitter, flask: Flask) -> None:
    waits = flask.extensions["darkroom"].waits
    taken = [waits.place(owner.account.id) for _ in range(waits.most_of_one)]
    for place in taken:
        place.__enter__()
    try:
        began = time.monotonic()
        submitted = owner.submit(headers={"Prefer": "wait=30"}, prompt="a hill")
        read = owner.ask("GET", f"{JOBS}/{shown(submitted, 202)['id']}?wait=30")
        took = time.monotonic() - began
    finally:
        for place in taken:
            place.__exit__(None, None, None)

    assert shown(read)["status"] == "queued"
    assert took < 5
    assert "Preference-Applied" not in submitted.headers


def test_a_silent_stream_sends_a_comment_once_in_a_while(owner: Submitter, flask: Flask) -> None:
    services = flask.extensions["darkroom"]
    job = services.intake.find(row_id(owner.made(prompt="a hill")["id"]), account_id=owner.account.id)
    watch = events.Watch(services, job, after=0, base_url="", heartbeat=timedelta(seconds=0.1))

    frames = list(itertools.islice(watch.frames(), 4))

    assert frames[0] == b"retry: 2000\n\n"
    assert frames[1].startswith(b"event: queued\nid: ")
    assert frames[2:] == [b": still here\n\n"] * 2


def test_a_stream_takes_a_place_until_its_reader_is_gone(owner: Submitter, flask: Flask) -> None:
    waits, path = flask.extensions["darkroom"].waits, f"{JOBS}/{owner.made(prompt='a hill')['id']}/events"
    free_before = waits.free

    answer = owner.ask("GET", path, buffered=False)
    first = next(iter(answer.response))
    free_while = waits.free
    answer.close()

    assert first == b"retry: 2000\n\n"
    assert (free_before, free_while, waits.free) == (waits.most, waits.most - 1, waits.most)
