"""The Realm dialect on a real database and a real store: what is written down, for whom, and how often."""

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr

from app import imaging, web
from app.db import Database
from app.domain.spec import JobSpec
from app.settings import Settings
from app.storage import Storage
from tests import rows
from tests.conftest import Account
from tests.factories import (
    GENERATE,
    MODIFY,
    NOTHING,
    body,
    file_part,
    form,
    picture,
    refused,
    turned,
    written,
)

Make = Callable[..., FlaskClient]


@pytest.fixture(scope="module")
def flask(base_settings: Settings) -> Iterator[Flask]:
    """One application for all tests of this file; each comes from an account of its own."""
    made = web.create_app(base_settings.model_copy(update={"rate_limit_per_minute": 100_000}))
    yield made
    web.close(made)


def spec_of(database: Database, answer: Any) -> JobSpec:
    """The spec of the job that an answer names."""
    assert answer.status_code == 202, answer.text
    job_id = UUID(answer.json["jobId"].removeprefix("job_"))
    return JobSpec.model_validate(rows.job(database, job_id).spec)


def test_every_field_of_generate_reaches_the_spec(
    client: FlaskClient, account: Account, database: Database
) -> None:
    sent = body(
        prompt="a\thill \u2603 \U0001f3d4",
        negativePrompt="fog",
        width=640,
        height=480.0,
        guidanceScale=3,
        numOutputs=4,
        seed=7,
    )

    spec = spec_of(database, client.post(GENERATE, json=sent, headers=account.headers))

    assert spec.prompt == sent["prompt"]
    assert (spec.negative_prompt, spec.width, spec.height) == ("fog", 640, 480)
    assert (spec.guidance_scale, spec.num_images, spec.seed) == (3.0, 4, 7)


def test_what_generate_leaves_out_is_the_models_own(
    client: FlaskClient, account: Account, database: Database
) -> None:
    shown = client.get("/v1/models/sketch", headers=account.headers).get_json()

    spec = spec_of(database, client.post(GENERATE, json=body(), headers=account.headers))

    assert (spec.width, spec.height) == (shown["width"], shown["height"]) == (768, 768)
    assert (spec.num_images, spec.guidance_scale, spec.negative_prompt) == (1, 7.5, "")


def test_every_field_of_modify_reaches_the_spec_and_its_files_the_store(
    client: FlaskClient, account: Account, database: Database, storage: Storage
) -> None:
    image, mask = picture(64, 48, kind="JPEG"), picture(32, 24, mode="L")
    sent = form(
        image=file_part(image, "../../etc/photo.jpg"),
        mask=file_part(mask, "mask.png"),
        strength="0.25",
        negativePrompt="people",
        guidanceScale="3e0",
        numOutputs=" 2 ",
        seed="9",
    )

    spec = spec_of(database, client.post(MODIFY, data=sent, headers=account.headers))

    assert spec.operation == "inpaint"
    assert (spec.width, spec.height, spec.strength, spec.guidance_scale) == (64, 48, 0.25, 3.0)
    assert (spec.negative_prompt, spec.num_images, spec.seed) == ("people", 2, 9)
    assert spec.image is not None
    assert spec.mask_image is not None
    assert storage.get(spec.image.key) == image
    assert storage.get(spec.mask_image.key) == mask
    assert "photo" not in spec.image.key


def test_without_a_mask_the_whole_image_is_redrawn(
    client: FlaskClient, account: Account, database: Database
) -> None:
    spec = spec_of(database, client.post(MODIFY, data=form(), headers=account.headers))

    assert (spec.operation, spec.mask_image, spec.strength) == ("image_to_image", None, 0.7)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_held_upright_gives_an_upright_job(kind: str, orientation: int) -> None:
    data = turned(kind, orientation=orientation, width=40, height=24)

    header = imaging.inspect(data, field="image")

    assert (header.width, header.height) == (40, 24)
    assert header.upright_size == imaging.decode(data, field="image").size


def test_a_photo_from_a_phone_is_drawn_in_the_shape_it_is_shown_in(
    client: FlaskClient, account: Account, database: Database
) -> None:
    data = turned("JPEG", orientation=6, width=64, height=48)

    spec = spec_of(database, client.post(MODIFY, data=form(image=file_part(data)), headers=account.headers))

    assert (spec.width, spec.height) == (48, 64)


@pytest.mark.parametrize(
    "exif", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"junk"]
)
def test_exif_that_cannot_be_read_is_no_reason_to_refuse_a_picture(exif: bytes) -> None:
    data = picture(40, 24, kind="JPEG", exif=b"Exif\0\0" + exif)

    assert imaging.inspect(data, field="image").upright_size == (40, 24)


def test_a_mask_may_be_larger_than_the_image(client: FlaskClient, account: Account) -> None:
    sent = form(image=file_part(picture(16, 16)), mask=file_part(picture(64, 64, mode="L")))

    assert client.post(MODIFY, data=sent, headers=account.headers).status_code == 202


