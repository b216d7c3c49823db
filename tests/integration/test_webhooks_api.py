"""Darkroom's own API for webhooks on a real database: made, shown, tested, replayed, and whose they are."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from standardwebhooks import Webhook
from werkzeug.test import TestResponse

from app import web, webhooks
from app.db import Database
from app.domain.webhook import Form
from app.settings import Settings
from tests import office as offices
from tests import rows
from tests.conftest import Account
from tests.office import LOCAL, Office
from tests.servers.receiver import Receiver, Reply, receiving

HOOKS = "/v1/webhooks"
NEW = {"url": "http://127.0.0.1:9/hook"}


@pytest.fixture(scope="module")
def flask(base_settings: Settings) -> Iterator[Flask]:
    """One application for all tests of this file; each comes from an account of its own."""
    made = web.create_app(base_settings.model_copy(update={**LOCAL, "rate_limit_per_minute": 100_000}))
    yield made
    web.close(made)


@pytest.fixture
def office(settings: Settings, database: Database, account: Account) -> Office:
    return offices.opened(settings, database, account)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def shown(answer: TestResponse, status: int) -> Any:
    assert answer.status_code == status, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.get_json()


def refused(answer: TestResponse, status: int) -> tuple[str, dict[str, str]]:
    """Check the shape of a refusal; gives its code, and its problems by field."""
    error = shown(answer, status)["error"]
    assert error.keys() == {"code", "message", "details"}
    assert not re.search(r"pydantic|Input should|Extra inputs|sqlalchemy|psycopg", error["message"])
    return error["code"], {detail["field"]: detail["message"] for detail in error["details"]}


def create(client: FlaskClient, account: Account, **members: Any) -> Any:
    return shown(client.post(HOOKS, json={**NEW, **members}, headers=account.headers), 201)


# Making


def test_a_new_webhook_shows_its_secret_this_once(client: FlaskClient, account: Account) -> None:
    made = create(client, account)

    assert re.fullmatch("we_[0-9a-f]{32}", made["id"])
    assert made["secret"].startswith("whsec_")
    assert (made["url"], made["form"], made["scope"]) == (NEW["url"], "jobs", "account")
    assert made["events"] == ["job.completed", "job.failed", "job.cancelled"]
    got = shown(client.get(f"{HOOKS}/{made['id']}", headers=account.headers), 200)
    assert got == {name: value for name, value in made.items() if name != "secret"}
    assert shown(client.get(HOOKS, headers=account.headers), 200) == {"data": [got], "next_cursor": None}


def test_it_may_be_asked_for_with_a_bearer_token_and_not_without_a_key(
    client: FlaskClient, account: Account
) -> None:
    bearer = {"Authorization": f"Bearer {account.key}"}

    assert client.post(HOOKS, json=NEW, headers=bearer).status_code == 201
    assert refused(client.post(HOOKS, json=NEW), 401)[0] == "unauthenticated"
    assert refused(client.get(HOOKS, headers={"X-API-Key": "wrong"}), 401)[0] == "unauthenticated"


def test_making_it_twice_changes_its_events_and_nothing_else(client: FlaskClient, account: Account) -> None:
    made = create(client, account)

    again = shown(
        client.post(HOOKS, json={**NEW, "events": ["job.failed", "job.processing"]}, headers=account.headers),
        200,
    )

    assert again == {
        **{name: value for name, value in made.items() if name != "secret"},
        "events": ["job.processing", "job.failed"],
    }


def test_the_same_url_in_another_form_is_another_webhook(client: FlaskClient, account: Account) -> None:
    assert create(client, account)["id"] != create(client, account, form="realm")["id"]


@pytest.mark.parametrize(
    ("members", "problems"),
    [
        ({"url": None}, {"url": "is required"}),
        ({"url": 7}, {"url": "must be a string"}),
        ({"url": ""}, {"url": "must not be empty"}),
        ({"url": "http://x/" + "y" * 2048}, {"url": "must have at most 2048 characters"}),
        ({"url": "ftp://example.com/"}, {"url": "The URL must begin with http:// or https://."}),
        ({"form": "soap"}, {"form": "must be one of 'jobs', 'modelslab' or 'realm'"}),
        ({"events": []}, {"events": "must be a list with at least one event"}),
        ({"events": "job.failed"}, {"events": "must be a list with at least one event"}),
        (
            {"events": ["job.failed", "test"]},
            {"events.1": "must be one of 'job.processing', 'job.completed', 'job.failed' or 'job.cancelled'"},
        ),
        (
            {"event": ["job.failed"], "x": 1},
            {
                "event": "is not known here; did you mean events?",
                "x": "is not known here; remove it. Known: url, form, events",
            },
        ),
    ],
)
def test_what_cannot_be_used_is_named_with_the_remedy(
    members: dict[str, Any], problems: dict[str, str], client: FlaskClient, account: Account
) -> None:
    answer = client.post(HOOKS, json={**NEW, **members}, headers=account.headers)

    assert refused(answer, 422) == ("invalid_fields", problems)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.7/hook",
        "http://127.0.0.2/hook",
        "http://[::1]/hook",
    ],
)
def test_an_address_of_our_own_network_is_refused_when_it_is_registered(
    url: str, client: FlaskClient, account: Account, database: Database
) -> None:
    code, problems = refused(client.post(HOOKS, json={"url": url}, headers=account.headers), 422)

    assert (code, set(problems)) == ("invalid_fields", {"url"})
    assert "DARKROOM_WEBHOOK_ALLOW" in problems["url"]
    assert rows.query(database, "SELECT id FROM webhook_endpoints") == []


def test_a_url_that_grows_too_long_when_it_is_encoded_is_refused(
    client: FlaskClient, account: Account
) -> None:
    answer = client.post(HOOKS, json={"url": "http://127.0.0.1/" + "é" * 2_000}, headers=account.headers)

    assert "at most 2,048 characters" in refused(answer, 422)[1]["url"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"data": b"{", "content_type": "application/json"}, 400),
        ({"data": b"[]", "content_type": "application/json"}, 400),
        ({"data": b"url=x", "content_type": "text/plain"}, 415),
        ({"data": b'{"url": "' + b"x" * 20_000 + b'"}', "content_type": "application/json"}, 413),
        ({}, 422),
    ],
    ids=["broken", "a list", "no json", "too large", "nothing"],
)
def test_a_body_that_cannot_be_read_is_refused(
    sent: dict[str, Any], status: int, client: FlaskClient, account: Account
) -> None:
    refused(client.post(HOOKS, headers=account.headers, **sent), status)


def test_an_account_has_at_most_twenty(client: FlaskClient, account: Account, stranger: Account) -> None:
    made = [create(client, account, url=f"http://127.0.0.1/{number}") for number in range(20)]

    answer = client.post(HOOKS, json=NEW, headers=account.headers)
    assert refused(answer, 409)[0] == "too_many_webhooks"
    create(client, stranger)
    client.delete(f"{HOOKS}/{made[0]['id']}", headers=account.headers)
    create(client, account)


def test_a_long_list_comes_in_pages(client: FlaskClient, account: Account) -> None:
    made = [create(client, account, url=f"http://127.0.0.1/{number}")["id"] for number in range(5)]

    seen: list[str] = []
    cursor: str | None = ""
    pages = 0
    while cursor is not None:
        page = shown(client.get(f"{HOOKS}?limit=2&cursor={cursor}", headers=account.headers), 200)
        seen += [each["id"] for each in page["data"]]
        cursor, pages = page["next_cursor"], pages + 1

    assert (seen, pages) == (made[::-1], 3)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("cursor=x", "cursor"),
        ("scope=all", "scope"),
        ("status=failed", "status"),
    ],
)
def test_a_query_that_cannot_be_used_is_refused(
    query: str, field: str, client: FlaskClient, account: Account
) -> None:
    assert set(refused(client.get(f"{HOOKS}?{query}", headers=account.headers), 422)[1]) == {field}


# Deleting, enabling, rotating


def test_a_deleted_webhook_is_gone_and_hears_nothing_and_may_be_made_anew(
    client: FlaskClient, account: Account, office: Office, receiver: Receiver
) -> None:
    made = create(client, account, url=receiver.url())
    office.complete()

    answer = client.delete(f"{HOOKS}/{made['id']}", headers=account.headers)

    assert (answer.status_code, answer.data) == (204, b"")
    assert (
        refused(client.get(f"{HOOKS}/{made['id']}", headers=account.headers), 404)[0] == "webhook_not_found"
    )
    assert client.delete(f"{HOOKS}/{made['id']}", headers=account.headers).status_code == 404
    assert shown(client.get(HOOKS, headers=account.headers), 200)["data"] == []
    office.complete()
    assert office.deliver_due() == []
    (delivery,) = office.deliveries()
    assert (delivery.status, delivery.last_error) == ("failed", "the endpoint is disabled: deleted")
    anew = create(client, account, url=receiver.url())
    assert anew["secret"] != made["secret"]
    office.complete()
    office.deliver_due()
    assert Webhook(anew["secret"]).verify(receiver.received[0].body, receiver.received[0].headers)


def test_a_webhook_that_410_disabled_says_so_and_hears_again_once_it_is_enabled(
    client: FlaskClient, account: Account, office: Office, receiver: Receiver
) -> None:
    made = create(client, account, url=receiver.url())
    receiver.answer = lambda _: Reply(410)
    office.complete()
    office.deliver_due()
    at = f"{HOOKS}/{made['id']}"

    got = shown(client.get(at, headers=account.headers), 200)
    assert got["disabled_reason"] == "it answered 410 Gone"
    assert refused(client.post(f"{at}/test", headers=account.headers), 409)[0] == "webhook_disabled"
    enabled = shown(client.post(f"{at}/enable", headers=account.headers), 200)
    assert (enabled["disabled_at"], enabled["disabled_reason"], enabled["failures"]) == (None, None, 0)
    receiver.answer = lambda _: Reply()
    office.complete()
    assert office.deliver_due() == ["delivered"]


def test_a_rotation_shows_the_new_secret_and_how_long_the_old_one_lives(
    client: FlaskClient, account: Account, office: Office, receiver: Receiver
) -> None:
    made = create(client, account, url=receiver.url())
    at = f"{HOOKS}/{made['id']}/rotate"

    rotated = shown(client.post(at, headers=account.headers), 200)
    office.complete()
    office.deliver_due()

    (one,) = receiver.received
    for secret in (made["secret"], rotated["secret"]):
        Webhook(secret).verify(one.body, one.headers)
    assert rotated["previous_secret_until"] is not None
    # The first secret was promised its time, and only two can sign.
    assert "hours: 0" in shown(client.post(at, headers=account.headers), 409)["error"]["message"]
    at_once = shown(client.post(at, json={"hours": 0}, headers=account.headers), 200)
    assert at_once["previous_secret_until"] is None


@pytest.mark.parametrize("hours", ["-1", "168.5", '"1"', "true", "[]"])
def test_a_rotation_of_impossible_length_is_refused(
    hours: str, client: FlaskClient, account: Account
) -> None:
    made = create(client, account)

    answer = client.post(
        f"{HOOKS}/{made['id']}/rotate",
        data=f'{{"hours": {hours}}}',
        content_type="application/json",
        headers=account.headers,
    )

    assert refused(answer, 422)[1].keys() == {"hours"}


# URLs that requests named


def test_urls_that_requests_named_are_listed_apart_and_share_a_secret(
    client: FlaskClient, account: Account, office: Office, receiver: Receiver
) -> None:
    create(client, account)
    ids = [
        webhooks.endpoint_of_request(
            office.database,
            office.vault,
            account_id=account.id,
            url=receiver.url(f"/{number}"),
            form=Form.MODELSLAB,
        )
        for number in range(2)
    ]

    listed = shown(client.get(f"{HOOKS}?scope=request", headers=account.headers), 200)["data"]
    assert {each["id"] for each in listed} == {f"we_{one.hex}" for one in ids}
    rotated = shown(client.post(f"{HOOKS}/{listed[0]['id']}/rotate", headers=account.headers), 200)
    third = webhooks.endpoint_of_request(
        office.database,
        office.vault,
        account_id=account.id,
        url=receiver.url("/3"),
        form=Form.MODELSLAB,
    )
    for endpoint_id in (*ids, third):
        office.complete(webhook_endpoint_id=endpoint_id)
    office.deliver_due()
    ours = [one for one in receiver.received if one.path != "/hook"]
    assert len(ours) == 3
    for one in ours:
        Webhook(rotated["secret"]).verify(one.body, one.headers)


def test_naming_a_url_again_gives_the_same_endpoint_and_writes_nothing(
    account: Account, office: Office, receiver: Receiver
) -> None:
    def name() -> Any:
        return webhooks.endpoint_of_request(
            office.database,
            office.vault,
            account_id=account.id,
            url=receiver.url(),
            form=Form.MODELSLAB,
        )

    first = name()
    (before,) = rows.query(office.database, "SELECT xmin::text AS version FROM webhook_endpoints")
    assert name() == first
    (after,) = rows.query(office.database, "SELECT xmin::text AS version FROM webhook_endpoints")
    assert before.version == after.version


# Deliveries


def test_a_test_is_queued_sent_and_its_outcome_can_be_seen(
    client: FlaskClient, account: Account, office: Office, receiver: Receiver
) -> None:
    made = create(client, account, url=receiver.url())
    receiver.answer = lambda _: Reply(500, body=b"not today")

    queued = shown(client.post(f"{HOOKS}/{made['id']}/test", headers=account.headers), 202)
    office.deliver_due()

    assert (queued["event"], queued["status"], queued["job_id"]) == ("test", "pending", None)
    got = shown(client.get(f"/v1/deliveries/{queued['id']}", headers=account.headers), 200)
    assert (got["status"], got["tries"], got["last_status"]) == ("failed", 1, 500)
    assert got["body"] == receiver.received[0].body.decode()
    (attempt,) = got["attempts"]
    assert (attempt["number"], attempt["status"], attempt["response"]) == (1, 500, "not today")
    assert attempt["error"] == "It answered HTTP 500."


def test_deliveries_are_listed_newest_first_in_pages_and_by_status(
    client: FlaskClient, account: Account, office: Office, receiver: Receiver
) -> None:
    made = create(client, account, url=receiver.url())
    office.complete(5)
    office.deliver_due()
    at = f"{HOOKS}/{made['id']}/deliveries"

    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = shown(client.get(f"{at}?limit=2&cursor={cursor}", headers=account.headers), 200)
        seen += [each["id"] for each in page["data"]]
        cursor = page["next_cursor"]

    assert seen == [f"msg_{d.id.hex}" for d in office.deliveries()][::-1]
    pending = shown(client.get(f"{at}?status=pending", headers=account.headers), 200)["data"]
    assert [each["status"] for each in pending] == ["pending"]
    assert pending[0]["next_try_at"] is not None
    for query in ("cursor=1-x", "status=lost", "limit=1000", f"cursor={'9' * 18}-{'0' * 32}"):
        refused(client.get(f"{at}?{query}", headers=account.headers), 422)


def test_a_delivery_is_replayed_by_its_id(
    client: FlaskClient, account: Account, office: Office, receiver: Receiver
) -> None:
    create(client, account, url=receiver.url())
    office.complete()
    at = f"/v1/deliveries/msg_{office.delivery().id.hex}/replay"

    assert refused(client.post(at, headers=account.headers), 409)[0] == "still_delivering"
    office.deliver_due()
    again = shown(client.post(at, headers=account.headers), 202)
    office.deliver_due()

    assert again["status"] == "pending"
    assert [one.id for one in receiver.received] == [again["id"]] * 2


def test_the_deliveries_of_a_time_are_replayed(
    client: FlaskClient, account: Account, office: Office, receiver: Receiver
) -> None:
    made = create(client, account, url=receiver.url())
    office.complete(3)
    office.deliver_due()
    at = f"{HOOKS}/{made['id']}/replay"
    since = (office.deliveries()[0].created_at - timedelta(hours=1)).isoformat()

    assert shown(client.post(at, json={"since": since}, headers=account.headers), 202) == {"replayed": 3}
    failed = {"since": since, "status": "failed"}
    assert shown(client.post(at, json=failed, headers=account.headers), 202) == {"replayed": 0}
    assert office.deliver_due() == ["delivered"] * 3


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "since"),
        ({"since": "yesterday"}, "since"),
        ({"since": 1_700_000_000}, "since"),
        ({"since": "2026-11-21T10:00:00"}, "since"),
        ({"since": "0001-01-01T00:00:00+10:00"}, "since"),
        ({"since": "2026-11-21T10:00:00Z", "until": "2026-11-21T10:00:00Z"}, "since"),
        ({"since": "2099-11-21T10:00:00Z"}, "since"),
        ({"since": "2026-11-21T10:00:00Z", "until": "later"}, "until"),
        ({"since": "2026-11-21T10:00:00Z", "status": "pending"}, "status"),
    ],
)
def test_a_time_that_cannot_be_used_is_refused(
    body: dict[str, Any], field: str, client: FlaskClient, account: Account
) -> None:
    made = create(client, account)

    answer = client.post(f"{HOOKS}/{made['id']}/replay", json=body, headers=account.headers)

    assert set(refused(answer, 422)[1]) == {field}


# Whose


def test_nobody_sees_or_touches_another_accounts_webhooks_and_deliveries(
    client: FlaskClient, account: Account, stranger: Account, office: Office, receiver: Receiver
) -> None:
    made = create(client, account, url=receiver.url())
    office.complete()
    office.deliver_due()
    hook, delivery = f"{HOOKS}/{made['id']}", f"/v1/deliveries/msg_{office.delivery().id.hex}"
    since = {"since": "2020-01-01T00:00:00Z"}

    for method, path, body in (
        ("GET", hook, None),
        ("DELETE", hook, None),
        ("POST", f"{hook}/enable", None),
        ("POST", f"{hook}/rotate", None),
        ("POST", f"{hook}/test", None),
        ("GET", f"{hook}/deliveries", None),
        ("POST", f"{hook}/replay", since),
        ("GET", delivery, None),
        ("POST", f"{delivery}/replay", None),
    ):
        answer = client.open(path, method=method, json=body, headers=stranger.headers)
        assert refused(answer, 404)[0] in {"webhook_not_found", "delivery_not_found"}, path
    assert shown(client.get(HOOKS, headers=stranger.headers), 200)["data"] == []
    assert len(rows.query(office.database, "SELECT 1 AS one FROM deliveries")) == 1
    assert client.get(hook, headers=account.headers).status_code == 200


@pytest.mark.parametrize("shown_id", ["x", "we_", "we_" + "g" * 32, "we_" + "0" * 32, "msg_" + "0" * 32])
def test_an_id_that_is_none_is_unknown(shown_id: str, client: FlaskClient, account: Account) -> None:
    for path in (f"{HOOKS}/{shown_id}", f"/v1/deliveries/{shown_id}"):
        refused(client.get(path, headers=account.headers), 404)
