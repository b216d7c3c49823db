"""What Darkroom promises of its store, on each S3 server that it is tested with."""

import hashlib
import http.client
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from pydantic import SecretStr

from app.errors import ObjectCorrupt, ObjectMissing, RangeNotSatisfiable, SetupError, StorageDown
from app.storage import Storage, input_key, open_store, output_key
from tests import servers
from tests.servers import Server

BYTES = bytes(range(256)) * 300
"""76,800 bytes: more than a chunk, less than two."""


@pytest.fixture(scope="session", params=["rclone", "swift"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    state = tmp_path_factory.mktemp(request.param)
    if request.param == "swift" and (reason := servers.why_not_swift(state)):
        pytest.skip(reason)
    running: Server = getattr(servers, request.param)(state)
    running.start()
    yield running
    running.end()


@pytest.fixture
def store(server: Server) -> Storage:
    opened = open_store(server.settings)
    opened.ensure_bucket()
    return opened


@pytest.fixture
def key() -> str:
    return f"{uuid4()}/object.png"


def put(store: Storage, key: str, data: bytes = BYTES) -> None:
    store.put(key, data, media_type="image/png")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def fetch(link: str) -> tuple[int, bytes, dict[str, str]]:
    url = urlsplit(link)
    with closing(http.client.HTTPConnection(url.netloc, timeout=5)) as connection:
        connection.request("GET", f"{url.path}?{url.query}")
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())


@pytest.mark.parametrize("size", [0, 1, 70_000, 6_000_000])
def test_bytes_come_back_as_they_were_put(store: Storage, key: str, size: int) -> None:
    data = BYTES * (size // len(BYTES)) + BYTES[: size % len(BYTES)]
    put(store, key, data)
    assert store.get(key) == data
    assert store.get_verified(key, sha256=hashlib.sha256(data).hexdigest()) == data


def test_other_bytes_than_promised_are_refused(store: Storage, key: str) -> None:
    put(store, key)
    with pytest.raises(ObjectCorrupt, match="not 0000"):
        store.get_verified(key, sha256="0" * 64)


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, None, BYTES),
        (0, 1, BYTES[:1]),
        (10, 20, BYTES[10:30]),
        (len(BYTES) - 1, None, BYTES[-1:]),
        (len(BYTES) - 5, 100, BYTES[-5:]),
        (0, 2 * len(BYTES), BYTES),
    ],
)
def test_a_range_gives_the_bytes_that_there_are(
    store: Storage, key: str, offset: int, length: int | None, expected: bytes
) -> None:
    put(store, key)
    stream = store.open_range(key, offset=offset, length=length)
    assert stream.length == len(expected)
    assert b"".join(stream) == expected


def test_a_range_beyond_the_end_is_said_to_be_one(store: Storage, key: str) -> None:
    put(store, key)
    with pytest.raises(RangeNotSatisfiable):
        store.open_range(key, offset=len(BYTES))


def test_a_stream_comes_in_chunks_and_may_be_left_early(store: Storage, key: str) -> None:
    put(store, key, BYTES * 20)
    sockets = open_files()
    streams = [store.open_range(key) for _ in range(40)]  # more than the pool keeps
    assert open_files() > sockets + 30
    for stream in streams:
        assert len(next(iter(stream))) == 64 * 1024
        stream.close()
        stream.close()
    assert open_files() < sockets + 10
    assert len(store.get(key)) == 20 * len(BYTES)


def test_stat_gives_size_and_time(store: Storage, key: str) -> None:
    before = datetime.now(UTC)
    put(store, key)
    found = store.stat(key)
    assert (found.key, found.size) == (key, len(BYTES))
    assert abs(found.last_modified - before) < timedelta(seconds=5)


def test_a_missing_object_is_missing_in_every_call(store: Storage, key: str) -> None:
    for call in (store.get, store.stat, store.open_range):
        with pytest.raises(ObjectMissing, match=key):
            call(key)
    assert not store.exists(key)
    assert store.delete([key]) == {}
    assert list(store.list(key)) == []


def test_the_same_bytes_may_be_put_again(store: Storage, key: str) -> None:
    put(store, key)
    put(store, key)
    assert store.exists(key)
    assert [found.key for found in store.list(key)] == [key]


def test_our_keys_and_unusual_ones_work_everywhere(store: Storage) -> None:
    unusual = f"{uuid4()}/a b+c%20d&e=f~(é)'.png"
    made = {"sha256": "ab" * 32, "extension": "png"}
    drawn = output_key(uuid4(), date(2026, 1, 2), job_id=uuid4(), attempt=1, index=0, **made)
    sent = input_key(uuid4(), date(2026, 1, 2), upload_id=uuid4(), role="init_image", **made)
    for key in (unusual, drawn, sent):
        put(store, key)
        assert store.get(key) == BYTES
        assert [(found.key, found.size) for found in store.list(key[:40])] == [(key, len(BYTES))]
        assert store.delete([key]) == {}
        assert not store.exists(key)


