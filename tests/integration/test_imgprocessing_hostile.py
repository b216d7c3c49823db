"""Whatever a stranger or a broken client sends to IMG Processing's addresses is a clear 4xx."""

import io
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import web
from app.api.imgprocessing_ids import image_id
from app.db import Database
from app.settings import Settings
from app.storage import Storage
from tests import rows
from tests.album import IMAGES, Person, key_of, problem
from tests.drawing import drawing
from tests.factories import NOTHING, picture, written

OUT_OF_RANGE = "is out of all range; send a smaller number"
JARGON = ("pydantic", "Value error", "Input should", "psycopg", "object at", "None", "Traceback", "Valid")


@pytest.fixture(scope="module")
def flask(base_settings: Settings) -> Iterator[Flask]:
    """One application for all tests of this file; each comes from an account of its own."""
    made = web.create_app(base_settings.model_copy(update={"rate_limit_per_minute": 100_000}))
    yield made
    web.close(made)


@pytest.fixture
def alice(client: FlaskClient, database: Database, settings: Settings) -> Person:
    return Person(client, key_of(database, settings, "alice"))


@pytest.fixture
def image(alice: Person, database: Database, settings: Settings, storage: Storage) -> Any:
    """An image of hers; no worker runs any more when the test does."""
    with drawing(settings, database, storage):
        return alice.upload(picture(40, 20))


def errors_of(told: dict[str, Any]) -> list[str]:
    """The errors of an answer in this API's shape, in words for people."""
    errors: list[str] = told["errors"]
    assert told["message"] == "; ".join(errors)
    assert not [word for word in JARGON if word in told["message"]], told["message"]
    return errors


def imagine(person: Person, **body: Any) -> Any:
    return person.post(f"{IMAGES}/imagine", json={"name": "cat", "prompt": "a cat", **body})


# Fields of imagine


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "must not be empty"),
        ("x" * 31, "must have at most 30 characters"),
        ("a\x00b", "must not contain NUL characters; remove them"),
        (5, "must be a string"),
        (True, "must be a string"),
        (["x"], "must be a string"),
        ({"x": 1}, "must be a string"),
    ],
)
def test_a_name_has_1_to_30_characters(
    name: object, says: str, alice: Person, database: Database, storage: Storage
) -> None:
    assert errors_of(problem(imagine(alice, name=name), 422)) == [f"name: {says}"]
    assert written(database, storage) == NOTHING


@pytest.mark.parametrize("length", [1, 30])
def test_names_of_1_and_of_30_characters_are_names(length: int, alice: Person, image: Any) -> None:
    body = {"name": "\N{SNOWMAN}" * length, "x1": 0, "y1": 0, "x2": 0, "y2": 9}

    told = problem(alice.change(image, "crop", **body), 422)

    assert [error.partition(":")[0] for error in errors_of(told)] == ["x2"]


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("prompt", "x" * 1001, "must have at most 1000 characters"),
        ("prompt", " \n", "must not be blank"),
        ("negative_prompt", "x" * 1001, "must have at most 1000 characters"),
        ("negative_prompt", "", "must not be empty"),
        ("negative_prompt", 7, "must be a string"),
        ("seed", -1, "must be at least 0"),
        ("seed", 42.1, "must be a whole number"),
        ("seed", "42", "must be a JSON number, not a string"),
        ("seed", True, "must be a JSON number, not a boolean"),
        ("seed", 2**63, "must be at most 9223372036854775807"),
        ("seed", 1e300, OUT_OF_RANGE),
        ("model", "SDXL", "must be one of 'sdxl' or 'flux'"),
        ("model", "sketch", "must be one of 'sdxl' or 'flux'"),
        ("model", 1, "must be one of 'sdxl' or 'flux'"),
    ],
)
def test_a_field_of_imagine_that_cannot_stay_is_named(
    field: str, value: object, says: str, alice: Person, database: Database, storage: Storage
) -> None:
    assert errors_of(problem(imagine(alice, **{field: value}), 422)) == [f"{field}: {says}"]
    assert written(database, storage) == NOTHING


# Fields of changes


