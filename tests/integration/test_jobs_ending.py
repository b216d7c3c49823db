"""How jobs end: cancelled, failed, done once more, and what their timelines tell of it."""

import base64
import re
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import auth, web
from app.db import Database
from app.errors import ProviderDown
from app.settings import Settings
from app.storage import Storage
from tests import rows
from tests.album import key_of
from tests.conftest import Account
from tests.drawing import drawing
from tests.factories import picture
from tests.paced import Paced
from tests.submitter import JOBS, Submitter, row_id, shown

PNG = base64.b64encode(picture(32, 32)).decode()


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


@pytest.fixture
def patient(settings: Settings) -> Settings:
    """Settings of a worker that by itself looks at its jobs' rows only every ten seconds."""
    changes = {"lease": timedelta(seconds=30), "job_deadline": timedelta(minutes=5)}
    return settings.model_copy(update={**changes, "progress_every": timedelta(seconds=30)})


# Cancel


def test_a_queued_job_is_cancelled_at_once_and_again_and_never_drawn(
    owner: Submitter, settings: Settings, database: Database, storage: Storage
) -> None:
    job_id = owner.made(prompt="a hill")["id"]

    first, again = (shown(owner.ask("DELETE", f"{JOBS}/{job_id}")) for _ in range(2))
    with drawing(settings, database, storage):
        other = owner.job(owner.made(prompt="a lake", width=16, height=16)["id"], "?wait=20")

    assert (first["status"], again["status"], other["status"]) == ("cancelled", "cancelled", "completed")
    assert first["error"] == {"code": "cancelled", "message": "The job was cancelled before it ran."}
    assert first["cancel_requested_at"] == again["cancel_requested_at"]
    assert owner.job(job_id)["attempt"] == 0


def test_a_running_job_stops_within_a_fraction_of_a_second(
    owner: Submitter, patient: Settings, database: Database, storage: Storage
) -> None:
    """The worker hears the bell: by itself it would look at the row in ten seconds."""
    slow = Paced()
    job_id = owner.made(prompt="a hill", width=16, height=16)["id"]
    with drawing(patient, database, storage, provider=lambda _: slow):
        assert slow.begun.wait(20)
        asked = time.monotonic()
        answer = shown(owner.ask("DELETE", f"{JOBS}/{job_id}"))
        ended = owner.job(job_id, "?wait=20")

    assert answer["status"] in {"processing", "cancelled"}
    assert answer["cancel_requested_at"] is not None
    assert slow.stopped_at is not None
    assert slow.stopped_at - asked < 1.0
    assert (ended["status"], ended["outputs"], ended["attempt"]) == ("cancelled", [], 1)
    assert rows.reasons(database, row_id(job_id))[-1] == "cancelled"


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_what_has_ended_cannot_be_cancelled(status: str, owner: Submitter, database: Database) -> None:
    error: dict[str, Any] = {"error_code": "timeout"} if status == "failed" else {}
    job_id = rows.insert_job(database, owner.account.id, status=status, finished_at="now()", **error)

    refusal = shown(owner.ask("DELETE", f"{JOBS}/job_{job_id.hex}"), 409)["error"]

    assert refusal["code"] == "already_ended"
    assert status in refusal["message"]


# Once more


def test_a_retry_is_a_new_job_with_the_same_picture(
    owner: Submitter, settings: Settings, database: Database, storage: Storage
) -> None:
    made = owner.made(prompt="a hill", image=PNG, width=32, height=32, track_id="t", priority=3, private=True)
    early = owner.ask("POST", f"{JOBS}/{made['id']}/retry")
    with drawing(settings, database, storage):
        first = owner.job(made["id"], "?wait=20")
        answers = [
            owner.ask("POST", f"{JOBS}/{made['id']}/retry?wait=20", headers={"Idempotency-Key": "again"})
            for _ in range(2)
        ]

    assert shown(early, 409)["error"]["code"] == "still_running"
    second, replayed = (shown(answer) for answer in answers)
    assert second["id"] == replayed["id"] != made["id"]
    assert ["Idempotent-Replayed" in answer.headers for answer in answers] == [False, True]
    assert answers[0].headers["Location"].endswith(second["id"])
    assert second["retry_of"] == made["id"]
    assert (second["track_id"], second["priority"], second["private"]) == ("t", 3, True)
    assert second["spec"] == first["spec"]
    assert second["outputs"][0]["sha256"] == first["outputs"][0]["sha256"]


