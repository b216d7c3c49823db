"""Whatever a broken client sends to the ModelsLab dialect is told apart and leaves nothing behind."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from app import web
from app.db import Database
from app.domain.spec import MAX_SEED
from app.settings import Settings
from app.storage import Storage
from tests.conftest import Account
from tests.factories import NOTHING, picture, written
from tests.realtime import AT_ONCE, ENTERPRISE, PREFIXES, House, body, refused, text_of

DIGITS = "must be a number in digits."
HOW = "must be an http(s) URL, a data URI (data:image/png;base64,…) or base64 text of an image."
NO_IMAGE = "is not an image we can read; send a PNG, JPEG or WEBP file."
NUL = "must not contain NUL characters; remove them."
RANGE = "is out of all range; send a smaller number."
SWITCH = "must be true or false (yes, no, 1 and 0 will do)."
STRING = "must be a string."
WHOLE = "must be a whole number."


@pytest.fixture(scope="module")
def app(base_settings: Settings) -> Iterator[tuple[Flask, Settings]]:
    """One application for all tests of this file; each comes from an account of its own."""
    settings = base_settings.model_copy(update={"rate_limit_per_minute": 100_000, "sync_wait": AT_ONCE})
    flask = web.create_app(settings)
    yield flask, settings
    web.close(flask)


@pytest.fixture
def idle(
    app: tuple[Flask, Settings], database: Database, storage: Storage, account: Account
) -> Iterator[House]:
    """Nobody draws; and nothing that is refused is half written."""
    flask, settings = app
    yield House(flask, flask.test_client(), settings, database, storage, account)
    assert written(database, storage) == NOTHING


def number_must(*, least: str, most: str, whole: bool) -> list[tuple[object, str]]:
    return [
        ("five", DIGITS),
        ("1_000", DIGITS),
        ("0x10", DIGITS),
        ("\u0665", DIGITS),
        ("1" * 41, DIGITS),
        ("9" * 5000 + "x", DIGITS),
        ("nan", DIGITS),
        ("Infinity", DIGITS),
        (True, "must be a number, not a boolean."),
        ([1], "must be a number, not a list."),
        ({}, "must be a number, not an object."),
        (-1, f"must be at least {least}."),
        ("-1", f"must be at least {least}."),
        (10**30, RANGE if whole else f"must be at most {most}."),
        ("1e400", "must be a finite number."),
        *([(1.5, WHOLE), ("1.5", WHOLE)] if whole else []),
    ]


TEXTS: list[tuple[object, str]] = [
    (5, STRING),
    (True, STRING),
    (["a"], STRING),
    ({"a": 1}, STRING),
    ("a\0b", NUL),
]
NO_SWITCHES: tuple[object, ...] = ("maybe", "y", "ja", 2, -1, 0.5, [], {}, "tru\0e", "x" * 100_000)
SWITCHES: list[tuple[object, str]] = [(value, SWITCH) for value in NO_SWITCHES]
NO_CENSORS: tuple[object, ...] = ("red", 5, [], "a\0b")
NO_TRACK_IDS: tuple[object, ...] = (True, 1.5, [], {}, 1e300)
LONG = "must have at most 10000 characters."
IMAGES: list[tuple[object, str]] = [
    (5, STRING),
    (["https://example.com/a.png"], STRING),
    (None, "is required."),
    ("", "is required."),
    ("  ", "is required."),
    ("a\0b", NUL),
    ("not base64!", HOW),
    ("data:image/png;base64,", HOW),
    ("data:image/png,plain", HOW),
    ("aGVsbG8", HOW),
    ("aGVsbG8=", NO_IMAGE),
    ("data:text/html;base64,aGVsbG8=", NO_IMAGE),
    (
        text_of(picture()[:-20]),
        "the PNG file ends too early; send a still image that opens in an image viewer.",
    ),
]
WRONG_MEMBERS: dict[str, list[tuple[object, str]]] = {
    "prompt": [
        *TEXTS,
        (None, "is required."),
        ("", "is required."),
        (" \t\n\u3000", "is required."),
        ("x" * 10_001, LONG),
    ],
    "negative_prompt": [*TEXTS, ("x" * 10_001, LONG)],
    "width": [
        *number_must(least="1", most="1024", whole=True),
        (0, "must be at least 1."),
        (1025, "must be at most 1024."),
        ("15", "must be between 16 and 2048 pixels, not 15."),
    ],
    "height": [*number_must(least="1", most="1024", whole=True), (1025, "must be at most 1024.")],
    "samples": [
        *number_must(least="1", most="4", whole=True),
        ("0", "must be at least 1."),
        ("5", "must be at most 4."),
    ],
    "seed": [
        *number_must(least="0", most="", whole=True),
        (2**63, f"must be at most {MAX_SEED}."),
    ],
    "num_inference_steps": [
        *number_must(least="1", most="500", whole=True),
        (501, "must be at most 500."),
    ],
    "guidance_scale": [
        *number_must(least="0.0", most="100.0", whole=False),
        ("100.5", "must be at most 100.0."),
    ],
    "strength": [*number_must(least="0.0", most="1.0", whole=False), (1.01, "must be at most 1.0.")],
    "safety_checker": SWITCHES,
    "enhance_prompt": SWITCHES,
    "base64": SWITCHES,
    "temp": SWITCHES,
    "instant_response": SWITCHES,
    "safety_checker_type": [
        (value, "must be one of 'black', 'blur', 'pixelate' or 'sensitive_content_text'.")
        for value in NO_CENSORS
    ],
    "enhance_style": [*TEXTS, ("x" * 201, "must have at most 200 characters.")],
    "webhook": TEXTS,
    "track_id": [
        *((value, "must be a string or a whole number.") for value in NO_TRACK_IDS),
        ("a\0b", NUL),
        ("x" * 256, "must have at most 255 characters."),
    ],
    "model_id": [*TEXTS, ("x" * 201, "must have at most 200 characters.")],
    "init_image": IMAGES,
    "mask_image": IMAGES,
}


@pytest.mark.parametrize("field", WRONG_MEMBERS)
def test_a_wrong_member_is_named_with_the_remedy(field: str, idle: House) -> None:
    for value, message in WRONG_MEMBERS[field]:
        answer = idle.post(ENTERPRISE + "inpaint", **body("inpaint", **{field: value}))
        (sentence,) = refused(answer, 400)[field]
        assert sentence in {f"The {field} field {message}", f"{field}: {message}"}, value


@pytest.mark.parametrize("prefix", PREFIXES)
def test_all_wrong_members_are_told_at_once(prefix: str, idle: House) -> None:
    wrong: dict[str, Any] = {"prompt": None, "width": "wide", "samples": 9, "webhook": 1}
    sent = {"init_image": PHOTO_OF_NOTHING, **wrong}

    told = refused(idle.post(prefix + "img2img", **sent), 400)

    assert told.keys() == wrong.keys()


PHOTO_OF_NOTHING = "aGVsbG8="
BROKEN_BODIES = {
    b"[]": 'The body must be a JSON object, such as {"name": "value"}.',
    b"null": 'The body must be a JSON object, such as {"name": "value"}.',
    b'{"prompt":"\xff"}': "The body is not UTF-8 text: byte 12 is wrong; encode it as UTF-8.",
    b'{"prompt":': "The body is not valid JSON: unexpected end of data (line 1, column 11).",
    b'{"width":NaN}': (
        "The body is not valid JSON: unexpected character, expected a JSON value (line 1, column 10)."
    ),
    b'{"a":' + b"[" * 100_000: "The body is not valid JSON: depth limit exceeded (line 1, column 1030).",
    b'{"prompt":"\\ud800"}': ("The body is not valid JSON: no low surrogate in string (line 1, column 12)."),
}


@pytest.mark.parametrize("path", [f"{prefix}{end}" for prefix in PREFIXES for end in ("img2img", "fetch/1")])
def test_a_body_that_is_no_json_object_is_told_where_it_breaks(path: str, idle: House) -> None:
    for sent, told in BROKEN_BODIES.items():
        answer = idle.client.post(path, data=sent, content_type="application/json")
        assert refused(answer, 400) == {"": [told]}, sent[:50]


@pytest.mark.parametrize("sent", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_another_content_type_is_415_and_names_the_right_one(sent: str, idle: House) -> None:
    answer = idle.client.post(ENTERPRISE + "text2img", data=b"key=x&prompt=y", content_type=sent)

    assert refused(answer, 415) == {"": [f"Send the body as Content-Type: application/json, not {sent}."]}


@pytest.mark.parametrize("key", ["", "a" * 256, "a b", "schl\u00fcssel"])
def test_an_idempotency_key_of_another_form_is_refused(key: str, idle: House) -> None:
    headers = {"Idempotency-Key": key.encode().decode("latin-1")}

    told = refused(idle.post(ENTERPRISE + "text2img", headers=headers, **body()), 400)

    assert told == {
        "Idempotency-Key": [
            "The Idempotency-Key field must be 1 to 255 visible ASCII characters, for instance a UUID."
        ]
    }


def test_members_of_any_name_and_kind_are_ignored(idle: House) -> None:
    odd: dict[str, Any] = {"": 1, "x" * 5000: None, "__proto__": {}, "\u2603": [[]], "id": 5, "status": "x"}

    answer = idle.post(ENTERPRISE + "text2img", **{**body(width="wide"), **odd})

    assert refused(answer, 400).keys() == {"width"}
