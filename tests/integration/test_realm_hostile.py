"""Whatever a stranger or a broken client sends is told apart with a clear 4xx, and leaves nothing behind."""

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
from tests.factories import GENERATE, MODIFY, NOTHING, body, form, refused, written

OUT_OF_RANGE = "is out of all range; send a smaller number"
NUL = "must not contain NUL characters; remove them"


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


def number_must(*, least: str, most: str, whole: bool) -> list[tuple[object, str]]:
    return [
        ("5", "must be a JSON number, not a string"),
        ("", "must be a JSON number, not a string"),
        (True, "must be a JSON number, not a boolean"),
        (False, "must be a JSON number, not a boolean"),
        ([1], "must be a JSON number, not a list"),
        ({}, "must be a JSON number, not an object"),
        (-1, f"must be at least {least}"),
        (10**30, OUT_OF_RANGE if whole else f"must be at most {most}"),
        (1e300, OUT_OF_RANGE if whole else f"must be at most {most}"),
        *([(1.5, "must be a whole number")] if whole else []),
    ]


TEXTS: list[tuple[object, str]] = [
    (5, "must be a string"),
    (True, "must be a string"),
    (["a"], "must be a string"),
    ({"a": 1}, "must be a string"),
    ("a\0b", NUL),
]
WRONG_MEMBERS: dict[str, list[tuple[object, str]]] = {
    "modelId": [
        *TEXTS,
        (None, "is required"),
        ("", "must not be empty"),
        ("x" * 201, "must have at most 200 characters"),
    ],
    "prompt": [
        *TEXTS,
        (None, "is required"),
        ("", "must not be empty"),
        (" \t\n\u3000", "must not be blank"),
        ("x" * 10_001, "must have at most 10000 characters"),
    ],
    "negativePrompt": [*TEXTS, ("x" * 10_001, "must have at most 10000 characters")],
    "width": [
        *number_must(least="1", most="8192", whole=True),
        (0, "must be at least 1"),
        (15, "must be between 16 and 2048 pixels, not 15"),
        (2049, "must be between 16 and 2048 pixels, not 2049"),
        (8193, "must be at most 8192"),
        (2**64, OUT_OF_RANGE),
    ],
    "height": [
        *number_must(least="1", most="8192", whole=True),
        (2049, "must be between 16 and 2048 pixels, not 2049"),
    ],
    "guidanceScale": [*number_must(least="0.0", most="100.0", whole=False), (100.5, "must be at most 100.0")],
    "numOutputs": [
        *number_must(least="1", most="4", whole=True),
        (0, "must be at least 1"),
        (5, "must be at most 4"),
    ],
    "seed": [*number_must(least="0", most="", whole=True), (2**63, f"must be at most {2**63 - 1}")],
}


@pytest.mark.parametrize("field", WRONG_MEMBERS)
def test_a_wrong_member_of_generate_is_named_with_the_remedy(
    field: str, client: FlaskClient, account: Account
) -> None:
    for value, message in WRONG_MEMBERS[field]:
        answer = client.post(GENERATE, json=body(**{field: value}), headers=account.headers)
        assert refused(answer, 422) == {field: message}, value


NO_OBJECT = 'The body must be a JSON object, such as {"name": "value"}.'
INFINITE = "number is infinity when parsed as double (line 1, column 10)"
BROKEN_BODIES = {
    b"": "The body is empty; send a JSON object.",
    b"[]": NO_OBJECT,
    b"null": NO_OBJECT,
    b'"x"': NO_OBJECT,
    b'{"prompt":"\xff"}': "The body is not UTF-8 text: byte 12 is wrong; encode it as UTF-8.",
    b'{"prompt":"\xed\xa0\x80"}': "The body is not UTF-8 text: byte 12 is wrong; encode it as UTF-8.",
    '{"prompt":"a"}'.encode("utf-16"): "The body is not UTF-8 text: byte 1 is wrong; encode it as UTF-8.",
}
NO_JSON = {
    b'{"modelId":': "unexpected end of data (line 1, column 12)",
    b'{"modelId":"sketch",}': "trailing comma is not allowed (line 1, column 20)",
    b'{"guidanceScale":NaN}': "unexpected character, expected a JSON value (line 1, column 18)",
    b'{"guidanceScale":-Infinity}': "no digit after sign (line 1, column 19)",
    b'{"width":1e400}': INFINITE,
    b'{"width":' + b"9" * 5000 + b"}": INFINITE,
    b'{"prompt":"\\ud800"}': "no low surrogate in string (line 1, column 12)",
    b'\xef\xbb\xbf{"a":1}': "UTF-8 byte order mark (BOM) is not supported (line 1, column 1)",
    b'{"a":' + b"[" * 100_000: "depth limit exceeded (line 1, column 1030)",
    b'{"a":' * 20_000: "depth limit exceeded (line 1, column 5122)",
    b'{"a":1}{"a":1}': "unexpected content after document (line 1, column 8)",
}


def test_a_body_that_is_no_json_object_is_told_where_it_breaks(client: FlaskClient, account: Account) -> None:
    broken = {sent: f"The body is not valid JSON: {why}." for sent, why in NO_JSON.items()}
    for sent, told in {**BROKEN_BODIES, **broken}.items():
        answer = client.post(GENERATE, data=sent, content_type="application/json", headers=account.headers)
        assert refused(answer, 400) == {"": told}, sent[:50]


