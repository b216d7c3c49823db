"""What the ModelsLab dialect answers before and after the images: queued, fetched, expired, told."""

import base64
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import orjson
import pytest
from flask import Flask

from app import auth, retention, web
from app.db import Database
from app.domain.webhook import Form
from app.settings import Settings
from app.storage import Storage
from tests import office, realtime, rows
from tests.conftest import Account
from tests.drawing import drawing
from tests.realtime import (
    AT_ONCE,
    ENTERPRISE,
    IMAGES,
    PREFIXES,
    REALTIME,
    ROOT,
    House,
    Make,
    body,
    image_of,
    refused,
)
from tests.servers.receiver import receiving
from tests.waiting import eventually


@pytest.fixture
def make(settings: Settings, database: Database, storage: Storage, account: Account) -> Iterator[Make]:
    with realtime.houses(settings, database, storage, account) as made:
        yield made


@pytest.fixture(scope="module")
def idle_app(base_settings: Settings) -> Iterator[tuple[Flask, Settings]]:
    """One application for all tests in which nobody draws; each comes from an account of its own."""
    settings = base_settings.model_copy(update={"rate_limit_per_minute": 100_000, "sync_wait": AT_ONCE})
    flask = web.create_app(settings)
    yield flask, settings
    web.close(flask)


@pytest.fixture
def idle(idle_app: tuple[Flask, Settings], database: Database, storage: Storage, account: Account) -> House:
    """Nobody draws, and nobody waits."""
    flask, settings = idle_app
    return House(flask, flask.test_client(), settings, database, storage, account)


def draw(house: House, answer: dict[str, Any]) -> None:
    """Have a worker run until a job has ended."""
    with drawing(house.settings, house.database, house.storage):
        eventually(lambda: house.job(answer["id"]).finished_at, within=20)


# Queued


@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_is_queued_is_200_with_all_that_is_needed_to_come_back(prefix: str, idle: House) -> None:
    answer = idle.generate("img2img", prefix, samples=3, instant_response="yes", track_id=7)

    job = idle.job(answer["id"])
    shared = {"tip", "messege", "webhook_status"}
    assert answer.keys() - shared == {
        *("status", "eta", "message", "fetch_result", "id", "output", "meta", "future_links")
    }
    assert (answer["status"], answer["output"]) == ("processing", [])
    assert answer["message"] == "Try to fetch request after seconds estimated"
    assert answer["fetch_result"] == f"http://localhost{prefix}fetch/{answer['id']}"
    assert type(answer["eta"]) is int
    assert answer["eta"] >= 1
    assert answer["future_links"] == [
        f"http://localhost/outputs/{job.output_prefix.hex}-{index}.png" for index in range(3)
    ]
    assert answer["meta"]["file_prefix"] == job.output_prefix.hex
    assert answer["meta"]["seed"] == job.spec["seed"]
    assert ("messege" in answer) is (prefix == IMAGES)


def test_future_links_are_true_404s_until_the_very_moment_they_are_the_images(idle: House) -> None:
    answer = idle.generate(samples=2, base64=True)
    plain = idle.generate()
    links = [*answer["future_links"], *plain["future_links"]]

    for link in links:
        got = idle.get(link)
        assert got.status_code == 404
        assert got.headers["Cache-Control"] == "no-store"
        assert got.content_type == "application/json"
    draw(idle, answer)
    draw(idle, plain)

    assert [idle.get(link).status_code for link in links] == [200] * 3
    assert idle.answer(f"{ENTERPRISE}fetch/{answer['id']}")["output"] == answer["future_links"]
    assert idle.answer(f"{ENTERPRISE}fetch/{plain['id']}")["output"] == plain["future_links"]


def test_links_name_the_public_url_of_the_installation(make: Make) -> None:
    house = make(draws=False, sync_wait=AT_ONCE, public_url="https://images.example/darkroom/")

    answer = house.generate()

    assert answer["fetch_result"] == f"https://images.example/darkroom{ENTERPRISE}fetch/{answer['id']}"
    assert answer["future_links"][0].startswith("https://images.example/darkroom/outputs/")


