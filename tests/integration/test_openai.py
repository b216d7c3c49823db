"""The OpenAI dialect on a real database and a real store: what a request becomes, and which are one."""

import base64
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

from app import web
from app.db import Database
from app.domain.spec import JobSpec
from app.settings import Settings
from app.storage import Storage
from tests import rows
from tests.conftest import Account, make_account
from tests.drawing import drawing
from tests.factories import file_part, picture, written
from tests.openai_images import SMALL, jobs, mask_with_hole, noise, png

GENERATE = "/v1/images/generations"
EDIT = "/v1/images/edits"
SHORT = timedelta(seconds=0.05)
AGAIN = {"x-stainless-retry-count": "1"}
Make = Callable[..., Flask]


@pytest.fixture
def app_with(settings: Settings, database: Database) -> Iterator[Make]:
    """Make an application with some settings changed; it waits no time worth speaking of unless told."""
    del database
    made: list[Flask] = []

    def make(**changes: Any) -> Flask:
        made.append(web.create_app(settings.model_copy(update={"longest_wait": SHORT, **changes})))
        return made[-1]

    yield make
    for flask in made:
        web.close(flask)


@pytest.fixture(scope="module")
def hasty(base_settings: Settings) -> Iterator[Flask]:
    """Every request for images that nobody draws is told soon that it was not done in time."""
    made = web.create_app(base_settings.model_copy(update={"longest_wait": SHORT}))
    yield made
    web.close(made)


@pytest.fixture
def client(hasty: Flask) -> FlaskClient:
    return hasty.test_client()


@pytest.fixture(scope="module")
def waiting(base_settings: Settings) -> Iterator[Flask]:
    made = web.create_app(base_settings.model_copy(update={"longest_wait": timedelta(seconds=30)}))
    yield made
    web.close(made)


@pytest.fixture
def patient(
    waiting: Flask, settings: Settings, database: Database, storage: Storage
) -> Iterator[FlaskClient]:
    """An application that waits until the worker beside it has drawn."""
    with drawing(settings, database, storage):
        yield waiting.test_client()


