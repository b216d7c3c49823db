"""POST /v1/jobs: any operation in one form, strict about what it is sent, and never a half-written job."""

import base64
import io
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from app import web
from app.db import Database
from app.domain.spec import JobSpec
from app.settings import Settings
from app.storage import Storage
from tests import rows
from tests.conftest import Account
from tests.drawing import announce, drawing
from tests.factories import picture
from tests.servers import strangers
from tests.submitter import JOBS, Submitter, problems, row_id

PICTURE = base64.b64encode(picture(40, 30)).decode()
MASK = base64.b64encode(picture(40, 30, mode="L")).decode()
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def flask(base_settings: Settings) -> Iterator[Flask]:
    """One application for all tests of this file."""
    changes = {"rate_limit_per_minute": 100_000, "webhook_allow": ("127.0.0.1",)}
    made = web.create_app(base_settings.model_copy(update=changes))
    yield made
    web.close(made)


@pytest.fixture
def door(client: FlaskClient, database: Database, account: Account) -> Submitter:
    announce(database)
    return Submitter(client, account)


def test_the_least_that_one_can_say_is_a_job_with_everything_filled_in(door: Submitter) -> None:
    answer = door.submit(prompt="a hill")

    assert answer.status_code == 202
    job = answer.json or {}
    assert answer.headers["Location"] == f"http://localhost{JOBS}/{job['id']}"
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert answer.headers["Cache-Control"] == "no-store"
    spec = job.pop("spec")
    assert {name: job[name] for name in ("status", "operation", "model", "provider", "dialect")} == {
        "status": "queued",
        "operation": "text_to_image",
        "model": "sketch",
        "provider": "sketch",
        "dialect": "jobs",
    }
    assert (job["position"], job["attempt"], job["progress"], job["outputs"]) == (1, 0, 0.0, [])
    assert job["estimated_completion"] > job["created_at"]
    assert (spec["prompt"], spec["width"], spec["height"], spec["num_images"]) == ("a hill", 768, 768, 1)
    assert (spec["output_format"], spec["image"], spec["transform"]) == ("png", None, None)
    assert 0 <= spec["seed"] < 2**32
    assert job["urls"] == {
        "self": f"http://localhost{JOBS}/{job['id']}",
        "events": f"http://localhost{JOBS}/{job['id']}/events",
        "timeline": f"http://localhost{JOBS}/{job['id']}/timeline",
    }


def test_every_member_of_the_spec_and_every_term_reaches_the_row(door: Submitter, database: Database) -> None:
    named = {
        "operation": "inpaint",
        "model": "mod_zyx987",
        "prompt": "snow",
        "negative_prompt": "rain",
        "image": PICTURE,
        "mask_image": MASK,
        "mask_from_alpha": False,
        "width": 64,
        "height": 48,
        "num_inference_steps": 3,
        "guidance_scale": 4,
        "strength": 0.25,
        "seed": 2**63 - 1,
        "num_images": 2,
        "output_format": "webp",
        "quality": 55,
        "safety_checker": True,
        "safety_checker_type": "blur",
    }
    terms = {
        "track_id": "order-1138",
        "webhook": "http://127.0.0.1:9/hook",
        "priority": -10,
        "retain_seconds": 3600,
        "persist": True,
        "private": True,
    }

    job = door.made(**named, **terms)

    row = rows.job(database, row_id(job["id"]))
    spec = JobSpec.model_validate(row.spec)
    for name in set(named) - {"operation", "model", "image", "mask_image"}:
        assert getattr(spec, name) == named[name], name
    assert (row.operation, row.model, row.dialect) == ("inpaint", "sketch", "jobs")
    assert (row.spec["image"]["width"], row.spec["mask_image"]["height"]) == (40, 30)
    assert (row.track_id, row.priority, row.retain_seconds) == ("order-1138", -10, 3600)
    assert (row.persist, row.access, row.base_url) == (True, "private", "http://localhost")
    (hook,) = rows.query(database, "SELECT id, url, form, scope FROM webhook_endpoints")
    assert (hook.url, hook.form, hook.scope) == ("http://127.0.0.1:9/hook", "jobs", "request")
    assert row.webhook_endpoint_id == hook.id
    assert {name: job[name] for name in ("persist", "private", "priority", "retain_seconds")} == {
        name: terms[name] for name in ("persist", "private", "priority", "retain_seconds")
    }
    assert job["spec"]["image"] == {name: row.spec["image"][name] for name in ("width", "height", "sha256")}


