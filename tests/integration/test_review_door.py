"""What the door promises: test keys apart, links to the host that was asked, an honest place in the queue."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import EnvironBuilder, run_wsgi_app

from app import auth
from app.db import Database, history
from app.domain.spec import Operation
from app.settings import Settings
from app.wish import Terms, Wish
from tests import rows
from tests.conftest import Account

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
            headers={"X-API-Key": key, "Idempotency-Key": "order-17"},
        ).json["jobId"]  # type: ignore[index]  # a JSON answer
        for key in (test_key.key, account.key, account.key)
    ]
    assert made[0] != made[1] == made[2]
    found = rows.query(database, "SELECT test FROM jobs ORDER BY id")
    assert [row.test for row in found] == [True, False]


# The door


@pytest.mark.parametrize(
    ("retain", "seconds"), [(timedelta(seconds=0.5), 1), (timedelta(days=365_000), 2**31 - 1)]
)
def test_a_retention_of_any_length_fits_its_column(
    flask: Flask, database: Database, account: Account, retain: timedelta, seconds: int
) -> None:
    wish = Wish(operation=Operation.TEXT_TO_IMAGE, prompt="a hill", terms=Terms(retain=retain))

    flask.extensions["darkroom"].intake.submit(wish, account_id=account.id, dialect="jobs")

    (found,) = rows.query(database, "SELECT retain_seconds FROM jobs")
    assert found.retain_seconds == seconds


@pytest.mark.parametrize(
    ("host", "base_url"),
    [
        ("xn--a", "http://xn--a"),  # looks encoded and cannot be decoded
        ("xn--mnchen-3ya.de", "http://xn--mnchen-3ya.de"),
        ("IMG.example:8443", "http://img.example:8443"),
        ("img.example:80", "http://img.example"),
        ("[::1]:9000", "http://[::1]:9000"),
        ("evil.example/path?x=", ""),
        ("user@evil.example", ""),
        ("<script>", ""),
    ],
)
def test_a_job_keeps_the_host_that_was_asked_as_it_is_sent_and_no_other(
    flask: Flask, database: Database, account: Account, host: str, base_url: str
) -> None:
    # Not a client: those of tests decode the host's name themselves.
    environment = EnvironBuilder(
        "/v1/jobs", method="POST", json={"prompt": "a hill"}, headers=list(account.headers.items())
    ).get_environ()
    content, status, headers = run_wsgi_app(flask, {**environment, "HTTP_HOST": host})

    assert status.startswith("202 "), b"".join(content)
    assert headers["Location"].startswith(f"{base_url}/v1/jobs/job_")
    assert [row.base_url for row in rows.query(database, "SELECT base_url FROM jobs")] == [base_url]


def ended(database: Database, account: Account, **columns: Any) -> UUID:
    """A job that failed on a queue which nobody serves any more."""
    return rows.insert_job(
        database,
        account.id,
        status="failed",
        finished_at="now()",
        error_code="timeout",
        provider="former",
        queue="gpu.former",
        **columns,
    )


def test_a_job_done_once_more_goes_to_who_does_it_today(
    client: FlaskClient, database: Database, account: Account
) -> None:
    """On the queue it was on before, it would wait for ever."""
    job_id = ended(database, account)

    answer = client.post(f"/v1/jobs/job_{job_id.hex}/retry", headers=account.headers)

    assert answer.status_code == 202, answer.text
    (again,) = rows.query(database, "SELECT queue, provider FROM jobs WHERE retry_of = %(id)s", id=job_id)
    assert (again.queue, again.provider) == ("cpu", "sketch")


def test_a_job_whose_model_is_no_more_is_not_done_again(
    client: FlaskClient, database: Database, account: Account
) -> None:
    job_id = ended(database, account, model="former")

    answer = client.post(f"/v1/jobs/job_{job_id.hex}/retry", headers=account.headers)

    assert answer.status_code == 404
    assert answer.get_json()["error"]["code"] == "model_not_found"
    assert rows.query(database, "SELECT id FROM jobs WHERE retry_of IS NOT NULL") == []


# The place in the queue


def test_a_place_in_the_queue_counts_what_goes_before_in_fair_order(
    database: Database, account: Account, stranger: Account
) -> None:
    chance = random.Random(7)  # noqa: S311 - a repeatable order
    waiting: list[tuple[UUID, Account, int, int]] = []
    for number in range(60):
        owner = account if chance.random() < 0.6 else stranger
        priority, minutes = chance.randrange(-1, 2), chance.randrange(20)
        released = number % 10 == 0
        job_id = rows.insert_job(
            database,
            owner.id,
            priority=priority,
            run_at=f"now() - interval '{minutes} min'",
            dispatched_at="now()" if released else "NULL",
        )
        waiting += [] if released else [(job_id, owner, -priority, -minutes)]
    for job_id, owner, *order in waiting:
        own = sum(1 for other, his, *before in waiting if his is owner and (before, other) < (order, job_id))
        others = sum(1 for _, his, *_ in waiting if his is not owner)
        with database.autocommit() as tx:
            assert history.jobs_ahead(tx, job_id) == own + min(others, own + 1) + 6


def test_the_backlogs_depth_does_not_slow_the_look_at_a_place_in_the_queue(
    database: Database, account: Account, stranger: Account
) -> None:
    mine, his = (rows.insert_job(database, owner.id) for owner in (account, stranger))
    rows.execute(
        database,
        """INSERT INTO jobs (id, account_id, dialect, operation, model, provider, queue, status, spec,
                             output_prefix, max_attempts, run_at)
           SELECT gen_random_uuid(), account_id, dialect, operation, model, provider, queue, status, spec,
                  gen_random_uuid(), max_attempts, run_at + interval '1 min'
           FROM jobs, generate_series(1, 10000)""",
    )
    rows.execute(database, "ANALYZE jobs")

    for job_id in (mine, his):
        with database.transaction() as tx:
            (plan,) = tx.exec_driver_sql(
                "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + history._AHEAD,
                {"job_id": job_id, "most": 10_000},
            ).scalars()
        blocks = plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]
        assert blocks < 100, f"{blocks} blocks were read"


def test_a_list_of_what_is_new_does_not_read_what_is_old(
    client: FlaskClient, database: Database, account: Account
) -> None:
    new = rows.insert_job(database, account.id)
    rows.insert_job(
        database,
        account.id,
        id=history.first_id(datetime.now(UTC) - timedelta(days=2)),
        created_at="now() - interval '2 days'",
    )

    def listed(after: str) -> list[str]:
        answer = client.get(f"/v1/jobs?created_after={after}", headers=account.headers)
        assert answer.status_code == 200, answer.text
        return [job["id"] for job in answer.get_json()["jobs"]]

    day_ago = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert listed(day_ago) == [f"job_{new.hex}"]
    assert len(listed("0001-01-01T00:00:00Z")) == 2
    assert listed("9999-12-31T23:59:59Z") == []
