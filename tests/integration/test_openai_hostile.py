"""What a stranger or a broken client sends to the OpenAI dialect is refused clearly and leaves nothing."""

import base64
import io
import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import web
from app.db import Database
from app.settings import Settings
from app.storage import Storage
from tests import rows
from tests.conftest import Account
from tests.factories import NOTHING, file_part, picture, written
from tests.openai_images import mask_with_hole, noise, png

GENERATE = "/v1/images/generations"
EDIT = "/v1/images/edits"
JARGON = re.compile(
    r"pydantic|Value error|Input should|validation|psycopg|sqlalchemy|object at|inputs/|outputs/"
)
OUT_OF_RANGE = "is out of all range; send a smaller number"
NUL = "must not contain NUL characters; remove them"
NAMING = 'must be a URL or a data URI, or an object such as {"image_url": "https://…"}'
NO_IMAGE = "must be an http(s) URL, a data URI (data:image/png;base64,…) or base64 text of an image"
ONE_IMAGE = "only one image can be edited at a time; send one"
URI = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"


@pytest.fixture(scope="module")
def flask(base_settings: Settings) -> Iterator[Flask]:
    """One application for all tests of this file; each comes from an account of its own."""
    made = web.create_app(base_settings.model_copy(update={"rate_limit_per_minute": 100_000}))
    yield made
    web.close(made)


@pytest.fixture(autouse=True)
def nothing_half_written(database: Database, storage: Storage) -> Iterator[None]:
    yield
    assert written(database, storage) == NOTHING


def bearer(account: Account, **headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {account.key}", **headers}


def refused(answer: Any, status: int) -> dict[str, Any]:
    """Check that an answer is an error in OpenAI's one shape; gives what is inside."""
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/json"
    assert re.fullmatch("[0-9a-f]{16}", answer.headers["X-Request-Id"])
    assert answer.json.keys() == {"error"}
    error = answer.json["error"]
    assert isinstance(error, dict)
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    assert not JARGON.search(error["message"]), error["message"]
    return error


def number_must(*, least: str, most: str, whole: bool) -> list[tuple[object, str]]:
    return [
        ("5", "must be a JSON number, not a string"),
        (True, "must be a JSON number, not a boolean"),
        ([1], "must be a JSON number, not a list"),
        ({}, "must be a JSON number, not an object"),
        (-1, f"must be at least {least}"),
        (10**30, OUT_OF_RANGE if whole else f"must be at most {most}"),
        *([(1.5, "must be a whole number")] if whole else []),
    ]


TEXTS: list[tuple[object, str]] = [
    (5, "must be a string"),
    (True, "must be a string"),
    (["a"], "must be a string"),
    ({"a": 1}, "must be a string"),
    ("a\0b", NUL),
]
A_SIZE = "must be WIDTHxHEIGHT in pixels, such as 1024x1024, or auto"
WRONG_MEMBERS: dict[str, list[tuple[object, str]]] = {
    "prompt": [
        *TEXTS,
        (None, "is required"),
        ("", "must not be empty"),
        (" \t\n\u3000", "must not be blank"),
        ("x" * 10_001, "must have at most 10000 characters"),
    ],
    "model": [*TEXTS, ("", "must not be empty"), ("x" * 201, "must have at most 200 characters")],
    "size": [
        (5, "must be a string"),
        *(
            (text, A_SIZE)
            for text in ("", "big", "64", "64x", "x64", "0x64", "64x64x64", "64X64", "-64x64", "6e1x64")
        ),
        *((text, A_SIZE) for text in ("64x64\n", " 64x64", "\u0661\u0661x64", "9" * 5000 + "x64")),
        ("15x64", "must be between 16 and 2048 pixels, not 15"),
        ("99999x64", "must be between 16 and 2048 pixels, not 99999"),
    ],
    "response_format": [
        ("file", "must be one of 'b64_json' or 'url'"),
        (1, "must be one of 'b64_json' or 'url'"),
    ],
    "output_format": [("svg", "must be one of 'png', 'jpeg' or 'webp'")],
    "background": [
        ("transparent", "transparent is not possible, as images are drawn opaque here; send opaque or auto"),
        ("blue", "must be one of 'auto', 'opaque' or 'transparent'"),
    ],
    "stream": [("yes", "must be true or false"), (1, "must be true or false"), ([], "must be true or false")],
    "n": [
        *number_must(least="1", most="10", whole=True),
        (0, "must be at least 1"),
        (11, "must be at most 10"),
    ],
    "partial_images": [*number_must(least="0", most="3", whole=True), (4, "must be at most 3")],
    "output_compression": [*number_must(least="0", most="100", whole=True), (101, "must be at most 100")],
    "seed": [
        *number_must(least="0", most="", whole=True),
        (2**63, "must be at most 9223372036854775807"),
    ],
    "guidance_scale": number_must(least="0.0", most="100.0", whole=False),
    "num_inference_steps": [*number_must(least="1", most="500", whole=True), (501, "must be at most 500")],
    "negative_prompt": [*TEXTS, ("x" * 10_001, "must have at most 10000 characters")],
}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [(field, *case) for field, cases in WRONG_MEMBERS.items() for case in cases],
    ids=lambda value: repr(value)[:40],
)
def test_a_member_that_cannot_be_used_is_named_with_the_remedy(
    client: FlaskClient, account: Account, field: str, value: object, message: str
) -> None:
    answer = client.post(GENERATE, json={"prompt": "a hill", field: value}, headers=bearer(account))

    error = refused(answer, 400)
    assert (error["param"], error["message"]) == (field, f"{field}: {message}")
    assert error["type"] == "invalid_request_error"
    assert error["code"] == ("missing_required_parameter" if value is None else "invalid_value")