@pytest.mark.parametrize(
    ("members", "operation"),
    [
        ({}, "text_to_image"),
        ({"image": PICTURE}, "image_to_image"),
        ({"image": PICTURE, "mask_image": MASK}, "inpaint"),
    ],
)
def test_an_operation_that_is_not_named_follows_from_the_images(
    members: dict[str, Any], operation: str, door: Submitter
) -> None:
    assert door.made(prompt="a hill", **members)["operation"] == operation


@pytest.mark.parametrize(
    "sent",
    [
        PICTURE,
        f"data:image/png;base64,{PICTURE}",
        f"  {PICTURE[:40]}\n{PICTURE[40:]}\n",
    ],
    ids=["base64", "data URI", "base64 in lines"],
)
def test_an_image_may_be_text(sent: str, door: Submitter) -> None:
    assert door.made(prompt="a hill", image=sent)["spec"]["image"]["width"] == 40


def test_an_image_may_be_a_url(settings: Settings, database: Database, account: Account) -> None:
    del database  # emptied before the test
    with strangers.stranger(strangers.answers(picture(40, 30, kind="JPEG"))) as host:
        flask = web.create_app(settings.model_copy(update={"fetch_allow": (host.address,)}))
        try:
            url = f"{host.url}/photo"
            job = Submitter(flask.test_client(), account).made(prompt="a hill", image=url)
        finally:
            web.close(flask)

    assert (job["spec"]["image"]["width"], job["operation"]) == (40, "image_to_image")


def test_an_output_of_ones_own_is_an_input_by_its_id_and_by_its_url_even_a_private_one(
    door: Submitter, settings: Settings, database: Database, storage: Storage
) -> None:
    first = door.made(prompt="a hill", width=64, height=32, private=True)
    second = door.made(prompt="a hill", width=48, height=32)
    with drawing(settings, database, storage):
        private, linked = (
            door.client.get(f"{JOBS}/{job['id']}?wait=20", headers=door.account.headers).get_json()
            for job in (first, second)
        )
    output = {"output": private["outputs"][0]["id"]}

    turned = door.made(operation="rotate", image=output, transform={"angle": 90})
    again = door.made(prompt="in winter", image=linked["outputs"][0]["url"])

    assert private["outputs"][0]["url"] is None
    assert (turned["spec"]["image"]["width"], turned["spec"]["image"]["height"]) == (64, 32)
    assert again["spec"]["image"]["width"] == 48


def test_an_output_of_somebody_else_or_one_that_is_gone_is_no_input(
    door: Submitter, stranger: Account, database: Database
) -> None:
    for owner, why in ((stranger, "is no output of yours"), (door.account, "has expired or was deleted")):
        job_id = rows.insert_job(database, owner.id, status="completed", finished_at="now()")
        expired = -1 if owner is door.account else 1
        output_id = rows.insert_output(database, job_id, key=f"x/{owner.id}", expires_in=HOUR * expired)
        named = f"img_{output_id.hex}"

        told = problems(door.submit(prompt="a hill", image={"output": named}))

        assert told == {"image": f"{named} {why}; send the image itself"}


TRANSFORMS: dict[str, dict[str, Any]] = {
    "resize": {"width": 20},
    "crop": {"x1": 0, "y1": 0, "x2": 10, "y2": 10},
    "rotate": {"angle": 90},
    "mirror": {"mode": "horizontal"},
    "convert": {"format": "jpg", "quality": 40},
    "blur": {"sigma": 2},
    "modulate": {"hue": 120},
    "remove_background": {},
    "import": {},
}


@pytest.mark.parametrize("operation", TRANSFORMS)
def test_what_needs_no_model_takes_an_image_and_its_parameters(
    operation: str, door: Submitter, database: Database
) -> None:
    parameters = TRANSFORMS[operation]

    job = door.made(operation=operation, image=PICTURE, **({"transform": parameters} if parameters else {}))

    spec = rows.job(database, row_id(job["id"])).spec
    assert (job["operation"], job["model"], job["provider"]) == (operation, "pillow", "pillow")
    assert spec["transform"]["operation"] == operation
    shown = job["spec"]["transform"]
    assert "operation" not in shown
    assert {name: shown[name] for name in parameters if name != "format"} == {
        name: value for name, value in parameters.items() if name != "format"
    }
    if operation == "convert":
        assert (spec["output_format"], spec["quality"]) == ("jpeg", 40)