def bearer(account: Account, **headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {account.key}", **headers}


def data_uri(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def job_of(answer: Any) -> UUID:
    """The job that an answer names, done or not."""
    told = answer.json["job_id"] if answer.status_code == 200 else answer.json["error"]["message"]
    name = told.partition("job_")[2][:32]
    return UUID(hex=name)


def spec_of(database: Database, answer: Any) -> JobSpec:
    assert answer.status_code == 504, answer.text
    return JobSpec.model_validate(rows.job(database, job_of(answer)).spec)


def generate(client: FlaskClient, who: Account, *, headers: dict[str, str] | None = None, **body: Any) -> Any:
    sent = {"prompt": "a hill", "size": SMALL, **body}
    return client.post(GENERATE, json=sent, headers=bearer(who, **(headers or {})))


# What is asked for


def test_every_field_of_a_generation_reaches_the_spec(
    client: FlaskClient, account: Account, database: Database
) -> None:
    answer = generate(
        client,
        account,
        model="dall-e-3",
        prompt="a\thill \u2603",
        n=3,
        size="640x480",
        output_format="webp",
        output_compression=0,
        seed=7,
        negative_prompt="fog",
        guidance_scale=3,
        num_inference_steps=5,
    )

    spec = spec_of(database, answer)
    assert (spec.model, spec.prompt, spec.num_images) == ("sketch", "a\thill \u2603", 3)
    assert (spec.width, spec.height, spec.output_format, spec.quality) == (640, 480, "webp", 1)
    assert (spec.seed, spec.negative_prompt, spec.guidance_scale) == (7, "fog", 3.0)
    assert spec.num_inference_steps == 5
    assert rows.job(database, job_of(answer)).dialect == "openai"


@pytest.mark.parametrize("size", [None, "auto"])
def test_what_a_generation_leaves_open_is_the_models_own(
    client: FlaskClient, account: Account, database: Database, size: str | None
) -> None:
    spec = spec_of(database, generate(client, account, size=size, output_compression=50))

    assert (spec.width, spec.height, spec.num_images) == (768, 768, 1)
    assert (spec.output_format, spec.quality) == ("png", None)


def test_the_installation_chooses_the_model_where_the_request_does_not(
    app_with: Make, account: Account
) -> None:
    client = app_with(openai_model="no-such-model").test_client()

    assert generate(client, account).status_code == 404
    assert generate(client, account, model="sketch").status_code == 504


@pytest.mark.parametrize("name", ["image", "image[]"])
def test_every_field_of_an_edit_form_reaches_the_spec_and_its_files_the_store(
    client: FlaskClient, account: Account, database: Database, storage: Storage, name: str
) -> None:
    image, mask = picture(40, 30, kind="JPEG"), png(mask_with_hole())
    form = {
        name: file_part(image, "../photo.jpg"),
        "mask": file_part(mask, "mask.png"),
        "prompt": "a balloon",
        "n": "2",
        "output_format": "jpeg",
        "output_compression": "80",
        "seed": "9",
        "strength": "0.25",
        "negative_prompt": "",
        "quality": "high",
        "input_fidelity": "high",
    }

    spec = spec_of(database, client.post(EDIT, data=form, headers=bearer(account)))

    assert (spec.operation, spec.mask_from_alpha, spec.strength, spec.seed) == ("inpaint", True, 0.25, 9)
    assert (spec.width, spec.height, spec.num_images, spec.quality) == (40, 30, 2, 80)
    assert spec.image is not None
    assert spec.mask_image is not None
    assert storage.get(spec.image.key) == image
    assert storage.get(spec.mask_image.key) == mask


IMAGE = data_uri(picture(40, 30))


@pytest.mark.parametrize(
    "named",
    [
        {"image": IMAGE},
        {"image": IMAGE.partition(",")[2]},
        {"image": [IMAGE]},
        {"image": {"image_url": IMAGE}},
        {"images": [{"image_url": IMAGE}]},
        {"images": [{"type": "input_image", "image_url": {"url": IMAGE}, "file_id": None}]},
    ],
)
def test_an_edit_in_json_may_name_its_image_in_any_of_the_ways_clients_do(
    client: FlaskClient, account: Account, database: Database, storage: Storage, named: dict[str, Any]
) -> None:
    answer = client.post(EDIT, json={"prompt": "in winter", "n": 2, **named}, headers=bearer(account))

    spec = spec_of(database, answer)
    assert (spec.operation, spec.num_images, spec.width, spec.height) == ("image_to_image", 2, 40, 30)
    assert spec.image is not None
    assert storage.get(spec.image.key) == picture(40, 30)


@pytest.mark.parametrize("wrap", [lambda mask: mask, lambda mask: {"image_url": mask}, lambda mask: [mask]])
def test_an_edit_in_json_may_have_a_mask(
    client: FlaskClient, account: Account, database: Database, wrap: Callable[[str], Any]
) -> None:
    mask = wrap(data_uri(png(mask_with_hole())))

    answer = client.post(
        EDIT, json={"prompt": "a balloon", "image": IMAGE, "mask": mask}, headers=bearer(account)
    )

    spec = spec_of(database, answer)
    assert (spec.operation, spec.mask_from_alpha) == ("inpaint", True)


def test_a_data_uri_may_be_larger_than_other_json(
    app_with: Make, account: Account, database: Database
) -> None:
    client = app_with(max_json_bytes=2048).test_client()
    image = data_uri(png(noise(200, 100)))

    answer = client.post(EDIT, json={"prompt": "in winter", "image": image}, headers=bearer(account))

    assert len(image) > 10 * 2048
    assert spec_of(database, answer).width == 200


def test_an_image_of_ours_can_be_edited_by_its_url(patient: FlaskClient, account: Account) -> None:
    first = generate(patient, account, response_format="url").json["data"][0]["url"]

    answer: Any = patient.post(
        EDIT, json={"prompt": "in winter", "images": [{"image_url": first}]}, headers=bearer(account)
    )

    assert answer.status_code == 200, answer.text
    assert answer.json["size"] == SMALL


def test_an_image_at_an_address_of_our_own_network_is_not_fetched(
    client: FlaskClient, account: Account, database: Database
) -> None:
    answer: Any = client.post(
        EDIT, json={"prompt": "in winter", "image": "http://127.0.0.1:1/a.png"}, headers=bearer(account)
    )

    assert (answer.status_code, answer.json["error"]["param"]) == (400, "image")
    assert jobs(database) == 0


def test_images_made_with_a_test_key_are_marked(
    client: FlaskClient, account: Account, database: Database
) -> None:
    live = generate(client, account)
    rows.execute(database, "UPDATE api_keys SET test = true")
    web_keys_forget(client)
    test = generate(client, account, prompt="a lake")

    assert [rows.job(database, job_of(answer)).test for answer in (live, test)] == [False, True]


def web_keys_forget(client: FlaskClient) -> None:
    client.application.extensions["darkroom"].keys.forget()


def test_the_key_may_come_as_x_api_key_too(client: FlaskClient, account: Account) -> None:
    assert client.post(GENERATE, json={"prompt": "a hill"}, headers=account.headers).status_code == 504


# Which requests are one


def test_equal_requests_at_the_same_time_are_all_meant(
    app_with: Make, account: Account, database: Database
) -> None:
    """DALL·E 3 drew one image at a time, so clients ask for four by four equal requests."""
    flask = app_with(longest_wait=timedelta(seconds=1))

    answers = at_once(flask, account, 4)

    assert len({job_of(answer) for answer in answers}) == 4
    assert jobs(database) == 4


def at_once(flask: Flask, who: Account, count: int, **headers: str) -> list[Any]:
    together = threading.Barrier(count)

    def send(_: int) -> Any:
        together.wait(10)
        return generate(flask.test_client(), who, headers=headers)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(send, range(count)))


def test_their_repetitions_share_the_jobs_out_among_them(
    app_with: Make, account: Account, database: Database
) -> None:
    flask = app_with(longest_wait=timedelta(seconds=1))
    first = {job_of(answer) for answer in at_once(flask, account, 4)}

    again = {job_of(answer) for answer in at_once(flask, account, 4, **AGAIN)}

    assert first == again
    assert jobs(database) == 4


def test_who_was_told_that_it_goes_on_joins_it_by_asking_again(
    client: FlaskClient, account: Account, database: Database
) -> None:
    first = generate(client, account)
    second = generate(client, account)

    assert first.status_code == second.status_code == 504
    assert job_of(first) == job_of(second)
    assert (first.headers["Retry-After"], first.headers["x-should-retry"]) == ("1", "true")
    assert first.json["error"]["code"] == "not_done_in_time"
    told = client.get(f"/v1/jobs/job_{job_of(first).hex}", headers=bearer(account))
    assert (told.status_code, told.json and told.json["status"]) == (200, "queued")
    assert jobs(database) == 1


def test_the_same_words_said_again_after_the_image_came_mean_another_image(
    patient: FlaskClient, account: Account, database: Database
) -> None:
    first, second = (generate(patient, account).json for _ in range(2))

    assert first["data"][0]["b64_json"] != second["data"][0]["b64_json"]
    assert jobs(database) == 2


def test_a_repetition_gets_the_image_whose_answer_was_lost(
    patient: FlaskClient, account: Account, database: Database
) -> None:
    first = generate(patient, account).json
    again = generate(patient, account, headers=AGAIN).json

    assert first == again
    assert jobs(database) == 1


def test_a_repetition_long_after_the_end_is_a_request_of_its_own(
    patient: FlaskClient, account: Account, database: Database
) -> None:
    generate(patient, account)
    rows.execute(database, "UPDATE jobs SET finished_at = now() - interval '61 seconds'")

    generate(patient, account, headers=AGAIN)

    assert jobs(database) == 2


@pytest.mark.parametrize("count", ["0", "", "-1", "x", "9" * 5000 + "x"])
def test_a_count_that_says_nothing_of_a_repetition_is_none(
    patient: FlaskClient, account: Account, database: Database, count: str
) -> None:
    for _ in range(2):
        generate(patient, account, headers={"x-stainless-retry-count": count})

    assert jobs(database) == 2


def test_nobody_joins_the_job_of_another_request_or_another_key(
    client: FlaskClient, account: Account, stranger: Account, database: Database, settings: Settings
) -> None:
    same_account = make_account(database, settings, "alice")
    generate(client, account)

    others = [
        generate(client, account, prompt="a lake", headers=AGAIN),
        generate(client, account, stream=True, headers=AGAIN),
        generate(client, stranger, headers=AGAIN),
        generate(client, same_account, headers=AGAIN),
        client.post(EDIT, json={"prompt": "a hill", "image": IMAGE}, headers=bearer(account, **AGAIN)),
    ]

    assert len({job_of(answer) for answer in others}) == 5
    assert jobs(database) == 6


def test_an_edit_is_the_same_only_with_the_same_image(client: FlaskClient, account: Account) -> None:
    def edit(colour: str) -> Any:
        image = io.BytesIO(picture(9, 9, mode=colour)), "photo.png"
        return client.post(EDIT, data={"prompt": "snow", "image": image}, headers=bearer(account, **AGAIN))

    first, same, other = job_of(edit("RGB")), job_of(edit("RGB")), job_of(edit("L"))

    assert first == same
    assert first != other


def test_an_idempotency_key_wins_over_all_of_this(
    client: FlaskClient, account: Account, database: Database
) -> None:
    keyed = [generate(client, account, headers={"Idempotency-Key": name, **AGAIN}) for name in "aab"]

    assert job_of(keyed[0]) == job_of(keyed[1]) != job_of(keyed[2])
    assert jobs(database) == 2


def test_what_an_old_idempotency_key_drew_is_gone_with_its_images(
    patient: FlaskClient, account: Account, database: Database
) -> None:
    headers = {"Idempotency-Key": "order-1"}
    generate(patient, account, headers=headers)
    rows.execute(database, "UPDATE outputs SET expires_at = now() - interval '1 minute'")

    answer = generate(patient, account, headers=headers)

    assert answer.status_code == 410
    assert "fresh Idempotency-Key" in answer.json["error"]["message"]


# Parts of ours that are away or busy


def test_who_finds_no_place_to_wait_has_bought_nothing(
    app_with: Make, account: Account, database: Database, storage: Storage
) -> None:
    flask = app_with(max_waits=1)

    with flask.extensions["darkroom"].waits.place(account.id):
        answer = generate(flask.test_client(), account)

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert answer.json["error"]["type"] == "server_error"
    assert "x-should-retry" not in answer.headers
    assert written(database, storage)["jobs"] == 0


def test_a_cancelled_job_is_told_and_not_sent_again(
    app_with: Make, account: Account, database: Database
) -> None:
    flask = app_with(longest_wait=timedelta(seconds=30))

    def cancel() -> None:
        intake = flask.extensions["darkroom"].intake
        found: list[Any] = []
        while not found:
            found = rows.query(database, "SELECT id FROM jobs")
            threading.Event().wait(0.02)
        intake.cancel(found[0].id, account_id=account.id)

    thread = threading.Thread(target=cancel)
    thread.start()
    answer = generate(flask.test_client(), account)
    thread.join(10)

    assert (answer.status_code, answer.json["error"]["code"]) == (409, "cancelled")
    assert answer.headers["x-should-retry"] == "false"


def test_an_image_that_the_store_lost_is_an_error_of_ours_and_not_sent_again(
    patient: FlaskClient, account: Account, database: Database, storage: Storage
) -> None:
    generate(patient, account)
    (output,) = rows.query(database, "SELECT key FROM outputs")
    storage.delete([output.key])

    answer = generate(patient, account, headers=AGAIN)

    assert (answer.status_code, answer.json["error"]["code"]) == (500, "object_missing")
    assert answer.headers["x-should-retry"] == "false"
    assert output.key not in answer.text
