"""What owners do with their outputs: look, keep, publish, download with a key, delete."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient

from app import retention, web
from app.db import Database
from app.settings import Settings
from app.storage import Storage
from tests import rows
from tests.conftest import Account
from tests.shelf import DATA, HOUR, SHA, Shelf
from tests.submitter import Submitter, shown

ACTIONS = [
    *(("GET", ""), ("GET", "/download"), ("DELETE", "")),
    *(("POST", "/persist"), ("DELETE", "/persist"), ("POST", "/publish"), ("DELETE", "/publish")),
]


@pytest.fixture(scope="module")
def flask(base_settings: Settings) -> Iterator[Flask]:
    """One application for all tests of this file."""
    made = web.create_app(base_settings.model_copy(update={"rate_limit_per_minute": 100_000}))
    yield made
    web.close(made)


@pytest.fixture
def shelf(database: Database, storage: Storage, account: Account) -> Shelf:
    return Shelf(database, storage, account)


@pytest.fixture
def owner(client: FlaskClient, shelf: Shelf, account: Account) -> Submitter:
    del shelf  # its database is emptied before the test
    return Submitter(client, account)


def at(output_id: UUID, what: str = "") -> str:
    return f"/v1/outputs/img_{output_id.hex}{what}"


# Persist


def test_persisting_keeps_an_output_and_unpersisting_lets_it_expire_at_its_old_time(
    client: FlaskClient, shelf: Shelf, account: Account
) -> None:
    path, output_id = shelf.put()
    persist = f"/v1/outputs/img_{output_id.hex}/persist"

    kept = [client.post(persist, headers=account.headers) for _ in range(2)]
    cached = client.get(path).headers["Cache-Control"]
    released = [client.delete(persist, headers=account.headers) for _ in range(2)]

    assert [answer.status_code for answer in (*kept, *released)] == [200, 200, 200, 200]
    assert (kept[0].get_json()["persisted"], kept[0].get_json()["expires_at"]) == (True, None)
    assert cached == "private, max-age=3600"
    left = datetime.fromisoformat(released[0].get_json()["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < left < HOUR
    assert released[0].get_json() == released[1].get_json()
    assert released[0].get_json()["expires_at"].endswith("Z")


def test_a_kept_output_is_served_past_its_time_and_gets_a_new_one_when_released(
    client: FlaskClient, shelf: Shelf, account: Account, settings: Settings
) -> None:
    path, output_id = shelf.put(expires_in=-HOUR, persisted_at=datetime.now(UTC))

    assert client.get(path).status_code == 200
    answer = client.delete(f"/v1/outputs/img_{output_id.hex}/persist", headers=account.headers)

    left = datetime.fromisoformat(answer.get_json()["expires_at"]) - datetime.now(UTC)
    assert settings.retention - timedelta(minutes=1) < left < settings.retention + timedelta(minutes=1)


def test_too_late_is_410_for_persist_and_release(client: FlaskClient, shelf: Shelf, account: Account) -> None:
    _, output_id = shelf.put(expires_in=-HOUR)

    for method in ("POST", "DELETE"):
        answer = client.open(
            f"/v1/outputs/img_{output_id.hex}/persist", method=method, headers=account.headers
        )
        assert answer.status_code == 410
        assert answer.get_json()["error"]["code"] == "gone"


@pytest.mark.parametrize(
    "given", ["x", "%00", "{id}", "img_{id}0", "img_{{{id}}}", "IMG_{id}", "job_{id}", "img_"]
)
def test_an_output_id_of_another_form_is_404(
    given: str, client: FlaskClient, shelf: Shelf, account: Account
) -> None:
    _, output_id = shelf.put()

    path = f"/v1/outputs/{given.format(id=output_id.hex)}/persist"

    assert client.post(path, headers=account.headers).status_code == 404


def test_persist_takes_the_key_as_bearer_too_and_counts_the_request(
    client: FlaskClient, shelf: Shelf, account: Account
) -> None:
    path = f"/v1/outputs/img_{shelf.put()[1].hex}/persist"

    answer = client.post(path, headers={"Authorization": f"bearer {account.key}"})
    refused = client.post(path, headers={"Authorization": f"Basic {account.key}"})

    assert (answer.status_code, refused.status_code) == (200, 401)
    assert int(answer.headers["X-RateLimit-Remaining"]) < 100_000
    assert refused.get_json()["error"]["code"] == "unauthenticated"
    assert refused.headers["WWW-Authenticate"] == 'ApiKey realm="darkroom", header="X-API-Key"'


# Look


def test_an_output_is_shown_with_all_that_is_known_of_it(owner: Submitter, shelf: Shelf) -> None:
    path, output_id = shelf.put(flagged=True, format="webp", width=7, height=5)
    (row,) = rows.query(shelf.database, "SELECT job_id FROM outputs")

    output = shown(owner.ask("GET", at(output_id)))

    left = datetime.fromisoformat(output.pop("expires_at")) - datetime.now(UTC)
    assert timedelta(minutes=59) < left < HOUR
    assert output == {
        "id": f"img_{output_id.hex}",
        "job_id": f"job_{row.job_id.hex}",
        "index": 0,
        "url": f"http://localhost{path.removesuffix('png')}webp",
        "access": "link",
        "width": 7,
        "height": 5,
        "format": "webp",
        "size": 1024,
        "seed": 1,
        "sha256": SHA,
        "flagged": True,
        "persisted": False,
        "expired": False,
        "published_at": None,
    }


# Publish


def test_a_published_output_is_everybodys_is_kept_and_may_be_cached_for_a_while(
    owner: Submitter, shelf: Shelf
) -> None:
    path, output_id = shelf.put(access="private")
    before = owner.client.get(path)

    first, again = (shown(owner.ask("POST", at(output_id, "/publish"))) for _ in range(2))
    public = owner.client.get(path)

    assert before.status_code == 404
    assert (first["access"], first["persisted"], first["expires_at"]) == ("public", True, None)
    assert first["url"] == f"http://localhost{path}"
    assert first == again
    assert datetime.now(UTC) - datetime.fromisoformat(first["published_at"]) < timedelta(minutes=1)
    assert (public.data, public.headers["Cache-Control"]) == (DATA, "public, max-age=300")


@pytest.mark.parametrize("access", ["link", "public"])
def test_what_is_unpublished_is_only_its_owners_and_stays_kept(
    access: str, owner: Submitter, shelf: Shelf
) -> None:
    path, output_id = shelf.put()
    if access == "public":
        owner.ask("POST", at(output_id, "/publish"))

    answer = shown(owner.ask("DELETE", at(output_id, "/publish")))

    assert (answer["access"], answer["url"], answer["published_at"]) == ("private", None, None)
    assert answer["persisted"] is (access == "public")
    assert owner.client.get(path).status_code == 404
    assert owner.ask("GET", at(output_id, "/download")).data == DATA


# Download


@pytest.mark.parametrize("access", ["link", "private"])
def test_with_the_key_an_output_is_had_like_from_its_url(access: str, owner: Submitter, shelf: Shelf) -> None:
    _, output_id = shelf.put(access=access)

    whole = owner.ask("GET", at(output_id, "/download"))
    part = owner.ask("GET", at(output_id, "/download"), headers={"Range": "bytes=2-5"})
    known = owner.ask("GET", at(output_id, "/download"), headers={"If-None-Match": f'"{SHA}"'})
    head = owner.ask("HEAD", at(output_id, "/download"))

    assert (whole.data, whole.headers["Content-Type"]) == (DATA, "image/png")
    assert re.fullmatch(r"private, max-age=3\d\d\d", whole.headers["Cache-Control"])
    assert (part.status_code, part.data) == (206, DATA[2:6])
    assert (known.status_code, head.status_code) == (304, 200)
    assert head.headers["Content-Length"] == "1024"
    assert "X-RateLimit-Remaining" in whole.headers


def test_with_a_public_endpoint_the_key_leads_to_a_presigned_link(
    settings: Settings, shelf: Shelf, account: Account
) -> None:
    _, output_id = shelf.put(access="private")
    flask = web.create_app(settings.model_copy(update={"s3_public_endpoint": settings.s3_endpoint}))
    try:
        answer = flask.test_client().get(at(output_id, "/download"), headers=account.headers)
    finally:
        web.close(flask)

    assert answer.status_code == 302
    assert requests.get(answer.headers["Location"], timeout=10).content == DATA


def test_what_is_gone_is_410_to_its_owner_who_still_sees_that_it_was(owner: Submitter, shelf: Shelf) -> None:
    _, output_id = shelf.put(expires_in=-HOUR)

    answer = owner.ask("GET", at(output_id, "/download"))

    assert re.match("This output expired at .*; persist outputs", shown(answer, 410)["error"]["message"])
    assert shown(owner.ask("GET", at(output_id)))["expired"] is True
    assert owner.ask("POST", at(output_id, "/publish")).status_code == 410


# Delete


@pytest.mark.parametrize("state", ["plain", "persist", "publish"])
def test_a_deleted_output_is_gone_at_once_for_everybody_kept_or_not_and_for_good(
    state: str, owner: Submitter, shelf: Shelf, settings: Settings, storage: Storage
) -> None:
    path, output_id = shelf.put()
    if state != "plain":
        shown(owner.ask("POST", at(output_id, f"/{state}")))

    answer = owner.ask("DELETE", at(output_id))
    after = [
        owner.ask("DELETE", at(output_id)),
        owner.ask("GET", at(output_id, "/download")),
        owner.ask("POST", at(output_id, "/persist")),
        owner.ask("POST", at(output_id, "/publish")),
    ]
    retention.purge(settings, database=shelf.database, storage=storage)

    assert (answer.status_code, answer.data) == (204, b"")
    assert [each.status_code for each in after] == [410] * 4
    assert shown(after[1], 410)["error"]["message"] == "This output was deleted."
    assert owner.client.get(path).status_code in {404, 410}
    row = rows.query(shelf.database, "SELECT * FROM outputs")[0]
    assert (row.state, row.persisted_at, row.published_at) == ("purged", None, None)
    assert not list(storage.list(row.key))
    assert shown(owner.ask("GET", at(output_id)))["expired"] is True


# Whose


@pytest.mark.parametrize(("method", "what"), ACTIONS)
def test_nobody_does_anything_with_an_output_that_is_not_theirs(
    method: str, what: str, owner: Submitter, stranger: Account, shelf: Shelf
) -> None:
    _, output_id = shelf.put()
    other = Submitter(owner.client, stranger)

    refused = other.ask(method, at(output_id, what))
    nobody = owner.client.open(at(output_id, what), method=method)

    assert shown(refused, 404)["error"]["message"] == "No output has this id."
    assert nobody.status_code == 401
    (row,) = rows.query(shelf.database, "SELECT state, access, persisted_at FROM outputs")
    assert (row.state, row.access, row.persisted_at) == ("live", "link", None)
