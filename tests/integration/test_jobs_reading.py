"""Jobs as their owner finds them: alone, and in pages."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import web, webhooks
from app.db import Database, history, outputs
from app.domain.webhook import Event, Form
from app.settings import Settings
from app.storage import Storage
from tests import rows
from tests.conftest import Account
from tests.drawing import announce, drawing
from tests.factories import picture
from tests.submitter import JOBS, Submitter, problems, row_id, shown

RUNNING: dict[str, Any] = {
    "status": "processing",
    "attempt": 1,
    "started_at": "now()",
    "lease_owner": "gpu-7.internal:4711:1",
    "lease_until": "now() + interval '1 minute'",
    "deadline_at": "now() + interval '1 minute'",
}
HOUR = timedelta(hours=1)
PNG = base64.b64encode(picture(32, 32)).decode()


@pytest.fixture(scope="module")
def flask(base_settings: Settings) -> Iterator[Flask]:
    """One application for all tests of this file."""
    made = web.create_app(base_settings.model_copy(update={"rate_limit_per_minute": 100_000}))
    yield made
    web.close(made)


@pytest.fixture
def owner(client: FlaskClient, database: Database, account: Account) -> Submitter:
    announce(database)
    return Submitter(client, account)


# One job


def test_a_queued_job_says_how_many_are_before_it(owner: Submitter, database: Database) -> None:
    ids = [owner.made(prompt=f"hill {number}")["id"] for number in range(3)]
    urgent = owner.made(prompt="at once", priority=5)["id"]

    positions = [owner.job(job_id)["position"] for job_id in (*ids, urgent)]

    assert positions == [2, 3, 4, 1]
    estimates = [owner.job(job_id)["estimated_completion"] for job_id in (urgent, *ids)]
    assert estimates == sorted(estimates)
    assert rows.query(database, "SELECT count(*) AS jobs FROM jobs")[0].jobs == 4


def test_a_running_job_says_what_it_is_at(owner: Submitter, database: Database) -> None:
    job_id = rows.insert_job(
        database, owner.account.id, **RUNNING, stage="generating", step=3, steps=12, progress=0.25
    )

    answer = owner.ask("GET", f"{JOBS}/job_{job_id.hex}")

    job = shown(answer)
    assert (job["stage"], job["step"], job["steps"], job["progress"]) == ("generating", 3, 12, 0.25)
    assert (job["position"], job["attempt"]) == (None, 1)
    assert datetime.fromisoformat(job["estimated_completion"]) > datetime.now(UTC) - timedelta(seconds=1)
    assert int(answer.headers["Retry-After"]) >= 1
    assert "gpu-7" not in answer.text


def test_a_finished_job_shows_its_outputs_and_nothing_to_come(
    owner: Submitter, settings: Settings, database: Database, storage: Storage
) -> None:
    made = owner.made(prompt="a hill", width=32, height=16, num_images=2, seed=7, retain_seconds=60)
    with drawing(settings, database, storage):
        job = owner.job(made["id"], "?wait=20")

    assert (job["status"], job["progress"], job["estimated_completion"], job["error"]) == (
        "completed",
        1.0,
        None,
        None,
    )
    for index, output in enumerate(job["outputs"]):
        assert (output["index"], output["seed"], output["width"], output["height"]) == (
            index,
            7 + index,
            32,
            16,
        )
        assert (output["access"], output["persisted"], output["flagged"]) == ("link", False, None)
        assert output["job_id"] == made["id"]
        left = datetime.fromisoformat(output["expires_at"]) - datetime.fromisoformat(job["finished_at"])
        assert left == timedelta(seconds=60)
        assert owner.client.get(output["url"].removeprefix("http://localhost")).status_code == 200
    assert "Retry-After" not in owner.ask("GET", f"{JOBS}/{made['id']}").headers


def test_a_webhook_shows_an_ended_job_as_get_does_to_the_letter(
    owner: Submitter, settings: Settings, database: Database, storage: Storage
) -> None:
    made = owner.made(prompt="a hill", width=32, height=16)
    with drawing(settings, database, storage):
        job = owner.job(made["id"], "?wait=20")
    with database.autocommit() as tx:
        row = history.find_job(tx, row_id(made["id"]), account_id=owner.account.id)
        images = outputs.of_job(tx, row_id(made["id"]))

    told = webhooks.Told(
        delivery_id=uuid4(),
        event=Event.COMPLETED,
        at=datetime.now(UTC),
        job=row,
        outputs=images,
        base_url="http://localhost",
    )

    assert json.loads(webhooks.render(Form.JOBS, told))["data"] == job


@pytest.mark.parametrize(
    ("columns", "error"),
    [
        ({"status": "failed", "error_code": "timeout"}, {"code": "timeout", "message": "The job failed."}),
        (
            {"status": "cancelled", "error_code": "cancelled", "error_message": "It was cancelled."},
            {"code": "cancelled", "message": "It was cancelled."},
        ),
    ],
)
def test_a_job_without_images_says_why(
    columns: dict[str, Any], error: dict[str, str], owner: Submitter, database: Database
) -> None:
    job_id = rows.insert_job(database, owner.account.id, finished_at="now()", **columns)

    assert owner.job(f"job_{job_id.hex}")["error"] == error


def test_jobs_of_the_other_dialects_are_shown_too(owner: Submitter) -> None:
    made = owner.ask("POST", "/v1/images/generate", json={"modelId": "sketch", "prompt": "a hill"})

    job = owner.job(shown(made, 202)["jobId"])

    assert (job["dialect"], job["operation"], job["spec"]["prompt"]) == ("realm", "text_to_image", "a hill")


@pytest.mark.parametrize("shape", ["x", "%00", "job_{id}0", "JOB_{id}", "img_{id}", "{id}"])
@pytest.mark.parametrize("what", ["", "/events", "/timeline"])
def test_an_id_of_another_form_is_404(shape: str, what: str, owner: Submitter) -> None:
    job_id = owner.made(prompt="a hill")["id"]

    answer = owner.ask("GET", f"{JOBS}/{shape.format(id=job_id[4:])}{what}")

    assert shown(answer, 404)["error"]["code"] in {"job_not_found", "not_found"}


def test_nobody_sees_cancels_repeats_or_watches_a_job_that_is_not_theirs(
    owner: Submitter, stranger: Account, client: FlaskClient
) -> None:
    job_id, other = owner.made(prompt="a hill")["id"], Submitter(client, stranger)

    asked = [
        other.ask(method, f"{JOBS}/{job_id}{what}")
        for method, what in (
            *(("GET", ""), ("GET", "/events"), ("GET", "/timeline")),
            *(("DELETE", ""), ("POST", "/retry")),
        )
    ]

    assert [answer.status_code for answer in asked] == [404] * 5
    assert shown(other.ask("GET", JOBS))["jobs"] == []
    assert owner.job(job_id)["status"] == "queued"


# Pages


def test_pages_go_from_the_newest_to_the_oldest_and_keep_their_filters(owner: Submitter) -> None:
    mine = [owner.made(prompt="a hill", track_id="mine")["id"] for _ in range(5)]
    owner.made(prompt="a hill", track_id="other")

    seen, path, pages = [], f"{JOBS}?track_id=mine&limit=2", 0
    while path:
        page = shown(owner.ask("GET", path))
        seen += [job["id"] for job in page["jobs"]]
        path, pages = (page["next"] or "").removeprefix("http://localhost"), pages + 1

    assert seen == mine[::-1]
    assert pages == 3


def test_each_filter_leaves_what_it_says(owner: Submitter, database: Database) -> None:
    old = rows.insert_job(
        database,
        owner.account.id,
        status="completed",
        finished_at="now()",
        created_at="now() - interval '2 days'",
    )
    failed = rows.insert_job(
        database,
        owner.account.id,
        status="failed",
        error_code="timeout",
        finished_at="now()",
        model="gone",
        provider="elsewhere",
    )
    new = row_id(owner.made(operation="import", image=PNG)["id"])
    day_ago = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    found = {
        query: {job["id"] for job in shown(owner.ask("GET", f"{JOBS}?{query}"))["jobs"]}
        for query in (
            "status=completed",
            "status=failed",
            "operation=import",
            "model=gone",
            "model=mod_zyx987&dialect=realm",
            "provider=elsewhere",
            "provider=pillow",
            "dialect=jobs",
            f"created_before={quote(day_ago)}",
            f"created_after={day_ago}",  # its + arrives as a space
            "status=queued&dialect=realm",
            "status=&track_id=",
        )
    }

    ids = {name: f"job_{job_id.hex}" for name, job_id in (("old", old), ("failed", failed), ("new", new))}
    expected = {
        "status=completed": "old",
        "status=failed": "failed",
        "operation=import": "new",
        "model=gone": "failed",
        "model=mod_zyx987&dialect=realm": "old",
        "provider=elsewhere": "failed",
        "provider=pillow": "new",
        "dialect=jobs": "new",
        f"created_before={quote(day_ago)}": "old",
        f"created_after={day_ago}": "failed new",
        "status=queued&dialect=realm": "",
        "status=&track_id=": "old failed new",
    }
    assert found == {query: {ids[name] for name in names.split()} for query, names in expected.items()}


def test_a_page_shows_outputs_and_estimates_of_what_runs_but_no_places(
    owner: Submitter, database: Database
) -> None:
    done = rows.insert_job(database, owner.account.id, status="completed", finished_at="now()")
    for index in range(2):
        rows.insert_output(database, done, key=f"x/{index}", index=index, expires_in=HOUR)
    rows.insert_job(database, owner.account.id, **RUNNING)
    owner.made(prompt="a hill")

    queued, running, completed = shown(owner.ask("GET", JOBS))["jobs"]

    assert [output["index"] for output in completed["outputs"]] == [0, 1]
    assert (queued["position"], queued["estimated_completion"]) == (None, None)
    assert running["estimated_completion"] is not None


@pytest.mark.parametrize(
    ("query", "refusal"),
    [
        ("stauts=queued", {"stauts": "is not known here; did you mean status?"}),
        ("status=done", {"status": "must be one of queued, processing, completed, failed, cancelled"}),
        ("limit=0", {"limit": "must be at least 1"}),
        ("limit=101", {"limit": "must be at most 100"}),
        ("limit=1_0", {"limit": "must be a number in digits"}),
        ("limit=1&limit=2", {"limit": "was sent more than once; send it once"}),
        ("before=job_1", {"before": "must be the id of a job: job_ and 32 digits"}),
        ("track_id=%00", {"track_id": "must not contain NUL characters; remove them"}),
        (
            "created_after=yesterday",
            {"created_after": "must be a time with its zone, such as 2026-11-21T10:00:00Z"},
        ),
        (
            "created_before=0001-01-01T00:00:00%2B14:00",
            {"created_before": "is out of all range; send a time such as 2026-11-21T10:00:00Z"},
        ),
    ],
)
def test_a_query_that_would_find_other_jobs_than_meant_is_refused(
    query: str, refusal: dict[str, str], owner: Submitter
) -> None:
    assert problems(owner.ask("GET", f"{JOBS}?{query}")) == refusal