@pytest.mark.parametrize(
    ("kind", "body", "says"),
    [
        ("resize", {"width": 0}, "width: must be at least 1"),
        ("resize", {"width": 10_001}, "width: must be at most 10000"),
        ("resize", {"width": "100"}, "width: must be a JSON number, not a string"),
        ("resize", {"height": 1.5}, "height: must be a whole number"),
        ("resize", {"width": 1e308}, f"width: {OUT_OF_RANGE}"),
        ("resize", {"width": 9, "fit": "FILL"}, "fit: must be one of 'fill', 'contain' or 'cover'"),
        ("crop", {"x1": -1, "y1": 0, "x2": 1, "y2": 1}, "x1: must be at least 0"),
        ("crop", {"x1": 0, "y1": 0, "x2": 1}, "y2: is required"),
        ("rotate", {}, "angle: is required"),
        ("rotate", {"angle": 1e300}, "angle: must be at most 1000000.0"),
        ("rotate", {"angle": "90"}, "angle: must be a JSON number, not a string"),
        ("rotate", {"angle": 1, "unit": "turns"}, "unit: must be one of 'degrees' or 'radians'"),
        ("mirror", {}, "mode: is required"),
        ("mirror", {"mode": 1}, "mode: must be one of 'horizontal', 'vertical' or 'both'"),
        ("convert", {"format": "gif"}, "format: must be one of 'jpeg', 'png', 'webp' or 'jpg'"),
        ("convert", {"format": "png", "quality": 101}, "quality: must be at most 100"),
        ("blur", {"sigma": 0.5}, "sigma: must be at least 1.0"),
        ("blur", {"sigma": 1001}, "sigma: must be at most 1000.0"),
        ("modulate", {"brightness": 101}, "brightness: must be at most 100.0"),
        ("modulate", {"hue": 120.5}, "hue: must be a whole number"),
        ("watermark", {}, "watermarks: is required"),
        ("watermark", {"watermarks": [{}]}, "watermarks.0.id: is required"),
        ("watermark", {"watermarks": [{"id": 1}]}, "watermarks.0.id: must be a string"),
        ("watermark", {"watermarks": [{"id": "x"}]}, "watermarks.0.id: is not the id of an image of yours"),
        ("remove-background", {"name": ""}, "name: must not be empty"),
    ],
)
def test_a_field_of_a_change_that_cannot_stay_is_named(
    kind: str, body: dict[str, Any], says: str, alice: Person, image: Any, database: Database
) -> None:
    assert errors_of(problem(alice.change(image, kind, **body), 422)) == [says]
    assert len(rows.query(database, "SELECT id FROM jobs")) == 1


def test_watermarks_that_are_no_list_of_objects_are_told_so(alice: Person, image: Any) -> None:
    wrong: list[object] = ["x", 1, {}, [], ["x"], [[]], [None], [{"id": "x"}] * 6]
    for watermarks in wrong:
        told = problem(alice.change(image, "watermark", watermarks=watermarks), 422)

        assert errors_of(told) == [
            "watermarks: must be a list of 1 to 5 objects, each with the id of an image"
        ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("left", 1e300),
        ("top", "0"),
        ("width", 0),
        ("height", 1.5),
        ("repetition_mode", "twice"),
        ("left", []),
    ],
)
def test_a_wrong_member_of_a_watermark_is_named_with_its_place(
    field: str, value: object, alice: Person, image: Any
) -> None:
    marks = [{"id": image["id"]}, {"id": image["id"], field: value}]

    told = problem(alice.change(image, "watermark", watermarks=marks), 422)

    assert [error.partition(":")[0] for error in errors_of(told)] == [f"watermarks.1.{field}"]


@pytest.mark.parametrize(
    ("kind", "field", "rest"),
    [
        ("resize", "letterbox_color", {"width": 9, "height": 9, "fit": "contain"}),
        ("rotate", "background_color", {"angle": 45}),
    ],
)
def test_what_is_no_colour_is_told_so(
    kind: str, field: str, rest: dict[str, Any], alice: Person, image: Any
) -> None:
    for colour in ("", "bleu", "#12345", "rgb(1,2,3)", "x" * 10_000, "#\u0661\u0661\u0661", 7):
        told = problem(alice.change(image, kind, **rest, **{field: colour}), 422)

        assert [error.partition(":")[0] for error in errors_of(told)] == [field]
        assert len(told["message"]) < 300


# Bodies


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"null", "application/json", 400),
        (b'"text"', "application/json", 400),
        (b'{"name": NaN}', "application/json", 400),
        (b'{"seed": Infinity}', "application/json", 400),
        (b'{"name": "\xff"}', "application/json", 400),
        (b'{"name": "\\ud800"}', "application/json", 400),
        (b'{"a":' * 2000 + b"1" + b"}" * 2000, "application/json", 400),
        (b'{"name": "' + b"x" * 300_000 + b'"}', "application/json", 413),
        (b'{"name": "x"}', "text/plain", 415),
        (b"name=x", "application/x-www-form-urlencoded", 415),
        (b'{"name": "x"}', "", 415),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(
    body: bytes, kind: str, status: int, alice: Person, image: Any, database: Database
) -> None:
    for path in ("imagine", f"{image['id']}/blur", f"{image['id']}/publish"):
        headers = {"Content-Type": kind} if kind else {}
        answer = alice.post(f"{IMAGES}/{path}", data=body, headers=headers)
        assert problem(answer, status)["message"]
    assert len(rows.query(database, "SELECT id FROM jobs")) == 1
    assert rows.query(database, "SELECT access FROM outputs")[0].access == "private"


