"""Who may ask the ModelsLab dialect, how often and how much: keys, limits, repeated requests, outages."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from pydantic import SecretStr

from app import web
from app.db import Database
from app.db.tables import metadata
from app.errors import SetupError
from app.settings import Settings
from app.storage import Storage
from tests import realtime, rows
from tests.conftest import Account
from tests.factories import picture, written
from tests.realtime import (
    AT_ONCE,
    ENTERPRISE,
    IMAGES,
    PHOTO,
    PREFIXES,
    REALTIME,
    ROOT,
    House,
    Make,
    body,
    refused,
    text_of,
)
from tests.servers import strangers

TEXT2IMG = ENTERPRISE + "text2img"


@pytest.fixture
def make(settings: Settings, database: Database, storage: Storage, account: Account) -> Iterator[Make]:
    with realtime.houses(settings, database, storage, account) as made:
        yield made


@pytest.fixture(scope="module")
def app(base_settings: Settings) -> Iterator[tuple[Flask, Settings]]:
    """One application for all tests that change no setting; each comes from an account of its own."""
    settings = base_settings.model_copy(
        update={
            "rate_limit_per_minute": 100_000,
            "sync_wait": AT_ONCE,
            "fetch_allow": (strangers.HERE,),
        }
    )
    flask = web.create_app(settings)
    yield flask, settings
    web.close(flask)


@pytest.fixture
def idle(app: tuple[Flask, Settings], database: Database, storage: Storage, account: Account) -> House:
    """Nobody draws, and nobody waits."""
    flask, settings = app
    return House(flask, flask.test_client(), settings, database, storage, account)


# Keys


def test_the_key_is_taken_from_the_body_and_from_three_headers_in_this_order(
    idle: House, stranger: Account
) -> None:
    mine, wrong, bare = idle.account.key, "not-a-key-of-ours", body()
    ways: list[tuple[dict[str, Any], dict[str, str]]] = [
        ({"key": mine}, {}),
        ({"key": mine}, {"key": wrong, "Authorization": f"Bearer {wrong}", "X-API-Key": wrong}),
        ({}, {"key": mine, "Authorization": f"Bearer {wrong}", "X-API-Key": wrong}),
        ({"key": ""}, {"Authorization": f"bearer {mine}", "X-API-Key": wrong}),
        ({"key": None}, {"X-API-Key": mine}),
    ]
    for members, headers in ways:
        answer = idle.client.post(TEXT2IMG, json={**bare, **members}, headers=headers)
        assert answer.status_code == 200, (members, headers)
    other = idle.client.post(TEXT2IMG, json={**bare, "key": stranger.key}, headers={"X-API-Key": mine})

    owners = [row.account_id for row in rows.query(idle.database, "SELECT account_id FROM jobs ORDER BY id")]
    assert owners == [idle.account.id] * 5 + [stranger.id]
    assert other.status_code == 200


@pytest.mark.parametrize("path", [TEXT2IMG, IMAGES + "img2img", f"{REALTIME}fetch/1", ROOT + "update_s3"])
def test_no_key_and_a_wrong_one_are_told_apart(path: str, idle: House) -> None:
    for members, headers, told in (
        ({}, {}, "API key required"),
        ({"key": ""}, {}, "API key required"),
        ({"key": "x" * 40}, {}, "Invalid API key"),
        ({"key": "x" * 5000}, {}, "Invalid API key"),
        ({"key": 5}, {}, "Invalid API key"),
        ({"key": [idle.account.key]}, {}, "Invalid API key"),
        ({"key": {"a": 1}}, {}, "Invalid API key"),
        ({"key": "a\0b"}, {}, "Invalid API key"),
        ({}, {"key": "\xe9\xff"}, "Invalid API key"),
        ({}, {"Authorization": "Basic abc"}, "API key required"),
        ({}, {"Authorization": "Bearer abc"}, "Invalid API key"),
    ):
        answer = idle.client.post(path, json={**body(), **members}, headers=headers)
        assert refused(answer, 401) == {"": [told]}, (members, headers)
        assert answer.headers["X-RateLimit-Limit"] == "100000"


def test_a_disabled_account_is_403(idle: House) -> None:
    rows.execute(idle.database, "UPDATE accounts SET disabled_at = now()")

    refused(idle.post(TEXT2IMG, **body()), 403)


def test_the_key_is_stored_nowhere_and_logged_nowhere(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    house = make()
    number = house.generate("img2img", track_id="t1", unknown="x")["id"]
    house.answer(f"{ENTERPRISE}fetch", request_id=number, unknown=1)
    house.post(TEXT2IMG, prompt=5)
    house.post(f"{ENTERPRISE}nowhere")

    for table in metadata.sorted_tables:
        found = rows.query(house.database, f"SELECT to_jsonb(t)::text AS text FROM {table.name} t")
        assert not [row.text for row in found if house.account.key in row.text], table.name
    told = capfd.readouterr()
    assert "attempt_ended" in told.out + told.err
    assert house.account.key not in told.out + told.err


# Where nothing is, and what is not offered


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("path", [*(f"{prefix}text2img" for prefix in PREFIXES), f"{ROOT}reset_s3"])
def test_every_address_takes_post_alone(method: str, path: str, idle: House) -> None:
    answer = idle.client.open(path, method=method)

    assert refused(answer, 405) == {"": [f"This address answers POST, not {method}."]}
    assert answer.headers["Allow"] == "OPTIONS, POST"


@pytest.mark.parametrize(
    "path",
    ["/api/", "/api/v6/video/text2video", f"{ENTERPRISE}text2img/", f"{IMAGES}controlnet"],
)
def test_an_address_without_an_endpoint_is_404_in_the_dialects_shape(path: str, idle: House) -> None:
    answer = idle.post(path)

    assert refused(answer, 404) == {"": ["There is nothing at this address."]}
    assert ("messege" in answer.get_json()) is path.startswith(IMAGES)


@pytest.mark.parametrize("verb", ["clear_cache", "clear_queue", "restart_server", "update_server", "update"])
def test_what_needs_a_server_of_ones_own_is_refused_and_not_claimed(verb: str, idle: House) -> None:
    (told,) = refused(idle.post(ENTERPRISE + verb), 403)[""]

    assert "Darkroom" in told or "no cache" in told
    refused(idle.client.post(ENTERPRISE + verb, json={}), 401)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_system_details_are_real_numbers(prefix: str, make: Make) -> None:
    house = make(draws=False)
    for _ in range(3):
        rows.insert_job(house.database, house.account.id)

    details = house.answer(prefix + "system_details")

    assert details == {"model_count": 1, "queue_time": 15, "status": "ok"}  # 5 s while there is no history


# How often


def test_too_many_requests_are_429_and_say_in_the_body_when_to_come_back(make: Make) -> None:
    house = make(draws=False, sync_wait=AT_ONCE, rate_limit_per_minute=2)
    answers = [house.post(TEXT2IMG, **body()) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    refused(answers[-1], 429)
    assert 1 <= answers[-1].get_json()["retry_after"] <= 61
    assert answers[-1].headers["Retry-After"] == str(answers[-1].get_json()["retry_after"])
    assert answers[-1].headers["X-RateLimit-Remaining"] == "0"


def test_strangers_share_one_count_however_broken_their_bodies(make: Make) -> None:
    house = make(draws=False, rate_limit_per_minute=2)

    answers = [house.client.post(TEXT2IMG, data=b"{", content_type="application/json") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [400, 400, 429]
    assert house.post(TEXT2IMG, instant_response=True, **body()).status_code == 200


def test_a_full_queue_is_told_in_that_apis_words(make: Make) -> None:
    house = make(draws=False, sync_wait=AT_ONCE, max_unfinished_jobs=2)
    answers = [house.post(f"{prefix}img2img", **body("img2img")) for prefix in PREFIXES]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    told = "Rate limit exceeded. Maximum 2 queued requests allowed."
    assert answers[-1].get_json() == {
        "status": "error",
        "message": told,
        "messege": told,
        "retry_after": 5,
    }
    assert written(house.database, house.storage)["orphans"] == 0


def test_an_operator_may_have_every_error_answered_with_200(make: Make) -> None:
    house = make(draws=False, sync_wait=AT_ONCE, modelslab_always_200=True)

    for answer in (
        house.post(TEXT2IMG),
        house.client.post(TEXT2IMG, json=body()),
        house.client.get(TEXT2IMG),
        house.post(f"{IMAGES}nowhere"),
        house.post(f"{IMAGES}fetch/1"),
    ):
        refused(answer, 200)
    assert house.client.get("/v1/images/nowhere").status_code == 401


# Repeated requests


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("verb", ["text2img", "img2img", "inpaint"])
def test_a_repeated_request_gives_the_same_job(verb: str, prefix: str, idle: House) -> None:
    once = {"Idempotency-Key": "order-1"}

    first, again = (idle.post(prefix + verb, headers=once, **body(verb)) for _ in range(2))
    spelled = idle.post(prefix + verb, headers=once, **body(verb, width="64", seed=None, unknown=1))
    other = idle.post(prefix + verb, headers=once, **body(verb, prompt="a dog"))

    assert first.get_json()["id"] == again.get_json()["id"] == spelled.get_json()["id"]
    assert first.get_json()["future_links"] == again.get_json()["future_links"]
    told = "This Idempotency-Key was used before with another body; use a fresh key for a new request."
    assert refused(other, 422) == {"": [told]}
    found = written(idle.database, idle.storage)
    assert (found["jobs"], found["orphans"]) == (1, 0)


def test_a_repeated_request_does_not_fetch_its_image_again(idle: House) -> None:
    once = {"Idempotency-Key": "order-1"}
    with strangers.stranger(strangers.answers(picture(), "Content-Type: image/png")) as host:
        sent = body("img2img", init_image=f"{host.url}/a.png")
        first = idle.post(ENTERPRISE + "img2img", headers=once, **sent)
    again = idle.post(ENTERPRISE + "img2img", headers=once, **sent)  # nobody is there any more

    assert first.get_json()["id"] == again.get_json()["id"]


def test_twins_that_arrive_together_make_one_job(idle: House) -> None:
    together, client = threading.Barrier(6), idle.flask.test_client
    sent = {"key": idle.account.key, **body("img2img")}

    def send(_: int) -> Any:
        together.wait(10)
        return client().post(ENTERPRISE + "img2img", json=sent, headers={"Idempotency-Key": "order-1"})

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(send, range(6)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.get_json()["id"] for answer in answers}) == 1
    found = written(idle.database, idle.storage)
    assert (found["jobs"], found["orphans"]) == (1, 0)


# How much


def test_a_large_image_may_stand_in_the_body(idle: House) -> None:
    noise = realtime.noise(1500, 1500)
    assert len(noise) > 5_000_000

    answer = idle.generate("img2img", init_image=text_of(noise))

    assert answer["status"] == "processing"


def test_a_body_beyond_the_limit_is_413(make: Make) -> None:
    house = make(draws=False, sync_wait=AT_ONCE, max_upload_bytes=300_000)
    limit = 300_000 * 4 // 3 + house.settings.max_json_bytes

    for length, status in ((limit, 400), (limit + 1, 413), (limit + 3_000_000, 413)):
        start = f'{{"key":"{house.account.key}","prompt":"x","init_image":"'.encode()
        sent = start + b"a" * (length - len(start) - 2) + b'"}'
        answer = house.client.post(ENTERPRISE + "img2img", data=sent, content_type="application/json")
        refused(answer, status)
    assert rows.query(house.database, "SELECT id FROM jobs") == []


def test_a_large_body_of_small_members_is_refused_before_it_is_unpacked(idle: House) -> None:
    crowd = b"[" + b"[]," * 1_000_000 + b"[]]"
    sent = b'{"key":"' + idle.account.key.encode() + b'","prompt":"x","unknown":' + crowd + b"}"

    answer = idle.client.post(TEXT2IMG, data=sent, content_type="application/json")

    (told,) = refused(answer, 413)[""]
    assert told == "A body of more than 262,144 bytes may hold little but images as base64 text."


def test_fetch_needs_no_body_when_a_header_has_the_key(idle: House) -> None:
    number = idle.generate()["id"]

    answer = idle.client.post(f"{ENTERPRISE}fetch/{number}", headers={"key": idle.account.key})

    assert answer.get_json()["status"] == "processing"


def test_bodies_that_nobody_has_a_name_for_do_not_take_the_places_of_accounts(make: Make) -> None:
    house = make(draws=False, sync_wait=AT_ONCE, web_threads=2)
    services = house.flask.extensions["darkroom"]
    headers = {"X-API-Key": house.account.key}

    with services.unnamed_bodies.reading(realtime.NOBODY):
        unnamed = house.post(TEXT2IMG, **body())
        named = house.client.post(TEXT2IMG, json=body(), headers=headers)

    refused(unnamed, 429)
    assert named.status_code == 200


# Parts of ours that are away, and operators' mistakes


def test_while_postgres_is_away_the_answer_is_503(make: Make) -> None:
    house = make(draws=False, database_url=SecretStr("postgresql://nobody:secret@127.0.0.1:1/none"))

    answer = house.post(TEXT2IMG, **body())

    assert refused(answer, 503) == {"": ["The database does not answer; the same request will work later."]}
    assert answer.headers["Retry-After"]


def test_while_the_store_is_away_an_upload_is_503_and_nothing_is_kept(make: Make) -> None:
    house = make(draws=False, s3_endpoint="http://127.0.0.1:1")

    answer = house.post(ENTERPRISE + "img2img", **body("img2img", init_image=PHOTO))

    assert refused(answer, 503) == {
        "": ["The object store does not answer; the same request will work later."]
    }
    assert rows.query(house.database, "SELECT id FROM jobs") == []


def test_an_operator_who_presets_an_unknown_model_is_told_at_the_start(settings: Settings) -> None:
    services, _ = web.assemble(settings.model_copy(update={"modelslab_model": "skech"}))
    try:
        with pytest.raises(SetupError, match="DARKROOM_MODELSLAB_MODEL: There is no model 'skech'"):
            web.build(services)
    finally:
        services.database.close()