def test_all_wrong_members_are_told_at_once(client: FlaskClient, account: Account) -> None:
    answer = client.post(GENERATE, json={"n": 0, "size": "big", "seed": "x"}, headers=bearer(account))

    error = refused(answer, 400)
    assert {part.partition(":")[0] for part in error["message"].split("; ")} == {
        "prompt",
        "size",
        "n",
        "seed",
    }
    assert error["param"] == "prompt"


BODIES: list[tuple[bytes, str]] = [
    (b"", "The body is empty"),
    (b"null", "must be a JSON object"),
    (b'["a hill"]', "must be a JSON object"),
    (b'{"prompt": "a hill"', "not valid JSON"),
    (b'{"prompt": NaN}', "not valid JSON"),
    (b'{"prompt": "a hill", "guidance_scale": Infinity}', "not valid JSON"),
    (b'{"prompt": "\\ud800"}', "not valid JSON"),
    (b'{"prompt": "\xff"}', "not UTF-8"),
    (b'{"x": ' + b"[" * 100_000, "not valid JSON"),
]


@pytest.mark.parametrize("path", [GENERATE, EDIT])
@pytest.mark.parametrize(("body", "says"), BODIES, ids=lambda value: repr(value)[:30])
def test_a_body_that_is_no_json_object_is_a_bad_request(
    client: FlaskClient, account: Account, path: str, body: bytes, says: str
) -> None:
    answer = client.post(path, data=body, content_type="application/json", headers=bearer(account))

    error = refused(answer, 400)
    assert says in error["message"]
    assert error["code"] == "malformed_body"


@pytest.mark.parametrize("path", [GENERATE, EDIT])
def test_another_kind_of_body_is_415_and_says_which_is_read(
    client: FlaskClient, account: Account, path: str
) -> None:
    answer = client.post(path, data=b"prompt=a", content_type="text/plain", headers=bearer(account))

    wanted = "application/json" if path == GENERATE else "multipart/form-data"
    assert wanted in refused(answer, 415)["message"]


def test_a_body_too_large_is_413(client: FlaskClient, account: Account, flask: Flask) -> None:
    limit = flask.extensions["darkroom"].settings.max_json_bytes

    answer = client.post(GENERATE, json={"prompt": "x" * limit}, headers=bearer(account))

    assert f"{limit:,} bytes" in refused(answer, 413)["message"]


