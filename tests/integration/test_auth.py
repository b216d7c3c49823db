"""Keys over HTTP: who gets in, how fast a revoked key is out, and that no key is kept or logged."""

import io
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from flask import Flask
from flask.testing import FlaskClient

from app import auth, log, web
from app.db import Database, accounts
from app.settings import Settings
from tests import rows
from tests.conftest import Account
from tests.factories import GENERATE, MODIFY, body, form, refused
from tests.waiting import eventually

MODELS = "/v1/models"


@pytest.fixture(scope="module")
def flask(base_settings: Settings) -> Iterator[Flask]:
    """One application for all tests of this file, whose memory of keys outlives each."""
    made = web.create_app(base_settings.model_copy(update={"rate_limit_per_minute": 100_000}))
    yield made
    web.close(made)


def make_key(database: Database, settings: Settings, **options: Any) -> auth.NewKey:
    with database.transaction() as tx:
        new = auth.create_key(
            tx, account="alice", name="test", secret_key=settings.secret_key.get_secret_value(), **options
        )
    assert new is not None
    return new


def status(client: FlaskClient, key: str) -> int:
    return client.get(MODELS, headers={"X-API-Key": key}).status_code


def test_a_revoked_key_is_out_at_once_and_its_siblings_stay(
    client: FlaskClient, database: Database, settings: Settings
) -> None:
    old, new = make_key(database, settings), make_key(database, settings)
    assert [status(client, old.key), status(client, new.key)] == [200, 200]

    with database.transaction() as tx:
        assert accounts.revoke_key(tx, old.id)
        auth.announce_change(tx)

    # Far below the 30 s for which an answer is remembered.
    eventually(lambda: status(client, old.key) == 401, within=5)
    assert status(client, new.key) == 200


def test_an_expired_key_is_out_when_its_time_comes_though_it_was_just_used(
    client: FlaskClient, database: Database, settings: Settings
) -> None:
    new = make_key(database, settings, expires_at=datetime.now(UTC) + timedelta(seconds=2))
    assert status(client, new.key) == 200

    eventually(lambda: status(client, new.key) == 401, within=10)


def test_a_key_that_was_refused_is_let_in_as_soon_as_it_is_made(
    client: FlaskClient, database: Database, settings: Settings
) -> None:
    preset = "a-key-that-a-service-brings-along"
    assert status(client, preset) == 401

    make_key(database, settings, key=preset)

    eventually(lambda: status(client, preset) == 200, within=5)


def test_a_disabled_account_is_403_on_every_address_and_may_come_back(
    client: FlaskClient, account: Account, database: Database
) -> None:
    def set_disabled(value: str) -> None:
        with database.transaction() as tx:
            tx.exec_driver_sql(f"UPDATE accounts SET disabled_at = {value}")
            auth.announce_change(tx)

    assert status(client, account.key) == 200
    set_disabled("now()")
    eventually(lambda: status(client, account.key) == 403, within=5)
    for answer in (
        client.post(GENERATE, json=body(), headers=account.headers),
        client.post(MODIFY, data=form(), headers=account.headers),
        client.get("/v1/images/jobs/x", headers=account.headers),
    ):
        assert refused(answer, 403) == {"": "This account is disabled; ask your Darkroom operator."}
    assert client.post("/v1/outputs/x/persist", headers=account.headers).status_code == 403
    assert rows.query(database, "SELECT * FROM jobs") == []

    set_disabled("NULL")
    eventually(lambda: status(client, account.key) == 200, within=5)


def test_of_a_key_only_its_beginning_and_a_keyed_hash_are_kept(
    client: FlaskClient, account: Account, database: Database, settings: Settings
) -> None:
    client.post(GENERATE, json=body(), headers=account.headers)

    (row,) = rows.query(database, "SELECT * FROM api_keys")
    assert row.prefix == account.key[:8]
    assert bytes(row.digest) == auth.digest(account.key, secret_key=settings.secret_key.get_secret_value())
    assert row.last_used_at is not None
    for table in ("accounts", "api_keys", "jobs", "job_events"):
        found = rows.query(database, f"SELECT {table}::text AS whole FROM {table}")
        assert not any(account.key in each.whole for each in found), table


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """Everything that is logged, at the most talkative level."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    log.configure(log_format="json", level="debug")
    stream = io.StringIO()
    handler = root.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)
    yield stream
    root.handlers[:], root.level = before, level
    structlog.reset_defaults()


def test_no_log_line_holds_a_key_whatever_goes_wrong(
    settings: Settings, account: Account, logged: io.StringIO
) -> None:
    broken = web.create_app(
        settings.model_copy(update={"s3_endpoint": "http://127.0.0.1:1", "rate_limit_per_minute": 4})
    )
    try:
        client = broken.test_client()
        secrets = (account.key, "wrong-key-of-somebody")
        for key in secrets:
            headers = {"X-API-Key": key, "Authorization": f"Bearer {key}"}
            for path in (GENERATE, f"/v1/models?key={key}"):
                client.post(path, json=body(key=key), headers=headers)
            for _ in range(3):
                client.post(MODIFY, data=form(key=key), headers=headers)
    finally:
        web.close(broken)

    lines = logged.getvalue()
    assert "storage_unavailable" in lines
    assert "rate_limited" in lines
    assert not any(secret in lines for secret in secrets)
    assert settings.secret_key.get_secret_value() not in lines
