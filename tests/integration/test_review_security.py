"""What one account can learn of another or do to it, on every endpoint there is; and where secrets end up."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr
from werkzeug.test import TestResponse

from app import log, web, webhooks
from app.api import docs
from app.api.imgprocessing_ids import image_id
from app.api.operations import Operation
from app.auth import NewKey
from app.db import Database
from app.db.tables import metadata
from app.domain.webhook import ENDS, Form
from app.settings import Settings
from app.storage import Storage
from app.vault import Vault
from tests import realtime, rows
from tests.conftest import Account
from tests.factories import file_part, picture
from tests.realtime import IMAGES, text_of
from tests.shelf import SHA, Shelf
from tests.submitter import JOBS, Submitter, problems, shown

IMMEDIATE = timedelta(milliseconds=50)
HOOK = "https://203.0.113.7/hook"
OF_ONE = [each for each in docs.OPERATIONS if each.parts and each.secured and each.name != "getModel"]
"""Every endpoint whose address names something of an account's."""
UNTOUCHED = ("jobs", "job_events", "outputs", "webhook_endpoints", "deliveries", "idempotency_keys")


@pytest.fixture
def flask(settings: Settings, database: Database) -> Iterator[Flask]:
    """An application that waits no time worth speaking of; nothing is drawn on it."""
    del database  # emptied before the application starts
    made = web.create_app(settings.model_copy(update={"sync_wait": IMMEDIATE, "longest_wait": IMMEDIATE}))
    yield made
    web.close(made)


@dataclass(frozen=True)
class Estate:
    """One thing of each kind that an account can have."""

    job: UUID
    number: int
    output: UUID
    image: UUID
    webhook: UUID
    delivery: UUID

    def address(self, operation: Operation) -> str:
        """Where the operation is on the thing of its kind."""
        path = operation.path
        kinds = {
            "/v1/outputs/": f"img_{self.output.hex}",
            "/v1/webhooks/": f"we_{self.webhook.hex}",
            "/v1/deliveries/": f"msg_{self.delivery.hex}",
            "/v1/images/{image_id}": image_id(self.image),
            "/api/": str(self.number),
        }
        found = next((name for kind, name in kinds.items() if path.startswith(kind)), f"job_{self.job.hex}")
        return re.sub(r"\{\w+\}", found, path)


@pytest.fixture
def estate(settings: Settings, database: Database, storage: Storage, account: Account) -> Estate:
    shelf = Shelf(database, storage, account)
    _, output = shelf.put()
    _, image = shelf.put(access="private", name="holiday")
    registered = webhooks.register(
        database, Vault(settings), account_id=account.id, url=HOOK, form=Form.JOBS, events=ENDS
    )
    job = rows.insert_job(database, account.id, dialect="modelslab", number=4711)
    delivery = webhooks.send_test(database, registered.endpoint.id, account_id=account.id)
    return Estate(job, 4711, output, image, registered.endpoint.id, delivery.id)


def call(client: FlaskClient, operation: Operation, path: str, key: str) -> TestResponse:
    sent: dict[str, Any] = {}
    if operation.method == "POST":
        sent["json"] = {**(operation.example or {}), **({"key": key} if path.startswith("/api/") else {})}
    return client.open(path, method=operation.method, headers={"X-API-Key": key}, **sent)


def everything(database: Database) -> dict[str, str]:
    """All that these tables hold, as text."""
    return {
        table: str(
            rows.query(
                database, f"SELECT string_agg(t::text, chr(10) ORDER BY t::text) AS text FROM {table} t"
            )[0].text
        )
        for table in UNTOUCHED
    }


def test_on_every_endpoint_of_a_thing_a_stranger_finds_nothing_and_changes_nothing(
    client: FlaskClient, estate: Estate, account: Account, stranger: Account, database: Database
) -> None:
    before = everything(database)

    told = {each.name: call(client, each, estate.address(each), stranger.key) for each in OF_ONE}

    assert len(OF_ONE) > 40
    assert {name: answer.status_code for name, answer in told.items()} == dict.fromkeys(told, 404)
    assert everything(database) == before
    for text in ("holiday", HOOK, account.key, rows.job(database, estate.job).output_prefix.hex):
        assert not [name for name, answer in told.items() if text in answer.text]

    # The same requests find it when its owner sends them; what deletes comes last.
    in_order = sorted(OF_ONE, key=lambda each: (each.method == "DELETE", each.name == "deleteWebhook"))
    found = {each.name: call(client, each, estate.address(each), account.key) for each in in_order}
    assert [name for name, answer in found.items() if answer.status_code == 404] == []