def test_a_file_input_left_empty_counts_as_not_sent(
    client: FlaskClient, account: Account, database: Database
) -> None:
    sent = form(mask=(io.BytesIO(), ""))

    assert spec_of(database, client.post(MODIFY, data=sent, headers=account.headers)).mask_image is None


def test_many_unknown_members_are_named_in_part(client: FlaskClient, account: Account) -> None:
    answer = client.post(GENERATE, json=body(**{f"x{n}": n for n in range(5000)}), headers=account.headers)

    assert answer.status_code == 202
    told = answer.get_json()["warnings"]
    assert told[0] == "unknown field 'x0' was ignored"
    assert told[-1] == "4990 more unknown fields were ignored"
    assert len(told) == 11


# Idempotency-Key


def test_a_repeated_request_gives_the_same_job_with_the_same_status(
    client: FlaskClient, account: Account, database: Database, storage: Storage
) -> None:
    headers = {**account.headers, "Idempotency-Key": "order-1"}

    for path, kind, content in ((GENERATE, "json", body), (MODIFY, "data", form)):
        first, second = (client.post(path, headers=headers, **{kind: content()}) for _ in range(2))
        assert first.status_code == second.status_code == 202
        assert first.get_json()["jobId"] == second.get_json()["jobId"]
    assert written(database, storage) == {
        "jobs": 2,
        "job_events": 2,
        "inputs": 1,
        "idempotency_keys": 2,
        "orphans": 0,
    }


def test_another_request_with_the_same_key_is_refused_and_leaves_nothing(
    client: FlaskClient, account: Account, database: Database, storage: Storage
) -> None:
    headers = {**account.headers, "Idempotency-Key": "order-1"}
    client.post(MODIFY, data=form(), headers=headers)
    before = written(database, storage)

    other_words = client.post(MODIFY, data=form(prompt="in summer"), headers=headers)
    other_image = client.post(MODIFY, data=form(image=file_part(picture(9, 9))), headers=headers)
    as_mask = client.post(MODIFY, data=form(mask=file_part()), headers=headers)

    told = "This Idempotency-Key was used before with another body; use a fresh key for a new request."
    for answer in (other_words, other_image, as_mask):
        assert refused(answer, 422) == {"": told}
        assert answer.get_json()["error"]["code"] == "IDEMPOTENCY_MISMATCH"
    assert written(database, storage) == before


def test_the_spelling_of_the_same_wish_does_not_matter(client: FlaskClient, account: Account) -> None:
    headers = {**account.headers, "Idempotency-Key": "order-1"}

    first = client.post(GENERATE, json=body(width=64, height=None), headers=headers)
    second = client.post(GENERATE, json={"width": 64.0, **body(), "unknown": 1}, headers=headers)

    assert first.get_json()["jobId"] == second.get_json()["jobId"]


def test_the_same_key_of_another_account_is_another_key(
    client: FlaskClient, account: Account, stranger: Account
) -> None:
    answers = [
        client.post(GENERATE, json=body(), headers={**who.headers, "Idempotency-Key": "order-1"}).get_json()
        for who in (account, stranger)
    ]

    assert answers[0]["jobId"] != answers[1]["jobId"]


@pytest.mark.parametrize("sent", [{"json": body()}, {"data": form}], ids=["generate", "modify"])
def test_twins_that_arrive_together_make_one_job(
    sent: dict[str, Any], flask: Flask, account: Account, database: Database, storage: Storage
) -> None:
    together = threading.Barrier(8)
    headers = {**account.headers, "Idempotency-Key": "order-1"}

    def send(_: int) -> Any:
        content = {name: value() if callable(value) else value for name, value in sent.items()}
        together.wait(10)
        return flask.test_client().post(GENERATE if "json" in sent else MODIFY, headers=headers, **content)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.get_json()["jobId"] for answer in answers}) == 1
    found = written(database, storage)
    assert (found["jobs"], found["orphans"]) == (1, 0)


# Tenants


def test_nobody_sees_another_accounts_job(client: FlaskClient, account: Account, stranger: Account) -> None:
    path = (
        f"/v1/images/jobs/{client.post(GENERATE, json=body(), headers=account.headers).get_json()['jobId']}"
    )

    assert client.get(path, headers=account.headers).status_code == 200
    assert refused(client.get(path, headers=stranger.headers), 404) == {"": "No job of yours has this id."}


@pytest.mark.parametrize(
    ("host", "begins"),
    [("img.example:8443", "http://img.example:8443/outputs/"), ("a b<>", "/outputs/"), ("", "/outputs/")],
)
def test_a_url_names_the_host_that_was_asked(
    host: str, begins: str, client: FlaskClient, account: Account, database: Database
) -> None:
    job_id = rows.insert_job(
        database, account.id, status="completed", started_at="now()", finished_at="now()"
    )
    rows.insert_output(database, job_id, key="x", expires_in=timedelta(hours=1))

    answer = client.get(f"/v1/images/jobs/job_{job_id.hex}", headers={**account.headers, "Host": host})

    assert answer.get_json()["results"][0]["url"].startswith(begins)