@pytest.mark.parametrize(
    ("named", "param", "message"),
    [
        ({}, "image", "is required, as a URL or a data URI"),
        ({"image": []}, "image", "is required, as a URL or a data URI"),
        ({"image": 5}, "image", NAMING),
        ({"image": True}, "image", NAMING),
        ({"image": {}}, "image", NAMING),
        ({"image": {"image_url": {"url": {"url": URI}}}}, "image", NAMING),
        ({"image": [[URI]]}, "image", NAMING),
        ({"images": [None]}, "images", NAMING),
        (
            {"images": [{"file_id": "file-1"}]},
            "images",
            "file_id names a file that is not kept here; send the image in image_url",
        ),
        ({"image": [URI, URI]}, "image", ONE_IMAGE),
        ({"image": URI, "images": [{"image_url": URI}]}, "image", ONE_IMAGE),
        ({"images": [URI, URI]}, "images", ONE_IMAGE),
        ({"image": URI, "mask": [URI, URI]}, "mask", "must be one image"),
        (
            {"image": URI, "markup": URI},
            "markup",
            "cannot be followed here; say in prompt what to change, and where with a mask",
        ),
        ({"image": ""}, "image", NO_IMAGE),
        ({"image": "data:image/png;base64,?"}, "image", NO_IMAGE),
        ({"image": "ftp://example.com/a.png"}, "image", NO_IMAGE),
        ({"image": "file:///etc/passwd"}, "image", NO_IMAGE),
        (
            {"image": base64.b64encode(b"text").decode()},
            "image",
            "is not an image we can read; send a PNG, JPEG or WEBP file",
        ),
        (
            {"image": URI, "mask": URI},
            "mask",
            "has no transparency; send a PNG whose alpha is 0 where the image is to change",
        ),
        ({"image": URI, "strength": 1.1}, "strength", "must be at most 1.0"),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_an_edit_in_json_with_an_image_that_cannot_be_used_names_it(
    client: FlaskClient, account: Account, named: dict[str, Any], param: str, message: str
) -> None:
    answer = client.post(EDIT, json={"prompt": "in winter", **named}, headers=bearer(account))

    error = refused(answer, 400)
    assert (error["param"], error["message"]) == (param, f"{param}: {message}")


def twice() -> list[Any]:
    return [file_part(name="1.png"), file_part(name="2.png")]


@pytest.mark.parametrize(
    ("parts", "param", "message"),
    [
        ({"image": None}, "image", "is required, as a PNG, JPEG or WEBP file"),
        ({"image": URI}, "image", "must be sent as a file part with a filename, not as text"),
        (
            {"image[]": "http://example.com/"},
            "image[]",
            "must be sent as a file part with a filename, not as text",
        ),
        ({"image": None, "image[]": twice()}, "image", ONE_IMAGE),
        ({"image": twice()}, "image", ONE_IMAGE),
        ({"image[]": file_part()}, "image", ONE_IMAGE),
        (
            {"image": file_part(b"GIF89a")},
            "image",
            "is not an image we can read; send a PNG, JPEG or WEBP file",
        ),
        ({"image": file_part(b"")}, "image", "is not an image we can read; send a PNG, JPEG or WEBP file"),
        (
            {"image": file_part(picture()[:40])},
            "image",
            "the PNG file ends too early; send a still image that opens in an image viewer",
        ),
        ({"mask": file_part(picture(kind="WEBP"))}, "mask", "is a WEBP file; send a PNG file"),
        (
            {"mask": file_part(png(mask_with_hole()))},
            "mask",
            "is 40 x 30 pixels and the image 8 x 8; both must have the same size",
        ),
        ({"mask": "all"}, "mask", "must be sent as a file part with a filename, not as text"),
        ({"mask": twice()}, "mask", "was sent more than once; send it once"),
        ({"prompt": file_part()}, "prompt", "must be sent as text, not as a file"),
        ({"prompt": ["a", "b"]}, "prompt", "was sent more than once; send it once"),
        ({"prompt": None}, "prompt", "is required"),
        ({"prompt": "a\0"}, "prompt", NUL),
        ({"n": "two"}, "n", "must be a number in digits"),
        ({"n": "1_0"}, "n", "must be a number in digits"),
        ({"n": "11"}, "n", "must be at most 10"),
        ({"seed": "9" * 5000}, "seed", OUT_OF_RANGE),
        ({"strength": "nan"}, "strength", "must be a number in digits"),
        ({"stream": "yes"}, "stream", "must be true or false"),
        ({"size": "64"}, "size", A_SIZE),
        ({"size": "5000x5000"}, "size", "must be between 16 and 2048 pixels, not 5000"),
    ],
    ids=lambda value: "/".join(value) if isinstance(value, dict) else repr(value)[:50],
)
def test_a_part_of_an_edit_that_cannot_be_used_is_named(
    client: FlaskClient, account: Account, parts: dict[str, Any], param: str, message: str
) -> None:
    form = {"prompt": "in winter", "image": file_part(), **renewed(parts)}
    sent = {name: value for name, value in form.items() if value is not None}

    answer = client.post(EDIT, data=sent, content_type="multipart/form-data", headers=bearer(account))

    error = refused(answer, 400)
    assert (error["param"], error["message"]) == (param, f"{param}: {message}")


def renewed(parts: dict[str, Any]) -> dict[str, Any]:
    """The parts with files that were not read yet."""

    def fresh(value: Any) -> Any:
        if isinstance(value, list):
            return [fresh(each) for each in value]
        if isinstance(value, tuple):
            return io.BytesIO(value[0].getvalue()), value[1]
        return value

    return {name: fresh(value) for name, value in parts.items()}


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({}, "Authorization: Bearer"),
        ({"Authorization": "Bearer"}, "Authorization: Bearer"),
        ({"Authorization": "Basic YTpi"}, "Authorization: Bearer"),
        ({"Authorization": "Bearer wrong"}, "is not valid"),
        ({"Authorization": "Bearer " + "x" * 5000}, "Authorization: Bearer"),
        ({"X-API-Key": "wrong"}, "is not valid"),
    ],
)
@pytest.mark.parametrize("path", [GENERATE, EDIT, "/v1/images/variations"])
def test_without_a_key_of_ours_nothing_is_read(
    client: FlaskClient, path: str, headers: dict[str, str], says: str
) -> None:
    answer = client.post(path, data=b"\xff" * 10, content_type="application/json", headers=headers)

    error = refused(answer, 401)
    assert error["code"] == "invalid_api_key"
    assert says in error["message"]
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_disabled_account_is_told_so(client: FlaskClient, account: Account, database: Database) -> None:
    rows.execute(database, "UPDATE accounts SET disabled_at = now()")

    answer = client.post(GENERATE, json={"prompt": "a hill"}, headers=bearer(account))

    assert refused(answer, 403)["code"] == "account_disabled"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", GENERATE, 405),
        ("DELETE", EDIT, 405),
        ("POST", f"{GENERATE}/", 404),
        ("POST", f"{EDIT}/1", 404),
        ("PUT", "/v1/images/variations", 405),
    ],
)
def test_what_is_not_there_is_told_in_the_same_shape(
    client: FlaskClient, account: Account, method: str, path: str, status: int
) -> None:
    refused(client.open(path, method=method, headers=bearer(account)), status)