def test_a_json_body_over_the_limit_is_413_and_one_at_the_limit_is_read(
    client: FlaskClient, account: Account, settings: Settings
) -> None:
    limit = settings.max_json_bytes
    start = b'{"modelId":"none","prompt":"x"}'

    for excess, status in ((0, 404), (1, 413), (30_000_000, 413)):
        sent = start + b" " * (limit - len(start) + excess)
        answer = client.post(GENERATE, data=sent, content_type="application/json", headers=account.headers)
        told = refused(answer, status)
        assert excess == 0 or told == {"": f"The JSON body may have at most {limit:,} bytes."}


@pytest.mark.parametrize(
    "sent", ["text/plain", "application/x-www-form-urlencoded", "garbage", "", "image/png"]
)
@pytest.mark.parametrize("path", [GENERATE, MODIFY])
def test_another_content_type_is_415_and_names_the_right_one(
    path: str, sent: str, client: FlaskClient, account: Account
) -> None:
    answer = client.post(path, data=b"{}", content_type=sent, headers=account.headers)

    right = "application/json" if path == GENERATE else "multipart/form-data"
    assert refused(answer, 415) == {"": f"Send the body as Content-Type: {right}, not {sent or 'none'}."}


@pytest.mark.parametrize("key", ["", "a" * 256, "a b", "a\tb", "schl\u00fcssel"])
def test_an_idempotency_key_of_another_form_is_refused(
    key: str, client: FlaskClient, account: Account
) -> None:
    headers = {**account.headers, "Idempotency-Key": key.encode().decode("latin-1")}

    answer = client.post(GENERATE, json=body(), headers=headers)

    message = "must be 1 to 255 visible ASCII characters, for instance a UUID"
    assert refused(answer, 422) == {"Idempotency-Key": message}


@pytest.mark.parametrize(
    "name",
    [
        *("%00", "x", "%FF%FE", "job_", "job_" + "0" * 32, "0" * 32, "job_" + "0" * 33, "job_" + "g" * 32),
        *("job_{" + "0" * 32 + "}", "job_urn:uuid:" + "0" * 32, "JOB_" + "0" * 32, "x" * 5000, "job_0_0"),
    ],
)
def test_a_job_id_of_any_form_that_names_none_is_404(
    name: str, client: FlaskClient, account: Account
) -> None:
    answer = client.get(f"/v1/images/jobs/{name}", headers=account.headers)

    assert refused(answer, 404) == {"": "No job of yours has this id."}


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/images/", "/v1/images/jobs", "/v1/images/jobs/", "/v1/images/a%00b"),
        *(f"{GENERATE}/", "/v1/models/"),
    ],
)
def test_an_address_without_an_endpoint_is_404_in_the_dialects_shape(
    path: str, client: FlaskClient, account: Account
) -> None:
    for method in ("GET", "POST"):
        answer = client.open(path, method=method, headers=account.headers)
        assert refused(answer, 404) == {"": "There is nothing at this address."}


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "TRACE", "BREW"])
def test_a_wrong_method_is_405_and_names_the_right_one(
    method: str, client: FlaskClient, account: Account
) -> None:
    for path in (GENERATE, MODIFY):
        answer = client.open(path, method=method, headers=account.headers)
        assert refused(answer, 405) == {"": f"This address answers POST, not {method}."}
        assert answer.headers["Allow"] == "OPTIONS, POST"


def test_an_unknown_model_is_404_and_its_name_is_shown_safely(client: FlaskClient, account: Account) -> None:
    for name, shown in (
        ("skech", "'skech'; did you mean 'sketch'?"),
        ("<script>\n\x01", r"'<script>\n\x01';"),
        ("   ", "'   ';"),
    ):
        answer = client.post(GENERATE, json=body(modelId=name), headers=account.headers)
        assert refused(answer, 404) == {"": f"There is no model {shown} GET /v1/models lists them."}


@pytest.mark.parametrize("key", [None, "", "x", "x" * 600, "\xe9\xff", "drk_" + "A" * 43, "a, b"])
def test_without_a_key_of_ours_every_address_is_401(key: str | None, client: FlaskClient) -> None:
    headers = {} if key is None else {"X-API-Key": key}
    asks: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", GENERATE, {"json": body()}),
        ("POST", GENERATE, {"data": b"{" * 1_000_000, "content_type": "application/json"}),
        ("POST", MODIFY, {"data": form(), "content_type": "multipart/form-data"}),
        ("GET", "/v1/images/jobs/x", {}),
        ("GET", "/v1/models", {}),
        ("GET", "/v1/models/sketch", {}),
        ("GET", "/v1/images/nowhere", {}),
        ("DELETE", GENERATE, {}),
    ]
    for method, path, content in asks:
        answer = client.open(path, method=method, headers=headers, **content)
        refused(answer, 401)
        assert answer.headers["WWW-Authenticate"] == 'ApiKey realm="darkroom", header="X-API-Key"'


def test_a_key_sent_as_bearer_is_no_key_of_this_dialect(client: FlaskClient, account: Account) -> None:
    answer = client.post(GENERATE, json=body(), headers={"Authorization": f"Bearer {account.key}"})

    refused(answer, 401)