# Limits, and parts of ours that are away


@pytest.fixture
def app_with(settings: Settings, database: Database) -> Iterator[Make]:
    """Make an application with some settings changed; all are closed at the end."""
    del database
    made: list[Flask] = []

    def make(**changes: Any) -> FlaskClient:
        made.append(web.create_app(settings.model_copy(update=changes)))
        return made[-1].test_client()

    yield make
    for flask in made:
        web.close(flask)


def test_each_answer_counts_down_and_the_one_too_many_is_429(
    app_with: Make, account: Account, stranger: Account
) -> None:
    client = app_with(rate_limit_per_minute=5)
    answers = [
        client.get("/v1/models", headers=account.headers),
        client.post(GENERATE, json={}, headers=account.headers),
        client.post(GENERATE, data=b"x", headers=account.headers),
        client.get("/v1/images/nowhere", headers=account.headers),
        client.get(GENERATE, headers=account.headers),
        client.get("/v1/models", headers=account.headers),
    ]

    assert [answer.status_code for answer in answers] == [200, 422, 415, 404, 405, 429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == list("432100")
    assert {answer.headers["X-RateLimit-Limit"] for answer in answers} == {"5"}
    assert len({answer.headers["X-RateLimit-Reset"] for answer in answers}) == 1
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 61  # the reset is told in whole seconds
    assert refused(answers[-1], 429) == {"": "More than 5 requests in this minute; wait for the reset."}
    assert client.get("/v1/models", headers=stranger.headers).status_code == 200


def test_those_without_a_key_share_one_count_and_hold_up_nobody(app_with: Make, account: Account) -> None:
    client = app_with(rate_limit_per_minute=2)

    answers = [client.get("/v1/models", headers={"X-API-Key": f"wrong-{n}"}) for n in range(3)]

    assert [answer.status_code for answer in answers] == [401, 401, 429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["1", "0", "0"]
    assert client.get("/v1/models", headers=account.headers).status_code == 200


def test_too_many_unfinished_jobs_are_429_until_some_end(
    app_with: Make, account: Account, database: Database, storage: Storage
) -> None:
    client = app_with(max_unfinished_jobs=2)
    for _ in range(2):
        rows.insert_job(database, account.id)

    answer = client.post(MODIFY, data=form(), headers=account.headers)

    told = "This account has 2 unfinished jobs, the most allowed; wait for some to end."
    assert refused(answer, 429) == {"": told}
    assert answer.headers["Retry-After"] == "5"
    assert written(database, storage)["orphans"] == 0


def test_while_postgres_is_away_the_answer_is_503_and_says_when_to_come_back(
    app_with: Make, account: Account
) -> None:
    client = app_with(database_url=SecretStr("postgresql://nobody:secret@127.0.0.1:1/none"))

    answer = client.post(GENERATE, json=body(), headers=account.headers)

    told = "The database does not answer; the same request will work later."
    assert refused(answer, 503) == {"": told}
    assert answer.headers["Retry-After"] == "1"


def test_while_the_store_is_away_an_upload_is_503_and_nothing_of_it_is_kept(
    app_with: Make, account: Account, database: Database, storage: Storage
) -> None:
    client = app_with(s3_endpoint="http://127.0.0.1:1")

    answer = client.post(MODIFY, data=form(), headers={**account.headers, "Idempotency-Key": "order-1"})

    told = "The object store does not answer; the same request will work later."
    assert refused(answer, 503) == {"": told}
    assert answer.headers["Retry-After"] == "5"
    assert written(database, storage) == NOTHING


def test_times_are_told_in_utc_whatever_the_databases_time_zone(
    client: FlaskClient, account: Account, database: Database, flask: Flask
) -> None:
    name = rows.query(database, "SELECT current_database() AS name")[0].name
    rows.execute(database, f"ALTER DATABASE \"{name}\" SET timezone TO 'Asia/Kolkata'")
    try:
        flask.extensions["darkroom"].database.close()  # its next connections begin in that zone
        job_id = rows.insert_job(
            database, account.id, status="completed", started_at="now()", finished_at="now()"
        )
        rows.insert_output(database, job_id, key="x", expires_in=timedelta(hours=1))
        answers = [
            client.post(GENERATE, json=body(), headers=account.headers).get_json(),
            client.get(f"/v1/images/jobs/job_{job_id.hex}", headers=account.headers).get_json(),
        ]
    finally:
        rows.execute(database, f'ALTER DATABASE "{name}" RESET timezone')

    told = [answers[0]["estimatedCompletion"], answers[1]["createdAt"], answers[1]["results"][0]["expiresAt"]]
    assert [moment[-1] for moment in told] == ["Z", "Z", "Z"]