def test_what_a_body_or_a_query_names_is_as_much_a_strangers(
    client: FlaskClient, estate: Estate, stranger: Account
) -> None:
    mallory = Submitter(client, stranger)
    output = {"output": f"img_{estate.image.hex}"}
    marked: dict[str, Any] = {"operation": "watermark", "image": text_of(picture()), "watermarks": [output]}

    refused = mallory.submit(prompt="x", image=output)
    mark = mallory.submit(**marked, transform={"watermarks": [{"image": 0}]})
    fetched = client.post(f"{IMAGES}fetch", json={"key": stranger.key, "request_id": estate.number})
    pages = [
        mallory.ask("GET", f"{JOBS}?before=job_{'f' * 32}"),
        mallory.ask("GET", f"/v1/images?from={image_id(UUID(int=2**128 - 1))}"),
        mallory.ask("GET", f"/v1/webhooks?cursor=we_{'f' * 32}"),
    ]
    deliveries = mallory.ask("GET", f"/v1/webhooks/we_{estate.webhook.hex}/deliveries")

    assert "is no output of yours" in problems(refused)["image"]
    assert "is no output of yours" in problems(mark)["watermarks.0"]
    assert (fetched.status_code, deliveries.status_code) == (404, 404)
    assert [next(iter(shown(page).values())) for page in pages] == [[], [], []]


# Private images


@pytest.mark.parametrize(
    ("public", "found"), [({}, 200), ({"s3_public_endpoint": "https://s3.example"}, 302)]
)
def test_a_private_image_is_behind_no_form_of_its_url(
    public: dict[str, str],
    found: int,
    settings: Settings,
    database: Database,
    storage: Storage,
    account: Account,
    stranger: Account,
) -> None:
    flask = web.create_app(settings.model_copy(update=public))
    client = flask.test_client()
    path, output_id = Shelf(database, storage, account).put(access="private", name="mine")
    base = path.removesuffix(".png")
    owner = Submitter(client, account)

    names = (
        path,
        *(f"{base}{end}" for end in (".base64", ".jpg", ".webp")),
        f"{base[:-2]}-00.png",
        f"/{path}",
    )
    headers: tuple[dict[str, str], ...] = (
        {},
        {"Range": "bytes=0-9"},
        {"If-None-Match": f'"{SHA}"'},
        account.headers,
    )

    def answers() -> set[int]:
        return {
            client.open(name, method=method, headers=each).status_code
            for name in names
            for method in ("GET", "HEAD")
            for each in headers
        }

    assert answers() == {404}
    for who in (account, stranger):
        sent = Submitter(client, who).submit(prompt="x", image=f"http://localhost{path}")
        assert "not there" in problems(sent)["image"]
    owner.ask("POST", f"/v1/outputs/img_{output_id.hex}/publish")
    assert client.get(path).status_code == found
    owner.ask("DELETE", f"/v1/outputs/img_{output_id.hex}/publish")
    assert answers() == {404}
    web.close(flask)


# Names of this house


def test_a_host_header_makes_no_private_image_ours_and_poisons_no_ones_answers(
    client: FlaskClient, estate: Estate, account: Account, stranger: Account, database: Database
) -> None:
    prefix = rows.query(
        database,
        "SELECT output_prefix FROM jobs j JOIN outputs o ON o.job_id = j.id WHERE o.id = %(id)s",
        id=estate.image,
    )[0].output_prefix.hex
    evil = {"Host": "evil.example", "Idempotency-Key": "order-1"}
    mallory, alice = Submitter(client, stranger), Submitter(client, account)

    peek = mallory.submit(
        headers={"Host": "evil.example"}, prompt="x", image=f"http://evil.example/outputs/{prefix}-0.png"
    )
    elsewhere = mallory.submit(
        headers={"Host": "evil.example"}, prompt="x", image="http://evil.example/a.png"
    )
    his = shown(mallory.submit(headers=evil, prompt="x"), 202)
    hers = shown(alice.submit(headers={"Idempotency-Key": "order-1"}, prompt="x"), 202)
    listed = alice.ask("GET", JOBS)

    assert "not there" in problems(peek)["image"]
    assert set(problems(elsewhere)) == {"image"}
    assert his["urls"]["self"].startswith("http://evil.example/")
    assert hers["id"] != his["id"]
    assert "evil" not in json.dumps(hers) + listed.text


# Requests that are joined


