"""An image's base64 text at its `.base64` URL: the very image, known before it exists, gone with it."""

import base64
import hashlib
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import web
from app.db import Database
from app.settings import Settings
from app.storage import Storage
from tests import rows
from tests.conftest import Account

HOUR = timedelta(hours=1)
KB = 1024


@pytest.fixture(scope="module")
def flask(base_settings: Settings) -> Iterator[Flask]:
    """One application for all tests of this file."""
    made = web.create_app(base_settings)
    yield made
    web.close(made)


def put(
    data: bytes, database: Database, storage: Storage, owner: Account, *, expires_in: timedelta = HOUR
) -> str:
    """An output with these bytes; gives the path of its text."""
    prefix = uuid4()
    ended: dict[str, Any] = {"status": "completed", "started_at": "now()", "finished_at": "now()"}
    job_id = rows.insert_job(database, owner.id, output_prefix=prefix, **ended)
    key = f"outputs/{job_id}/0.png"
    storage.put(key, data, media_type="image/png")
    rows.insert_output(
        database,
        job_id,
        key=key,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        expires_in=expires_in,
    )
    return f"/outputs/{prefix.hex}-0.base64"


@pytest.mark.parametrize("size", [1, 2, 3, 4, 64 * KB - 1, 64 * KB, 64 * KB + 1, 200_001])
def test_the_text_is_that_of_the_whole_image_however_it_is_read(
    size: int, client: FlaskClient, database: Database, storage: Storage, account: Account
) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    path = put(data[:size], database, storage, account)

    answer = client.get(path)
    head = client.head(path)

    assert answer.status_code == head.status_code == 200
    assert answer.data == base64.b64encode(data[:size])
    assert head.data == b""
    for each in (answer, head):
        assert each.mimetype == "text/plain"
        assert each.headers["Content-Length"] == str(len(answer.data))
        assert each.headers["Accept-Ranges"] == "none"
        assert each.headers["X-Content-Type-Options"] == "nosniff"
        assert re.fullmatch(r"private, max-age=\d+", each.headers["Cache-Control"])
        assert each.headers["Content-Disposition"].endswith('.base64"')


def test_who_has_the_text_is_told_so_and_a_range_of_it_is_the_whole(
    client: FlaskClient, database: Database, storage: Storage, account: Account
) -> None:
    path = put(b"abcdef", database, storage, account)
    image = client.get(path.replace(".base64", ".png"))
    text = client.get(path)

    again = client.get(path, headers={"If-None-Match": text.headers["ETag"]})
    of_image = client.get(path, headers={"If-None-Match": image.headers["ETag"]})
    ranged = client.get(path, headers={"Range": "bytes=0-1"})

    assert (again.status_code, again.data) == (304, b"")
    assert (of_image.status_code, of_image.data) == (200, b"YWJjZGVm")
    assert (ranged.status_code, ranged.data) == (200, b"YWJjZGVm")


def test_before_it_exists_it_is_a_404_that_no_cache_keeps_and_afterwards_410(
    client: FlaskClient, database: Database, storage: Storage, account: Account
) -> None:
    path = put(b"abc", database, storage, account, expires_in=-HOUR)

    early, late = client.get(f"/outputs/{uuid4().hex}-0.base64"), client.get(path)

    assert (early.status_code, early.headers["Cache-Control"]) == (404, "no-store")
    assert early.content_type == "application/json"
    assert late.status_code == 410


def test_it_is_streamed_also_where_images_are_redirected_to_the_store(
    settings: Settings, database: Database, storage: Storage, account: Account
) -> None:
    public = settings.model_copy(update={"s3_public_endpoint": settings.s3_endpoint})
    flask = web.create_app(public)
    try:
        path = put(b"abc", database, storage, account)
        with closing(flask.test_client().get(path)) as text:
            assert (text.status_code, text.data) == (200, b"YWJj")
        assert flask.test_client().get(path.replace(".base64", ".png")).status_code == 302
    finally:
        web.close(flask)
