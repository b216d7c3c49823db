"""Outputs at their stable URLs: 404 before, 200 while, 410 after; ranges and caches."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient

from app import retention, web
from app.db import Database
from app.settings import Settings
from app.storage import Storage
from tests import rows
from tests.conftest import Account
from tests.shelf import DATA, SHA, Shelf

ETAG = f'"{SHA}"'
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def flask(base_settings: Settings) -> Iterator[Flask]:
    """One application for all tests of this file."""
    made = web.create_app(base_settings.model_copy(update={"rate_limit_per_minute": 100_000}))
    yield made
    web.close(made)


@contextmanager
def served_with(settings: Settings, **changes: Any) -> Iterator[FlaskClient]:
    """Another application, with some settings changed."""
    flask = web.create_app(settings.model_copy(update=changes))
    try:
        yield flask.test_client()
    finally:
        web.close(flask)


@pytest.fixture
def shelf(database: Database, storage: Storage, account: Account) -> Shelf:
    return Shelf(database, storage, account)


def test_an_output_is_served_with_all_a_browser_and_a_cache_must_know(
    client: FlaskClient, shelf: Shelf
) -> None:
    path, output_id = shelf.put()

    answer = client.get(path)

    assert (answer.status_code, answer.data) == (200, DATA)
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Content-Length"] == str(len(DATA))
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["ETag"] == ETAG
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Content-Disposition"] == f'inline; filename="{output_id.hex}.png"'
    assert re.fullmatch(r"private, max-age=3\d\d\d", answer.headers["Cache-Control"])


def test_a_jpeg_is_a_jpg_by_name_and_a_jpeg_by_type(client: FlaskClient, shelf: Shelf) -> None:
    path, _ = shelf.put(format="jpeg")

    assert client.get(path).status_code == 404
    assert client.get(path.replace(".png", ".jpg")).headers["Content-Type"] == "image/jpeg"


def test_head_says_what_get_would_without_the_bytes(client: FlaskClient, shelf: Shelf) -> None:
    path, _ = shelf.put()

    get, head = client.get(path), client.head(path, headers={"Range": "bytes=0-9"})

    changing = {"X-Request-Id", "Cache-Control"}
    assert (head.status_code, head.data) == (200, b"")
    assert {k: v for k, v in head.headers.items() if k not in changing} == {
        k: v for k, v in get.headers.items() if k not in changing
    }


RANGES = {
    "bytes=0-9": (0, 10),
    "bytes=10-10": (10, 11),
    "bytes=1000-": (1000, 1024),
    "bytes=1000-99999": (1000, 1024),
    "bytes=-24": (1000, 1024),
    "bytes=1023-": (1023, 1024),
    "Bytes = 5-6": (5, 7),
}


@pytest.mark.parametrize(("asked", "given"), RANGES.items())
def test_one_range_is_answered_with_206(
    asked: str, given: tuple[int, int], client: FlaskClient, shelf: Shelf
) -> None:
    path, _ = shelf.put()

    answer = client.get(path, headers={"Range": asked})

    begin, end = given
    assert (answer.status_code, answer.data) == (206, DATA[begin:end])
    assert answer.headers["Content-Range"] == f"bytes {begin}-{end - 1}/1024"
    assert answer.headers["Content-Length"] == str(end - begin)
    assert answer.headers["ETag"] == ETAG


@pytest.mark.parametrize(
    "asked",
    [
        *("bytes=0-", "bytes=-1024", "bytes=-5000", "bytes=0-1023"),  # the whole, by other words
        *("bytes=0-9,20-29", "bytes=9-0", "bytes=abc", "bytes=-", "bytes", "", "bytes=0x1-5", "lines=0-9"),
        *("bytes=1.5-3", "bytes=" + "9" * 5000 + "-", "bytes=+1-2", "bytes=\u0661-5"),
    ],
)
def test_a_range_that_is_the_whole_or_cannot_be_read_gives_the_whole(
    asked: str, client: FlaskClient, shelf: Shelf
) -> None:
    path, _ = shelf.put()

    answer = client.get(path, headers={"Range": asked.encode().decode("latin-1")})

    assert (answer.status_code, answer.data) == (200, DATA)
    assert "Content-Range" not in answer.headers


@pytest.mark.parametrize("asked", ["bytes=1024-", "bytes=5000-6000", "bytes=999999999999999999-", "bytes=-0"])
def test_a_range_beyond_the_end_is_416_and_tells_the_size(
    asked: str, client: FlaskClient, shelf: Shelf
) -> None:
    path, _ = shelf.put()

    answer = client.get(path, headers={"Range": asked})

    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == "bytes */1024"
    assert answer.get_json()["error"]["message"] == "This output has 1,024 bytes."


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        (ETAG, 206),
        *((other, 200) for other in (f"W/{ETAG}", '"x"', "Sat, 21 Nov 2026 09:00:00 GMT", SHA, "")),
    ],
)
def test_if_range_takes_only_the_very_etag(
    condition: str, status: int, client: FlaskClient, shelf: Shelf
) -> None:
    path, _ = shelf.put()

    answer = client.get(path, headers={"Range": "bytes=0-9", "If-Range": condition})

    assert answer.status_code == status


@pytest.mark.parametrize(
    ("condition", "status"),
    [(ETAG, 304), (f"W/{ETAG}", 304), (f'"x", {ETAG}', 304), ("*", 304), ('"x"', 200), ("", 200)],
)
def test_who_has_the_image_already_is_told_so_without_asking_the_store(
    condition: str, status: int, client: FlaskClient, shelf: Shelf
) -> None:
    path, _ = shelf.put()

    answer = client.get(path, headers={"If-None-Match": condition})

    assert (answer.status_code, answer.data) == (status, DATA if status == 200 else b"")
    assert answer.headers["ETag"] == ETAG
    assert answer.headers["Cache-Control"].startswith("private")


def test_before_the_image_exists_the_url_is_a_404_that_no_cache_keeps(
    client: FlaskClient, account: Account, database: Database
) -> None:
    prefix = uuid4()
    rows.insert_job(database, account.id, output_prefix=prefix)

    for name in (f"{prefix.hex}-0.png", f"{uuid4().hex}-0.png"):
        answer = client.get(f"/outputs/{name}")
        assert answer.status_code == 404
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.get_json()["error"]["message"] == "There is no output here, or not yet."


@pytest.mark.parametrize(
    "name",
    [
        *("x", "%00", "%2e%2e%2fetc", "0" * 32, "0" * 32 + "-0", "0" * 32 + "-00.png", "0" * 32 + "-0.webp"),
        *("0" * 32 + "-\u0661.png", "0" * 32 + "-100.png", "G" * 32 + "-0.png", "0" * 33 + "-0.png"),
    ],
)
def test_a_name_of_another_form_is_404(name: str, client: FlaskClient) -> None:
    assert client.get(f"/outputs/{name}").status_code == 404


def test_only_get_and_head_are_answered(client: FlaskClient) -> None:
    for method in ("POST", "PUT", "DELETE"):
        answer = client.open("/outputs/x", method=method)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")


def test_after_its_expiry_an_output_is_410_and_later_says_when_it_was_deleted(
    client: FlaskClient, shelf: Shelf, settings: Settings, storage: Storage
) -> None:
    path, _ = shelf.put(expires_in=-settings.purge_grace - HOUR)

    expired = client.get(path)
    retention.purge(settings, database=shelf.database, storage=storage)
    purged = client.get(path, headers={"If-None-Match": ETAG})

    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    keep = "persist outputs to keep them."
    for answer, told in ((expired, f"expired at {time}"), (purged, f"was deleted at {time}")):
        assert answer.status_code == 410
        assert answer.headers["Cache-Control"] == "no-store"
        message = answer.get_json()["error"]["message"]
        assert re.fullmatch(f"This output {told}; {keep}", message), message
    assert f"{datetime.now(UTC):%Y-%m-%d}" in purged.get_json()["error"]["message"]


def test_the_last_seconds_of_an_output_are_the_last_in_a_cache_too(client: FlaskClient, shelf: Shelf) -> None:
    path, _ = shelf.put(expires_in=timedelta(seconds=30))

    told = client.get(path).headers["Cache-Control"]

    assert 0 <= int(told.removeprefix("private, max-age=")) <= 30


def test_an_image_that_the_store_lost_is_500_and_tells_no_key_of_the_store(
    client: FlaskClient, shelf: Shelf
) -> None:
    path, _ = shelf.put(stored=False)

    answer = client.get(path)

    assert answer.status_code == 500
    assert answer.get_json()["error"] == {
        "code": "object_missing",
        "message": "The object store holds no object under this key.",
        "details": [],
    }


def test_while_the_store_is_away_a_download_is_503(settings: Settings, shelf: Shelf) -> None:
    path, _ = shelf.put()
    with served_with(settings, s3_endpoint="http://127.0.0.1:1") as client:
        answer = client.get(path)

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert "127.0.0.1" not in answer.text


def test_with_a_public_endpoint_get_is_sent_to_a_presigned_link_and_head_is_answered_here(
    settings: Settings, shelf: Shelf
) -> None:
    path, output_id = shelf.put()
    with served_with(settings, s3_public_endpoint=settings.s3_endpoint) as client:
        get, head = client.get(path), client.head(path)
        before = client.get(f"/outputs/{uuid4().hex}-0.png")
        after = client.get(shelf.put(expires_in=-HOUR)[0])

    assert (get.status_code, get.headers["Cache-Control"]) == (302, "no-store")
    served = requests.get(get.headers["Location"], timeout=10)
    assert served.content == DATA
    assert served.headers["Content-Type"] == "image/png"
    assert f"{output_id.hex}.png" in served.headers["Content-Disposition"]
    assert (head.status_code, head.headers["Content-Length"]) == (200, "1024")
    assert (before.status_code, after.status_code) == (404, 410)


def test_a_link_never_outlives_its_output(settings: Settings, shelf: Shelf) -> None:
    path, _ = shelf.put(expires_in=timedelta(seconds=60))
    with served_with(settings, s3_public_endpoint=settings.s3_endpoint) as client:
        link = client.get(path).headers["Location"]

    found = re.search(r"X-Amz-Expires=(\d+)", link)
    assert found
    assert 1 <= int(found[1]) <= 60