def test_what_a_test_key_repeats_is_marked_though_the_first_was_not(
    owner: Submitter, settings: Settings, database: Database
) -> None:
    first = owner.made(prompt="a hill")["id"]
    owner.ask("DELETE", f"{JOBS}/{first}")
    key = key_of(database, settings, "alice", prefix=auth.TEST_PREFIX)
    tester = Submitter(owner.client, Account(id=owner.account.id, key=key))

    again = shown(tester.ask("POST", f"{JOBS}/{first}/retry"), 202)["id"]

    assert [rows.job(database, row_id(each)).test for each in (first, again)] == [False, True]
    assert rows.job(database, row_id(again)).spec["test"] is True


def test_a_retry_without_its_input_images_is_410(
    owner: Submitter, database: Database, storage: Storage
) -> None:
    job_id = owner.made(prompt="a hill", image=PNG)["id"]
    shown(owner.ask("DELETE", f"{JOBS}/{job_id}"))
    storage.delete([row.key for row in rows.query(database, "SELECT key FROM inputs")])

    error = shown(owner.ask("POST", f"{JOBS}/{job_id}/retry"), 410)["error"]

    assert error["message"].startswith("The job's input images were deleted meanwhile; ")
    assert rows.query(database, "SELECT count(*) AS jobs FROM jobs")[0].jobs == 1


# Timeline


def test_a_timeline_tells_every_transition_and_nothing_of_ours(
    owner: Submitter, settings: Settings, database: Database, storage: Storage
) -> None:
    flaky = Paced(steps=1)
    flaky.fails = [ProviderDown("http://10.0.0.9 does not answer")]
    flaky.run_on()
    job_id = owner.made(prompt="a hill", width=16, height=16)["id"]
    with drawing(settings, database, storage, provider=lambda _: flaky):
        owner.job(job_id, "?wait=30")

    answer = owner.ask("GET", f"{JOBS}/{job_id}/timeline")

    timeline = shown(answer)
    assert timeline["job_id"] == job_id
    events = timeline["events"]
    assert [(e["from_status"], e["to_status"], e["reason"], e["attempt"]) for e in events] == [
        (None, "queued", "submitted", 0),
        ("queued", "processing", "claimed", 1),
        ("processing", "queued", "retry", 1),
        ("queued", "processing", "claimed", 2),
        ("processing", "completed", "completed", 2),
    ]
    assert [event["id"] for event in events] == sorted(event["id"] for event in events)
    assert events[0]["seconds"] == 0
    moments = [datetime.fromisoformat(event["at"]) for event in events]
    assert sum(event["seconds"] for event in events) == pytest.approx(
        (moments[-1] - moments[0]).total_seconds(), abs=0.01
    )
    assert events[2]["error_code"] == "provider_unavailable"
    assert events[2]["delay_seconds"] >= 0
    assert set(events[4]["spent"]) >= {"read", "generate"}
    words = {event["worker"] for event in events if event["worker"]}
    assert len(words) == 1
    assert re.fullmatch("[0-9a-f]{8}", words.pop())
    assert "10.0.0.9" not in answer.text


def test_a_traceback_is_for_the_operator(
    owner: Submitter, settings: Settings, database: Database, storage: Storage
) -> None:
    broken = Paced(steps=1)
    broken.fails = [ZeroDivisionError("secret")]
    broken.run_on()
    job_id = owner.made(prompt="a hill", width=16, height=16)["id"]
    with drawing(settings, database, storage, provider=lambda _: broken):
        job = owner.job(job_id, "?wait=20")

    told = owner.ask("GET", f"{JOBS}/{job_id}/timeline").text
    assert job["error"]["code"] == "internal_error"
    assert "secret" in rows.query(database, "SELECT detail::text FROM job_events ORDER BY id")[-1].detail
    assert "secret" not in told
    assert "Traceback" not in told