@pytest.mark.parametrize("kind", ["", "application/x-www-form-urlencoded", "text/plain"])
def test_without_a_body_the_fields_are_missed_and_not_the_content_type(kind: str, alice: Person) -> None:
    answer = alice.post(f"{IMAGES}/imagine", headers={"Content-Type": kind} if kind else {})

    assert errors_of(problem(answer, 422)) == ["name: is required", "prompt: is required"]


@pytest.mark.parametrize(
    ("form", "status", "says"),
    [
        ({"image": (io.BytesIO(picture()), "a.png")}, 422, "name: is required"),
        ({"name": "x"}, 422, "image: is required, as a JPEG, PNG or WebP file"),
        (
            {"name": "x", "image": "text"},
            422,
            "image: must be sent as a file part with a filename, not as text",
        ),
        ({"name": "", "image": (io.BytesIO(picture()), "a.png")}, 422, "name: must not be empty"),
        ({"name": "x" * 31, "image": (io.BytesIO(picture()), "a.png")}, 422, "at most 30 characters"),
        ({"name": "\0", "image": (io.BytesIO(picture()), "a.png")}, 422, "must not contain NUL"),
        ({"name": (io.BytesIO(b"x"), "n"), "image": (io.BytesIO(picture()), "a.png")}, 422, "name: must be"),
        ({"name": ["a", "b"], "image": (io.BytesIO(picture()), "a.png")}, 422, "more than once"),
        ({"name": "x", "image": (io.BytesIO(b""), "a.png")}, 415, "is not an image"),
        ({"name": "x", "image": (io.BytesIO(picture(8193, 1)), "a.png")}, 422, "8193"),
    ],
)
def test_an_upload_that_cannot_stay_says_why(
    form: dict[str, Any], status: int, says: str, alice: Person, database: Database, storage: Storage
) -> None:
    answer = alice.post(f"{IMAGES}/upload", data=form, headers={"Content-Type": "multipart/form-data"})

    assert says in problem(answer, status)["message"]
    assert written(database, storage) == NOTHING


# Ids, queries and addresses


@pytest.mark.parametrize(
    "shown",
    [
        "image_",
        "image_id",
        "image_" + "z" * 24,
        "image_" + "0" * 24,
        "image_" + "0" * 5000,
        "image_%00",
        "image_%F0%9F%92%A9",
        "image_'; DROP TABLE outputs;--",
        "image_..%2f..%2fetc",
    ],
)
def test_what_is_no_id_is_not_found(shown: str, alice: Person) -> None:
    for below in ("", "/download", "/publish", "/resize", "/classify"):
        method = "GET" if below in {"", "/download"} else "POST"

        told = problem(alice.ask(method, f"{IMAGES}/{shown}{below}"), 404)

        assert len(told["message"]) < 120


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("take=0", "take"),
        ("take=101", "take"),
        ("take=-1", "take"),
        ("take=1.5", "take"),
        ("take=ten", "take"),
        ("take=1_0", "take"),
        ("take=99999999999999999999999", "take"),
        ("from=x", "from"),
        ("from=image_" + "z" * 24, "from"),
        ("from=" + "x" * 5000, "from"),
        ("from=%00", "from"),
    ],
)
def test_a_query_that_cannot_stay_is_named(query: str, field: str, alice: Person) -> None:
    told = problem(alice.get(f"{IMAGES}?{query}"), 422)

    assert [error.partition(":")[0] for error in errors_of(told)] == [field]


def test_a_cursor_of_somebody_else_gives_away_nothing(
    alice: Person, image: Any, client: FlaskClient, database: Database, settings: Settings
) -> None:
    mallory = Person(client, key_of(database, settings, "mallory"))

    found = mallory.get(f"{IMAGES}?from={image['id']}").get_json()
    unknown = mallory.get(f"{IMAGES}?from={image_id(uuid4())}").get_json()

    assert found == unknown == {"data": [], "links": {"previous": None, "next": None}}
    assert alice.show(image).status_code == 200


def test_other_dialects_keep_their_addresses_and_their_shapes(alice: Person, client: FlaskClient) -> None:
    headers = {"X-API-Key": alice.key}

    realm = client.get("/v1/images/generate", headers=headers)
    nobody = client.get("/v1/images/nowhere", headers=headers)

    assert (realm.status_code, nobody.status_code) == (405, 404)
    for answer in (realm, nobody):
        assert answer.get_json()["error"].keys() == {"code", "message", "details"}


@pytest.mark.parametrize("path", ["", "/imagine", "/upload", "/image_1", "/image_1/download"])
def test_nobody_gets_anything_without_a_key(path: str, client: FlaskClient) -> None:
    for method in ("PUT", "PATCH", "DELETE", "POST", "GET"):
        answer = client.open(f"{IMAGES}{path}", method=method, json={"name": "x", "prompt": "x"})

        told = problem(answer, answer.status_code)

        assert told["status"] in {401, 405}
