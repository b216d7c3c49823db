"""POST /v1/jobs refuses what it does not know or cannot do to the letter, and leaves nothing behind."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import web
from app.db import Database
from app.settings import Settings
from app.storage import Storage
from tests.conftest import Account
from tests.factories import NOTHING, picture, written
from tests.submitter import JOBS, Submitter, problems

PICTURE = base64.b64encode(picture(40, 30)).decode()
MASK = base64.b64encode(picture(40, 30, mode="L")).decode()


@pytest.fixture(scope="module")
def flask(base_settings: Settings) -> Iterator[Flask]:
    """One application for all tests of this file."""
    changes = {"rate_limit_per_minute": 100_000, "webhook_allow": ("127.0.0.1",)}
    made = web.create_app(base_settings.model_copy(update=changes))
    yield made
    web.close(made)


@pytest.fixture
def door(client: FlaskClient, database: Database, account: Account) -> Submitter:
    del database  # emptied before the test
    return Submitter(client, account)


REFUSED: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "a typing error": (
        {"prompt": "a hill", "num_inference_step": 3},
        {"num_inference_step": "is not known here; did you mean num_inference_steps?"},
    ),
    "another API's name": (
        {"prompt": "a hill", "n": 2, "steps": 3, "modelId": "sketch", "init_image": PICTURE},
        {
            "n": "is not known here; did you mean num_images?",
            "steps": "is not known here; did you mean num_inference_steps?",
            "modelId": "is not known here; did you mean model?",
            "init_image": "is not known here; did you mean image?",
        },
    ),
    "another spelling": (
        {"prompt": "a hill", "negativePrompt": "rain"},
        {"negativePrompt": "is not known here; did you mean negative_prompt?"},
    ),
    "no prompt": ({"operation": "text_to_image"}, {"prompt": "is required for text_to_image"}),
    "nothing at all": ({}, {"prompt": "is required for text_to_image"}),
    "no images": (
        {"operation": "inpaint", "prompt": "snow"},
        {"image": "is required for inpaint", "mask_image": "is required for inpaint"},
    ),
    "a mask without an image": (
        {"prompt": "snow", "mask_image": MASK},
        {"image": "is required for inpaint"},
    ),
    "an image that would not count": (
        {"operation": "text_to_image", "prompt": "a hill", "image": PICTURE, "strength": 0.5},
        {
            "image": "does not count for text_to_image; remove it",
            "strength": "does not count for text_to_image; remove it",
        },
    ),
    "a transform without its operation": (
        {"image": PICTURE, "transform": {"width": 3}},
        {
            "operation": "is required with `transform`: one of resize, crop, rotate, mirror, convert, blur, "
            "modulate, watermark, remove_background, import"
        },
    ),
    "parameters outside of transform": (
        {"operation": "resize", "image": PICTURE, "width": 20, "prompt": "a hill"},
        {
            "prompt": "does not count for resize; remove it",
            "width": "does not count for resize; put it into `transform` as width",
        },
    ),
    "a format outside of transform": (
        {"operation": "convert", "image": PICTURE, "output_format": "webp", "quality": 3},
        {
            "output_format": "does not count for convert; put it into `transform` as format",
            "quality": "does not count for convert; put it into `transform` as quality",
            "transform.format": "is required",
        },
    ),
    "parameters of another transform": (
        {
            "operation": "crop",
            "image": PICTURE,
            "transform": {"x1": 0, "y1": 0, "widht": 3, "operation": "crop"},
        },
        {
            "transform.widht": "is not known here; remove it. Known: x1, y1, x2, y2",
            "transform.operation": "is not known here; remove it. Known: x1, y1, x2, y2",
            "transform.x2": "is required",
            "transform.y2": "is required",
        },
    ),
    "parameters of the wrong type": (
        {"operation": "resize", "image": PICTURE, "transform": {"width": "20", "height": True, "fit": "fil"}},
        {
            "transform.width": "must be a whole number",
            "transform.height": "must be a whole number",
            "transform.fit": "must be one of 'fill', 'contain' or 'cover'",
        },
    ),
    "a part that is not on the image": (
        {"operation": "crop", "image": PICTURE, "transform": {"x1": 0, "y1": 0, "x2": 41, "y2": 5}},
        {"transform.x2": "must be at most 40, the image's width, not 41"},
    ),
    "a watermark that was not sent": (
        {
            "operation": "watermark",
            "image": PICTURE,
            "watermarks": [PICTURE],
            "transform": {"watermarks": [{"image": 1}]},
        },
        {
            "transform.watermarks.0.image": "must be below 1, as that many `watermarks` were sent; the first "
            "is 0"
        },
    ),
    "a typing error in a watermark": (
        {
            "operation": "watermark",
            "image": PICTURE,
            "watermarks": [PICTURE],
            "transform": {"watermarks": [{"image": 0, "lefd": 3}]},
        },
        {"transform.watermarks.0.lefd": "is not known here; remove it"},
    ),
    "quality of a PNG": (
        {"prompt": "a hill", "quality": 80},
        {"quality": "counts for jpeg and webp only; set `output_format`, or remove it"},
    ),
    "quality of a PNG that stays one": (
        {"operation": "mirror", "image": PICTURE, "transform": {"mode": "both"}, "quality": 80},
        {"quality": "counts for jpeg and webp only; set `output_format`, or remove it"},
    ),
    "an unknown operation": (
        {"operation": "upscale", "prompt": "a hill"},
        {
            "operation": "must be one of text_to_image, image_to_image, inpaint, resize, crop, rotate, "
            "mirror, convert, blur, modulate, watermark, remove_background, import"
        },
    ),
    "nearly an operation": (
        {"operation": "Text-to-Image", "prompt": "a hill"},
        {
            "operation": "must be one of text_to_image, image_to_image, inpaint, resize, crop, rotate, "
            "mirror, convert, blur, modulate, watermark, remove_background, import; did you mean "
            "text_to_image?"
        },
    ),
    "an image that is none": (
        {"prompt": "a hill", "image": {"output": "img_1"}},
        {
            "image": "must be an http(s) URL, a data URI (data:image/png;base64,…), base64 text, or an "
            'output of yours: {"output": "img_…"} with an id that a job answered'
        },
    ),
    "a retention beyond this installation's": (
        {"prompt": "a hill", "retain_seconds": 31_536_001},
        {"retain_seconds": "must be at most 31536000 here; `persist` keeps outputs for ever"},
    ),
    "numbers beyond their ranges": (
        {"prompt": "a hill", "priority": 11, "seed": 2**63, "guidance_scale": -1},
        {
            "priority": "must be at most 10",
            "seed": "must be at most 9223372036854775807",
            "guidance_scale": "must be at least 0.0",
        },
    ),
    "what only the model can tell": (
        {"prompt": "a hill", "height": 4096, "width": 8},
        {
            "width": "must be between 16 and 2048 pixels, not 8",
            "height": "must be between 16 and 2048 pixels, not 4096",
        },
    ),
    "words for booleans and numbers": (
        {"prompt": "a hill", "persist": "yes", "private": 1, "seed": "7", "width": True, "track_id": 3},
        {
            "persist": "must be true or false",
            "private": "must be true or false",
            "seed": "must be a JSON number, not a string",
            "width": "must be a JSON number, not a boolean",
            "track_id": "must be a string",
        },
    ),
    "NUL": (
        {"prompt": "a\0hill", "track_id": "\0"},
        {
            "prompt": "must not contain NUL characters; remove them",
            "track_id": "must not contain NUL characters; remove them",
        },
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_done_to_the_letter_is_refused_with_its_remedy_and_leaves_nothing(
    why: str, door: Submitter, database: Database, storage: Storage
) -> None:
    body, expected = REFUSED[why]

    assert problems(door.submit(**body)) == expected
    assert written(database, storage) == NOTHING


@pytest.mark.parametrize(
    "url",
    ["http://169.254.169.254/latest", "http://10.0.0.1/hook", "ftp://example.com/", "http://me@example.com/"],
)
def test_a_webhook_into_our_own_network_is_refused_while_its_sender_listens(
    url: str, door: Submitter, database: Database, storage: Storage
) -> None:
    assert set(problems(door.submit(prompt="a hill", webhook=url))) == {"webhook"}
    assert written(database, storage) == NOTHING


def test_an_image_in_our_own_network_is_refused(door: Submitter) -> None:
    told = problems(door.submit(prompt="a hill", image="http://127.0.0.1:22/a.png"))

    assert set(told) == {"image"}


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"x": value}
    return value


def test_hostile_bodies_are_4xx_in_the_one_shape(
    door: Submitter, database: Database, storage: Storage
) -> None:
    deep = b'{"prompt":"a","transform":' + b'{"x":' * 2000 + b"1" + b"}" * 2000 + b"}"
    bodies: dict[bytes, int] = {
        b"": 400,
        b"[]": 400,
        b'{"prompt": NaN}': 400,
        b'{"prompt": "\xff"}': 400,
        deep: 400,
        b'{"prompt": "a", "seed": 1e400}': 400,
        b'{"prompt": "a", "' + b"x" * 5000 + b'": 1}': 422,
        b'{"prompt": "a", "seed": 99999999999999999999999999}': 422,
        b'{"operation": ["resize"]}': 422,
        b'{"operation": {"a": 1}, "image": 5, "transform": []}': 422,
    }
    for body, status in bodies.items():
        answer = door.client.post(
            JOBS, data=body, content_type="application/json", headers=door.account.headers
        )
        assert answer.status_code == status, (body[:60], answer.text)
        assert set((answer.json or {})["error"]) == {"code", "message", "details"}
        assert len(answer.data) < 3000
    for depth in (100, 300, 900):
        answer = door.submit(operation="resize", image=PICTURE, transform={"width": nested(depth)})
        assert answer.status_code == 422
        answer = door.submit(operation="resize", image=PICTURE, transform={"height": 4, "y": nested(depth)})
        assert answer.status_code == 422
    assert written(database, storage) == NOTHING