def test_equal_requests_of_two_accounts_never_share_a_job(
    client: FlaskClient, account: Account, stranger: Account, database: Database
) -> None:
    for who in (account, stranger):
        headers = {**who.headers, "x-stainless-retry-count": "2"}
        for _ in range(2):
            client.post("/v1/images/generations", json={"prompt": "x"}, headers=headers)
        client.post("/v1/images/imagine", json={"name": "x", "prompt": "x"}, headers=who.headers)
        kept = {**who.headers, "Idempotency-Key": "k"}
        client.post("/v1/images/generate", json={"modelId": "sketch", "prompt": "x"}, headers=kept)
        client.post(
            f"{IMAGES}text2img", json={"prompt": "x", "key": who.key}, headers={"Idempotency-Key": "k"}
        )
        client.post(JOBS, json={"prompt": "x"}, headers=kept)

    counted = rows.query(
        database, "SELECT account_id, dialect, count(*) AS jobs FROM jobs GROUP BY 1, 2 ORDER BY 2"
    )
    dialects = ("imgprocessing", "jobs", "modelslab", "openai", "realm")
    assert {(row.account_id, row.dialect): row.jobs for row in counted} == {
        (who.id, dialect): 1 for who in (account, stranger) for dialect in dialects
    }


# Secrets


def test_no_secret_is_in_a_row_an_answer_a_log_or_a_repr(
    settings: Settings,
    database: Database,
    account: Account,
    capfd: pytest.CaptureFixture[str],
) -> None:
    planted = {"key": account.key, "access": "AKIAPLANTEDACCESS", "secret": "planted/secret+of/a/bucket"}
    log.configure(log_format="json", level="debug")
    flask = web.create_app(
        settings.model_copy(update={"sync_wait": IMMEDIATE, "bucket_allow": ("127.0.0.1",)})
    )
    client = flask.test_client()
    said = [answer.text for answer in say_the_secrets(client, planted)]
    # A database that is away, and an error that nobody expects, with the key in every place there is.
    broken = web.create_app(
        settings.model_copy(update={"database_url": SecretStr("postgresql://u:planted@127.0.0.1:1/x")})
    )
    said += [answer.text for answer in say_the_secrets(broken.test_client(), planted)]
    hook = webhooks.register(
        database, Vault(settings), account_id=account.id, url=HOOK, form=Form.REALM, events=ENDS
    )
    assert hook.secret is not None
    made = NewKey(id=account.id, key=account.key, account_id=account.id)
    for each in (flask, broken):
        web.close(each)

    logged = capfd.readouterr()
    stored = {
        table.name: str(
            rows.query(database, f"SELECT string_agg(t::text, chr(10)) AS text FROM {table.name} t")
        )
        for table in metadata.sorted_tables
    }
    assert "bucket_refused" in logged.err
    assert "request_failed" in logged.err
    for secret in (*planted.values(), hook.secret, hook.secret.removeprefix("whsec_"), "u:planted"):
        assert not [table for table, text in stored.items() if secret in text]
        assert secret not in logged.err + logged.out
        assert secret not in "".join(said)
        assert secret not in repr(hook) + repr(made)


def say_the_secrets(client: FlaskClient, planted: dict[str, str]) -> Iterator[TestResponse]:
    """Send the API key in every form and place, right and wrong, and the keys of a bucket."""
    key = planted["key"]
    body = {**realtime.body(), "meta": {"key": key}, "Key": key, "api_key": key, "x": [{"key": key}]}
    text2img, img2img = f"{IMAGES}text2img", f"{IMAGES}img2img"
    yield client.post(text2img, json={**body, "key": key})
    for headers in ({"key": key}, {"Authorization": f"Bearer {key}"}, {"X-API-Key": key}):
        yield client.post(text2img, json=body, headers=headers)
    yield client.post(img2img, json={**body, "key": key, "init_image": text_of(picture()), "webhook": HOOK})
    for wrong in ([key], {"key": key}, f" {key}", f"{key}\x00", key[:-1]):
        yield client.post(text2img, json={**body, "key": wrong})
    yield client.post(text2img, data=f'{{"key": "{key}", }}', content_type="application/json")
    yield client.post(f"{text2img}?key={key}", data=f"key={key}", content_type="text/plain")
    yield client.post(f"{IMAGES}fetch/1?key={key}", json={"key": key})
    yield client.get(f"{JOBS}?key={key}", headers={"X-API-Key": key})
    yield client.post(
        "/v1/images/modify", data={"key": key, "image": file_part()}, headers={"X-API-Key": f"{key}é"}
    )
    details = {
        "endpoint_url": "http://127.0.0.1:1/bucket",
        "region_name": "us-east-1",
        "aws_access_key_id": planted["access"],
        "aws_secret_access_key": planted["secret"],
        "image_directory": "x",
        "public_url": "https://cdn.example",
        "deploy_type": "realtime",
    }
    for changes in ({}, {"endpoint_url": "nonsense"}, {"aws_access_key_id": [planted["secret"]]}):
        yield client.post(f"{realtime.ROOT}update_s3", json={"key": key, **details, **changes})