@pytest.mark.parametrize("name", ["", "a b", "x" * 256, "\u00e9"])
def test_an_idempotency_key_that_is_none_is_a_bad_request(
    client: FlaskClient, account: Account, name: str
) -> None:
    answer = client.post(
        GENERATE, json={"prompt": "a hill"}, headers=bearer(account, **{"Idempotency-Key": name})
    )

    assert refused(answer, 400)["param"] == "Idempotency-Key"


@pytest.mark.parametrize("name", ["no", "a/b", "%00", "x" * 5000, "\u2603"])
def test_a_model_that_there_is_not_is_told_in_openais_shape(
    client: FlaskClient, account: Account, name: str
) -> None:
    answer = client.get(f"/v1/models/{name}", headers=bearer(account))

    assert refused(answer, 404)["code"] == "model_not_found"


def test_a_mask_and_an_image_turned_by_their_cameras_are_compared_as_they_are_shown(
    client: FlaskClient, account: Account
) -> None:
    image = io.BytesIO()
    exif = noise(40, 30).getexif()
    exif[0x0112] = 6
    noise(40, 30).save(image, "JPEG", exif=exif)
    form = {
        "prompt": "a balloon",
        "image": (io.BytesIO(image.getvalue()), "a.jpg"),
        "mask": file_part(png(mask_with_hole())),
    }

    told = refused(client.post(EDIT, data=form, headers=bearer(account)), 400)["message"]

    assert "is 40 x 30 pixels and the image 30 x 40" in told
