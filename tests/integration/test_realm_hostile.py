"""Whatever a stranger or a broken client sends is told apart with a clear 4xx, and leaves nothing behind."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import web
from app.db import Database
from app.settings import Settings
from app.storage import Storage
from tests.conftest import Account
from tests.factories import GENERATE, MODIFY, NOTHING, body, file_part, form, picture, written

JARGON = re.compile(
    r"pydantic|Value error|Input should|validation|after val|psycopg|sqlalchemy|object at|None\b"
)
OUT_OF_RANGE = "is out of all range; send a smaller number"
NOT_DIGITS = "must be a number in digits"
NUL = "must not contain NUL characters; remove them"


@pytest.fixture(scope="module")
def application(base_settings: Settings) -> Iterator[Any]:
    flask = web.create_app(base_settings.model_copy(update={"rate_limit_per_minute": 100_000}))
    yield flask
    web.close(flask)


@pytest.fixture
def client(application: Any) -> FlaskClient:
    made = application.test_client()
    assert isinstance(made, FlaskClient)
    return made


@pytest.fixture(autouse=True)
def nothing_half_written(database: Database, storage: Storage) -> Iterator[None]:
    yield
    assert written(database, storage) == NOTHING


def refused(answer: TestResponse, status: int) -> dict[str, str]:
    """Check that the answer is an error in the dialect's one shape; gives field → message, or the sentence."""
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/json"
    assert {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"} <= set(answer.headers.keys())
    assert re.fullmatch("[0-9a-f]{16}", answer.headers["X-Request-Id"])
    assert answer.json is not None
    assert answer.json.keys() == {"error"}
    error = answer.json["error"]
    assert error.keys() == {"code", "message", "details"}
    assert re.fullmatch("[A-Z_]+", error["code"])
    assert not JARGON.search(error["message"]), error["message"]
    if error["details"]:
        assert error["message"] == "; ".join(f"{d['field']}: {d['message']}" for d in error["details"])
        return {detail["field"]: detail["message"] for detail in error["details"]}
    return {"": error["message"]}


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


BROKEN_BODIES = {
    b"": "The body is empty; send a JSON object.",
    b"[]": 'The body must be a JSON object, such as {"name": "value"}.',
    b"null": 'The body must be a JSON object, such as {"name": "value"}.',
    b'"x"': 'The body must be a JSON object, such as {"name": "value"}.',
    b'{"modelId":': "The body is not valid JSON: unexpected end of data (line 1, column 12).",
    b'{"modelId":"sketch",}': "The body is not valid JSON: trailing comma is not allowed (line 1, column 20).",
    b'{"guidanceScale":NaN}': "The body is not valid JSON: unexpected character, expected a JSON value (line 1, column 18).",
    b'{"guidanceScale":-Infinity}': "The body is not valid JSON: no digit after sign (line 1, column 19).",
    b'{"width":1e400}': "The body is not valid JSON: number is infinity when parsed as double (line 1, column 10).",
    b'{"width":' + b"9" * 5000 + b"}": "The body is not valid JSON: number is infinity when parsed as double (line 1, column 10).",
    b'{"prompt":"\\ud800"}': "The body is not valid JSON: no low surrogate in string (line 1, column 12).",
    b'{"prompt":"\xff"}': "The body is not UTF-8 text: byte 12 is wrong; encode it as UTF-8.",
    b'{"prompt":"\xed\xa0\x80"}': "The body is not UTF-8 text: byte 12 is wrong; encode it as UTF-8.",
    '{"prompt":"a"}'.encode("utf-16"): "The body is not UTF-8 text: byte 1 is wrong; encode it as UTF-8.",
    b'\xef\xbb\xbf{"prompt":"a"}': "The body is not valid JSON: UTF-8 byte order mark (BOM) is not supported (line 1, column 1).",
    b'{"a":' + b"[" * 100_000: "The body is not valid JSON: depth limit exceeded (line 1, column 1030).",
    b'{"a":' * 20_000: "The body is not valid JSON: depth limit exceeded (line 1, column 5122).",
    b'{"a":1}{"a":1}': "The body is not valid JSON: unexpected content after document (line 1, column 8).",
}  # fmt: skip


@pytest.mark.parametrize(("sent", "told"), BROKEN_BODIES.items(), ids=range(len(BROKEN_BODIES)))
def test_a_body_that_is_no_json_object_is_told_where_it_breaks(
    sent: bytes, told: str, client: FlaskClient, account: Account
) -> None:
    answer = client.post(GENERATE, data=sent, content_type="application/json", headers=account.headers)

    assert refused(answer, 400) == {"": told}


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


def form_number_must(*, most: str, whole: bool) -> list[tuple[object, str]]:
    words = ("abc", "1,5", "nan", "inf", "true", "0x10", "1_0", "\u0661", " ", "1 2", "--1", "a\0")
    return [
        *((word, NOT_DIGITS) for word in words),
        ("-1", "must be at least 0.0" if not whole else "must be at least 1"),
        ("9" * 50, f"must be at most {most}"),
        ("9" * 5000, OUT_OF_RANGE if whole else "must be a finite number"),
        ("1e400", "must be a whole number" if whole else "must be a finite number"),
        *([("1.5", "must be a whole number")] if whole else []),
        (file_part, "must be sent as text, not as a file"),
    ]


WRONG_PARTS: dict[str, list[tuple[object, str]]] = {
    "modelId": [
        (None, "is required"),
        ("", "must not be empty"),
        ("a\0", NUL),
        ("x" * 201, "must have at most 200 characters"),
        (file_part, "must be sent as text, not as a file"),
        (["sketch", "sketch"], "was sent more than once; send it once"),
    ],
    "prompt": [
        (None, "is required"),
        ("", "must not be empty"),
        (" \n", "must not be blank"),
        ("a\0", NUL),
        ("x" * 10_001, "must have at most 10000 characters"),
        (file_part, "must be sent as text, not as a file"),
        (["a", "b"], "was sent more than once; send it once"),
    ],
    "negativePrompt": [("a\0", NUL), ("x" * 10_001, "must have at most 10000 characters")],
    "strength": form_number_must(most="1.0", whole=False),
    "guidanceScale": form_number_must(most="100.0", whole=False),
    "numOutputs": form_number_must(most="4", whole=True),
    "seed": [("-1", "must be at least 0"), ("9" * 50, f"must be at most {2**63 - 1}")],
    "image": [
        (None, "is required, as a JPEG or PNG file"),
        ("", "is required, as a JPEG or PNG file"),
        ("iVBORw0KGgo=", "must be sent as a file part with a filename, not as text"),
        (lambda: file_part(picture(9400, 9400, mode="1")), "9400 x 9400 pixels is too large; resize it so that no side is over 8192"),
        (lambda: file_part(picture(8193, 1)), "8193 x 1 pixels is too large; resize it so that no side is over 8192"),
        (lambda: file_part(picture(8000, 8000, mode="1")), "8000 x 8000 is 64,000,000 pixels, at most 16,777,216 are accepted; resize it before sending"),
        (lambda: file_part(picture()[:-9]), "the PNG file ends too early; send a still image that opens in an image viewer"),
        (lambda: file_part(picture(kind="JPEG")[:-9]), "the JPEG file ends too early; send a still image that opens in an image viewer"),
        (lambda: [file_part(), file_part()], "was sent more than once; send it once"),
    ],
    "mask": [
        ("white", "must be sent as a file part with a filename, not as text"),
        (lambda: file_part(picture(9400, 9400, mode="1")), "9400 x 9400 pixels is too large; resize it so that no side is over 8192"),
        (lambda: [file_part(), file_part()], "was sent more than once; send it once"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("field", WRONG_PARTS)
def test_a_wrong_part_of_modify_is_named_with_the_remedy(
    field: str, client: FlaskClient, account: Account
) -> None:
    for value, message in WRONG_PARTS[field]:
        sent = form(**{field: value() if callable(value) else value})
        answer = client.post(MODIFY, data=sent, content_type="multipart/form-data", headers=account.headers)
        assert refused(answer, 422) == {field: message}, value


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is not an image we can read"),
        (b"just some text", "is not an image we can read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not an image we can read"),
        (b"%PDF-1.7", "is not an image we can read"),
        (picture(kind="GIF"), "is not an image we can read"),
        (picture(kind="TIFF"), "is not an image we can read"),
        (picture(kind="WEBP"), "is a WEBP file"),
    ],
)
@pytest.mark.parametrize("field", ["image", "mask"])
def test_a_file_that_is_no_jpeg_or_png_is_415_whatever_it_is_called(
    field: str, data: bytes, told: str, client: FlaskClient, account: Account
) -> None:
    sent = form(**{field: file_part(data, "photo.png")})

    answer = client.post(MODIFY, data=sent, content_type="multipart/form-data", headers=account.headers)

    assert refused(answer, 415) == {"": f"{field}: {told}; send a PNG or JPEG file"}


def part(name: bytes, value: bytes, more: bytes = b"") -> bytes:
    return (
        b'--B\r\nContent-Disposition: form-data; name="' + name + b'"' + more + b"\r\n\r\n" + value + b"\r\n"
    )


NO_FORM = {
    "The body holds no complete multipart/form-data; it must begin and end with the boundary that its Content-Type names."
}  # fmt: skip
WHOLE = part(b"modelId", b"sketch") + part(b"prompt", b"x") + part(b"image", picture(), b'; filename="a.png"')


# Werkzeug leaves the spooled file of a part that breaks off to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("sent", "content_type"),
    [
        (b"", "multipart/form-data; boundary=B"),
        (WHOLE + b"--B--\r\n", "multipart/form-data"),
        (WHOLE + b"--B--\r\n", "multipart/form-data; boundary=Z"),
        (WHOLE + b"--B--\r\n", "multipart/form-data; boundary=\xc3\xa9"),
        (WHOLE, "multipart/form-data; boundary=B"),
        (WHOLE[:-30], "multipart/form-data; boundary=B"),
        (b"--B\r\nX: y\r\n\r\nv\r\n--B--\r\n", "multipart/form-data; boundary=B"),
        (b"--B\r\nX: " + b"y" * 100_000 + b"\r\n\r\nv\r\n--B--\r\n", "multipart/form-data; boundary=B"),
    ],
)
def test_a_multipart_body_that_cannot_be_read_is_400(
    sent: bytes, content_type: str, client: FlaskClient, account: Account
) -> None:
    answer = client.post(MODIFY, data=sent, content_type=content_type, headers=account.headers)

    assert set(refused(answer, 400).values()) == NO_FORM


def test_an_image_without_a_filename_is_told_what_it_lacks(client: FlaskClient, account: Account) -> None:
    sent = part(b"modelId", b"sketch") + part(b"prompt", b"x") + part(b"image", picture()) + b"--B--\r\n"

    answer = client.post(
        MODIFY, data=sent, content_type="multipart/form-data; boundary=B", headers=account.headers
    )

    assert refused(answer, 422) == {"image": "must be sent as a file part with a filename, not as text"}


def test_text_that_is_not_utf8_is_refused_rather_than_replaced(client: FlaskClient, account: Account) -> None:
    image = part(b"image", picture(), b'; filename="a.png"')
    sent = part(b"modelId", b"sketch") + part(b"prompt", b"caf\xe9") + image + b"--B--\r\n"

    answer = client.post(
        MODIFY, data=sent, content_type="multipart/form-data; boundary=B", headers=account.headers
    )

    assert refused(answer, 422) == {"prompt": "must be text in UTF-8"}


def test_too_much_of_a_form_is_413(client: FlaskClient, account: Account) -> None:
    limits = "32 parts and 500,000 bytes in a text field; a file needs a filename."
    for sent, told in (
        (form(image=file_part(b"x" * 30_000_000)), "The body may have at most 26,214,400 bytes."),
        (form(prompt="x" * 600_000), f"The body may have at most 26,214,400 bytes, {limits}"),
        (form(**{f"f{n}": "x" for n in range(40)}), f"The body may have at most 26,214,400 bytes, {limits}"),
    ):
        answer = client.post(MODIFY, data=sent, content_type="multipart/form-data", headers=account.headers)
        assert refused(answer, 413) == {"": told}


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
    ["/v1/images", "/v1/images/", f"{GENERATE}/", "/v1/images/jobs", "/v1/images/jobs/", "/v1/models/", "/v1/images/a%00b"],
)  # fmt: skip
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
