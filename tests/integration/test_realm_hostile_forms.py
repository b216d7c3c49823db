"""Forms and files that modify must not take: each is a clear 4xx, and leaves nothing behind."""

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import web
from app.db import Database
from app.settings import Settings
from app.storage import Storage
from tests.conftest import Account
from tests.factories import MODIFY, NOTHING, file_part, form, picture, refused, written

OUT_OF_RANGE = "is out of all range; send a smaller number"
NOT_DIGITS = "must be a number in digits"
NUL = "must not contain NUL characters; remove them"
TOO_LARGE = "pixels is too large; resize it so that no side is over 8192"
TOO_EARLY = "ends too early; send a still image that opens in an image viewer"


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
        (lambda: file_part(picture(9400, 9400, mode="1")), f"9400 x 9400 {TOO_LARGE}"),
        (lambda: file_part(picture(8193, 1)), f"8193 x 1 {TOO_LARGE}"),
        (
            lambda: file_part(picture(8000, 8000, mode="1")),
            "8000 x 8000 is 64,000,000 pixels, at most 16,777,216 are accepted; resize it before sending",
        ),
        (lambda: file_part(picture()[:-9]), f"the PNG file {TOO_EARLY}"),
        (lambda: file_part(picture(kind="JPEG")[:-9]), f"the JPEG file {TOO_EARLY}"),
        (lambda: [file_part(), file_part()], "was sent more than once; send it once"),
    ],
    "mask": [
        ("white", "must be sent as a file part with a filename, not as text"),
        (lambda: file_part(picture(9400, 9400, mode="1")), f"9400 x 9400 {TOO_LARGE}"),
        (lambda: [file_part(), file_part()], "was sent more than once; send it once"),
    ],
}


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


WHOLE = part(b"modelId", b"sketch") + part(b"prompt", b"x") + part(b"image", picture(), b'; filename="a.png"')


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

    told = "it must begin and end with the boundary that its Content-Type names."
    assert refused(answer, 400) == {"": f"The body holds no complete multipart/form-data; {told}"}


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
    limit = "The body may have at most 26,214,400 bytes"
    others = "32 parts and 500,000 bytes in a text field; a file needs a filename."
    for sent, told in (
        # Put together here, as the test client leaves temporary files of large forms open.
        (part(b"image", b"x" * 30_000_000, b'; filename="a.png"'), f"{limit}."),
        (part(b"prompt", b"x" * 600_000), f"{limit}, {others}"),
        (b"".join(part(b"f%d" % n, b"x") for n in range(40)), f"{limit}, {others}"),
    ):
        answer = client.post(
            MODIFY,
            data=WHOLE + sent + b"--B--\r\n",
            content_type="multipart/form-data; boundary=B",
            headers=account.headers,
        )
        assert refused(answer, 413) == {"": told}