def test_an_instant_response_is_not_waited_for(make: Make) -> None:
    house = make(draws=False, sync_wait=timedelta(minutes=2))  # longer than a test may take

    assert house.generate(instant_response=True)["status"] == "processing"


def test_when_the_wait_is_over_the_answer_is_processing(make: Make) -> None:
    house = make(draws=False, sync_wait=timedelta(milliseconds=300))

    assert house.generate()["status"] == "processing"


def test_when_too_many_wait_the_answer_is_processing_at_once(make: Make) -> None:
    house = make(draws=False, sync_wait=timedelta(minutes=2), max_waits=1)

    with house.flask.extensions["darkroom"].waits.place(house.account.id):
        answer = house.generate()

    assert answer["status"] == "processing"


def test_the_eta_counts_those_who_are_served_before(idle: House) -> None:
    etas = [idle.generate()["eta"] for _ in range(3)]
    first = idle.answer(
        f"{ENTERPRISE}fetch/{rows.query(idle.database, 'SELECT min(number) AS n FROM jobs')[0].n}"
    )

    assert etas == [5, 10, 15]
    assert first["eta"] == 5


# Fetch


@pytest.mark.parametrize("prefix", PREFIXES)
def test_fetch_tells_in_both_its_forms_first_not_yet_and_then_the_images(prefix: str, idle: House) -> None:
    answer = idle.generate("img2img", prefix)
    number = answer["id"]
    asks = [
        (f"{prefix}fetch/{number}", {}),
        (f"{prefix}fetch", {"request_id": number}),
        (f"{prefix}fetch", {"request_id": str(number)}),
    ]

    pending = [idle.answer(path, **members) for path, members in asks]
    draw(idle, answer)
    done = [idle.answer(path, **members) for path, members in asks]

    for each in pending:
        assert each.keys() - {"messege"} == {"status", "message", "output", "eta", "tip"}
        assert (each["status"], each["message"], each["output"]) == ("processing", "try again later.", "")
    for each in done:
        assert each.keys() - {"proxy_links"} == {"status", "id", "output"}
        assert (each["status"], each["id"], each["output"]) == ("success", number, answer["future_links"])
        assert each.get("proxy_links") == (None if prefix == ENTERPRISE else each["output"])


def test_fetch_is_also_where_the_other_enterprise_servers_have_it(idle: House) -> None:
    answer = idle.generate()

    assert idle.answer(f"{ROOT}fetch", request_id=answer["id"])["status"] == "processing"


def test_the_fetch_result_is_an_address_to_post_to(idle: House) -> None:
    answer = idle.generate()

    path = answer["fetch_result"].removeprefix("http://localhost")
    assert idle.answer(path)["status"] == "processing"


@pytest.mark.parametrize(
    "name", ["1", "0", "9" * 18, "9" * 19, "9" * 5000, "-1", "1.5", "a", "%00", "\u0661", "3f0c-a-uuid"]
)
def test_an_id_that_is_none_is_404(name: str, idle: House) -> None:
    for answer in (idle.post(f"{ENTERPRISE}fetch/{name}"), idle.post(f"{IMAGES}fetch/{name}")):
        assert refused(answer, 404) == {"": ["No request of yours has this id."]}


@pytest.mark.parametrize(
    ("sent", "status", "told"),
    [
        (0, 404, {"": ["No request of yours has this id."]}),
        (-5, 404, {"": ["No request of yours has this id."]}),
        (10**18, 404, {"": ["No request of yours has this id."]}),
        ("9" * 30, 404, {"": ["No request of yours has this id."]}),
        (1.5, 400, {"request_id": ["The request_id field must be a whole number."]}),
        ("x", 400, {"request_id": ["The request_id field must be a number in digits."]}),
        (True, 400, {"request_id": ["The request_id field must be a number, not a boolean."]}),
        (None, 400, {"request_id": ["The request_id field is required."]}),
    ],
)
def test_a_request_id_that_is_none_is_told(
    sent: object, status: int, told: dict[str, list[str]], idle: House
) -> None:
    assert refused(idle.post(f"{ENTERPRISE}fetch", request_id=sent), status) == told