def test_a_bulk_delete_takes_any_number_of_keys_there_or_not(
    server: Server, store: Storage, key: str
) -> None:
    there = [f"{key}/{n}" for n in range(20)]
    for name in there:
        put(store, name, b"x")
    assert store.delete([*there, *(f"{key}/missing-{n}" for n in range(server.many))]) == {}
    assert list(store.list(key)) == []


def test_a_listing_goes_over_pages_in_order_and_resumes(server: Server, store: Storage, key: str) -> None:
    names = [f"{key}/{n:04}" for n in range(server.many)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: put(store, name, b"x"), names))
    assert [found.key for found in store.list(key)] == names
    assert [found.key for found in store.list(key, start_after=names[50])] == names[51:]


def test_a_wrong_secret_is_a_matter_of_settings(server: Server, store: Storage, key: str) -> None:
    put(store, key)
    wrong = open_store(server.settings.model_copy(update={"s3_secret_key": SecretStr("wrong")}))
    for call in (wrong.ensure_bucket, wrong.check, lambda: wrong.get(key), lambda: wrong.stat(key)):
        with pytest.raises(SetupError, match="DARKROOM_S3_SECRET_KEY"):
            call()
    with pytest.raises(SetupError, match="DARKROOM_S3_SECRET_KEY"):
        put(wrong, key)
    with pytest.raises(SetupError, match="DARKROOM_S3_SECRET_KEY"):
        wrong.delete([key])


def test_a_missing_bucket_is_never_taken_for_missing_objects(server: Server, key: str) -> None:
    lost = open_store(server.settings.model_copy(update={"s3_bucket": f"lost-{uuid4()}"}))
    calls = (lost.get, lost.stat, lost.exists, lambda key: put(lost, key), lambda key: lost.delete([key]))
    for call in (*calls, lambda _: lost.check(), lambda key: list(lost.list(key))):
        with pytest.raises(StorageDown, match=r"no bucket 'lost-.*DARKROOM_S3_BUCKET"):
            call(key)


def test_many_may_create_the_bucket_at_once(server: Server, key: str) -> None:
    settings = server.settings.model_copy(update={"s3_bucket": f"new-{uuid4()}"})
    with ThreadPoolExecutor(8) as pool:
        for created in [pool.submit(open_store(settings).ensure_bucket) for _ in range(8)]:
            created.result()
    put(open_store(settings), key)


def test_a_link_works_for_anybody_until_it_expires(store: Storage, key: str) -> None:
    put(store, key)
    link = store.presigned_get(
        key, expires=timedelta(seconds=2), filename='näh "x".png', media_type="image/webp"
    )
    status, data, headers = fetch(link)
    assert (status, data, headers["Content-Type"]) == (200, BYTES, "image/webp")
    assert headers["Content-Disposition"] == (
        "inline; filename=\"n_h _x_.png\"; filename*=UTF-8''n%C3%A4h%20%22x%22.png"
    )
    assert fetch(link.replace("X-Amz-Expires=2", "X-Amz-Expires=9"))[0] == 403
    assert fetch(link.replace(key, key.replace("object", "secret")))[0] == 403
    deadline = time.monotonic() + 10
    while fetch(link)[0] == 200:
        assert time.monotonic() < deadline
    assert fetch(link)[0] in (400, 403)


def test_a_stopped_store_is_down_and_works_again_after_its_start(
    server: Server, store: Storage, key: str
) -> None:
    put(store, key)
    server.end()
    try:
        begun = time.monotonic()
        for call in (store.get, store.stat, lambda key: put(store, key), lambda key: store.delete([key])):
            with pytest.raises(StorageDown, match="does not answer"):
                call(key)
        assert time.monotonic() - begun < 5
    finally:
        server.start()
    assert store.get(key) == BYTES


def test_a_silent_store_is_down_after_the_read_timeout(server: Server, store: Storage, key: str) -> None:
    put(store, key)
    impatient = open_store(server.settings, read_timeout=timedelta(seconds=0.3))
    server.send(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        with pytest.raises(StorageDown, match="does not answer"):
            impatient.get(key)
        assert time.monotonic() - begun < 2
    finally:
        server.send(signal.SIGCONT)
    assert store.get(key) == BYTES


def test_what_was_put_outlives_a_kill(server: Server, store: Storage, key: str) -> None:
    put(store, key)
    server.end(signal.SIGKILL)
    server.start()
    assert store.get(key) == BYTES
    assert store.stat(key).size == len(BYTES)


def test_threads_share_a_store(store: Storage, key: str) -> None:
    def work(thread: int) -> None:
        for n in range(20):
            put(store, f"{key}/{thread}/{n}", BYTES[: 1000 * thread + n])
        assert store.get(f"{key}/{thread}/19") == BYTES[: 1000 * thread + 19]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert sum(1 for _ in store.list(key)) == 160