def test_watermarks_are_images_of_their_own_named_by_their_index(door: Submitter, database: Database) -> None:
    job = door.made(
        operation="watermark",
        image=PICTURE,
        watermarks=[PICTURE, base64.b64encode(picture(5, 4)).decode()],
        transform={"watermarks": [{"image": 1, "left": 3}, {"image": 0, "repetition_mode": "repeat"}]},
    )

    spec = rows.job(database, row_id(job["id"])).spec
    assert [mark["width"] for mark in spec["watermarks"]] == [40, 5]
    assert [mark["image"] for mark in spec["transform"]["watermarks"]] == [1, 0]
    assert [mark["width"] for mark in job["spec"]["watermarks"]] == [40, 5]


def test_a_transformation_ends_as_the_image_it_asked_for(
    door: Submitter, settings: Settings, database: Database, storage: Storage
) -> None:
    with drawing(settings, database, storage):
        answer = door.submit(
            path=f"{JOBS}?wait=20",
            operation="resize",
            image=PICTURE,
            transform={"width": 20},
            output_format="webp",
        )
    assert answer.status_code == 200, answer.text
    (output,) = (answer.json or {})["outputs"]
    assert (output["width"], output["height"], output["format"]) == (20, 15, "webp")
    image = Image.open(io.BytesIO(door.client.get(output["url"].removeprefix("http://localhost")).data))
    assert (image.size, image.format) == ((20, 15), "WEBP")


def test_an_unknown_model_is_404_and_names_the_nearest(door: Submitter) -> None:
    answer = door.submit(prompt="a hill", model="skech")

    assert answer.status_code == 404
    assert "did you mean 'sketch'?" in answer.text


def test_the_key_may_come_as_bearer_and_must_come(door: Submitter, account: Account) -> None:
    for headers, status in (
        ({"Authorization": f"Bearer {account.key}"}, 202),
        ({"X-API-Key": account.key}, 202),
        ({}, 401),
        ({"X-API-Key": "nobody"}, 401),
    ):
        answer = door.client.post(JOBS, json={"prompt": "a hill"}, headers=headers)
        assert answer.status_code == status
        assert "X-RateLimit-Remaining" in answer.headers


def test_the_same_idempotency_key_gives_the_same_job_whatever_became_of_its_images(
    door: Submitter, database: Database, settings: Settings, storage: Storage
) -> None:
    once = {"Idempotency-Key": "k-1"}
    plain = [door.submit(headers=once, prompt="a hill", seed=seed) for seed in (1, 1, 2)]
    source = door.made(prompt="a hill", width=16, height=16)
    with drawing(settings, database, storage):
        done = door.client.get(f"{JOBS}/{source['id']}?wait=20", headers=door.account.headers).get_json()
    body: dict[str, Any] = {"prompt": "in winter", "image": {"output": done["outputs"][0]["id"]}}
    with_image = [door.submit(headers={"Idempotency-Key": "k-2"}, **body)]
    rows.execute(database, "UPDATE outputs SET state = 'purged', purged_at = now()")
    with_image += [door.submit(headers={"Idempotency-Key": "k-2"}, **body)]
    other = door.submit(headers={"Idempotency-Key": "k-2"}, **{**body, "prompt": "in spring"})

    assert [answer.status_code for answer in plain] == [202, 202, 422]
    assert plain[2].get_json()["error"]["code"] == "idempotency_mismatch"
    assert ["Idempotent-Replayed" in answer.headers for answer in plain[:2]] == [False, True]
    for first, again in (plain[:2], with_image):
        assert (first.json or {})["id"] == (again.json or {})["id"]
    assert other.get_json()["error"]["code"] == "idempotency_mismatch"
    assert rows.query(database, "SELECT count(*) AS jobs FROM jobs")[0].jobs == 3


def test_null_counts_as_not_sent(door: Submitter) -> None:
    job = door.made(prompt="a hill", image=None, persist=None, transform=None, seed=None, priority=None)

    assert (job["operation"], job["persist"], job["priority"]) == ("text_to_image", False, 0)