def test_nobody_fetches_what_is_somebody_elses(idle: House, stranger: Account) -> None:
    number = idle.generate()["id"]

    answer = idle.post(f"{ENTERPRISE}fetch/{number}", key=stranger.key)

    assert refused(answer, 404) == {"": ["No request of yours has this id."]}


def test_a_cancelled_job_is_an_error(idle: House) -> None:
    number = idle.generate()["id"]
    services = idle.flask.extensions["darkroom"]
    services.intake.cancel(idle.job(number).id, account_id=idle.account.id)

    answer = idle.answer(f"{ENTERPRISE}fetch/{number}")

    assert answer == {
        "status": "error",
        "message": "The job was cancelled before it ran.",
        "code": "cancelled",
    }


def test_what_has_expired_is_told_so_before_and_after_the_purge(idle: House) -> None:
    answer = idle.generate()
    draw(idle, answer)
    hours = timedelta(hours=25)
    rows.execute(idle.database, "UPDATE outputs SET expires_at = expires_at - %(by)s", by=hours)

    expired = idle.answer(f"{ENTERPRISE}fetch/{answer['id']}")
    retention.purge(idle.settings, database=idle.database, storage=idle.storage)
    purged = idle.answer(f"{ENTERPRISE}fetch/{answer['id']}")

    for each in (expired, purged):
        assert (each["status"], each["code"]) == ("error", "gone")
        assert each["message"].startswith("output expired: the images are gone since 20")
    assert idle.get(answer["future_links"][0]).status_code == 410


def test_an_image_its_owner_keeps_is_still_fetched_when_others_have_expired(idle: House) -> None:
    answer = idle.generate(samples=2)
    draw(idle, answer)
    rows.execute(
        idle.database,
        "UPDATE outputs SET persisted_at = CASE WHEN index = 1 THEN now() END, expires_at = now()",
    )

    assert idle.answer(f"{ENTERPRISE}fetch/{answer['id']}")["output"] == [answer["future_links"][1]]


def test_images_their_owner_made_private_are_not_called_expired(idle: House) -> None:
    answer = idle.generate()
    draw(idle, answer)
    rows.execute(idle.database, "UPDATE outputs SET access = 'private'")

    assert idle.answer(f"{ENTERPRISE}fetch/{answer['id']}")["code"] == "private"


# As base64 text


def test_base64_gives_links_to_plain_text_of_the_very_image(make: Make) -> None:
    house = make()
    answer = house.generate(base64="true", samples=2)

    assert answer["meta"]["base64"] == "yes"
    for url in answer["output"]:
        assert url.endswith(".base64")
        text, image = house.get(url), house.get(url.replace(".base64", ".png"))
        assert text.mimetype == "text/plain"
        assert text.headers["Content-Length"] == str(len(text.data))
        assert base64.b64decode(text.data, validate=True) == image.data
        assert image_of(image.data).size == (64, 48)


def test_an_operator_may_put_the_text_itself_into_the_output(make: Make) -> None:
    house = make(modelslab_inline_base64=True)
    answer = house.generate(base64=True)
    fetched = house.answer(f"{REALTIME}fetch/{answer['id']}")
    plain = house.generate()

    for text in (*answer["output"], *fetched["output"]):
        assert image_of(base64.b64decode(text, validate=True)).size == (64, 48)
    assert plain["output"][0].startswith("http://")


# How long, and who is told


def test_temporary_images_go_after_a_day_whatever_the_operator_keeps(make: Make) -> None:
    house = make(retention=timedelta(days=30))
    usual, temporary = house.generate(), house.generate(temp="yes")

    found = [
        rows.query(
            house.database,
            "SELECT expires_at - created_at AS kept FROM outputs WHERE job_id = %(id)s",
            id=house.job(answer["id"]).id,
        )[0].kept
        for answer in (usual, temporary)
    ]
    assert found == [timedelta(days=30), timedelta(hours=24)]
    assert temporary["meta"]["temp"] == "yes"


def test_temporary_images_do_not_stay_longer_than_others(make: Make) -> None:
    house = make(retention=timedelta(hours=1), draws=False, sync_wait=AT_ONCE)

    assert house.job(house.generate(temp=True)["id"]).retain_seconds == 3600


@pytest.mark.parametrize("sent", ["t1", "", " padded ", 0, 7, 2**63, "\u2603", "x" * 255])
def test_a_track_id_is_told_again_as_it_was_sent(sent: object, idle: House) -> None:
    answer = idle.generate(track_id=sent)

    job = idle.job(answer["id"])
    assert answer["meta"]["track_id"] == sent
    assert type(answer["meta"]["track_id"]) is type(sent)
    assert job.track_id == (None if sent == "" else str(sent))
    assert job.echo["track_id"] == sent


def test_the_end_is_told_to_the_webhook_in_that_apis_words(make: Make) -> None:
    with receiving() as receiver:
        house = make(webhook_allow=("127.0.0.1",))
        answer = house.generate(webhook=receiver.url("/done"), track_id=7)
        posting = office.opened(house.settings, house.database, house.account)
        posting.deliver_due()

    (told,) = receiver.at("/done")
    content = orjson.loads(told.body)
    assert content["status"] == "success"
    assert (content["id"], content["track_id"]) == (answer["id"], 7)
    assert content["output"] == answer["output"]
    assert content["meta"]["track_id"] == 7
    (endpoint,) = rows.query(house.database, "SELECT form FROM webhook_endpoints")
    assert endpoint.form == Form.MODELSLAB


def test_a_failure_is_told_to_the_webhook_as_failed(make: Make) -> None:
    with receiving() as receiver:
        house = make(webhook_allow=("127.0.0.1",), draws=False, sync_wait=AT_ONCE)
        answer = house.generate(webhook=receiver.url("/done"), track_id="t1")
        rows.execute(
            house.database,
            "UPDATE jobs SET status = 'failed', finished_at = now(), error_code = 'timeout', "
            "error_message = 'The job ran longer than allowed.'",
        )
        fetched = house.answer(f"{ENTERPRISE}fetch/{answer['id']}")
        office.opened(house.settings, house.database, house.account).deliver_due()

    (told,) = receiver.at("/done")
    assert orjson.loads(told.body) == {
        "status": "failed",
        "id": answer["id"],
        "message": "The job ran longer than allowed.",
        "track_id": "t1",
    }
    assert fetched["status"] == "error"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://127.0.0.1/x", "webhook: This URL's host has no address that may be used"),
        ("http://169.254.169.254/", "webhook: This URL's host has no address that may be used"),
        ("ftp://example.com/", "webhook: The URL must begin with http:// or https://."),
        ("x", "webhook: The URL must begin with http:// or https://."),
        ("http://a:b@example.com/", "webhook: The URL must not name a user"),
        ("http://example.com/" + "\u2603" * 2000, "webhook: "),
        (5, "The webhook field must be a string."),
        ("http://ex\0ample/", "The webhook field must not contain NUL characters"),
    ],
)
def test_a_webhook_that_may_not_be_called_is_refused_by_name(url: object, told: str, idle: House) -> None:
    answer = idle.post(ENTERPRISE + "text2img", **body(webhook=url))

    (sentence,) = refused(answer, 400)["webhook"]
    assert sentence.startswith(told)
    assert rows.query(idle.database, "SELECT id FROM jobs") == []
    assert rows.query(idle.database, "SELECT id FROM webhook_endpoints") == []


def test_what_a_test_key_asks_for_is_marked_as_a_test(idle: House) -> None:
    with idle.database.transaction() as tx:
        secret = idle.settings.secret_key.get_secret_value()
        new = auth.create_key(tx, account="alice", name="t", secret_key=secret, prefix=auth.TEST_PREFIX)
    assert new is not None

    answer = idle.generate(key=new.key)

    assert idle.job(answer["id"]).test is True
    assert idle.job(idle.generate()["id"]).test is False
