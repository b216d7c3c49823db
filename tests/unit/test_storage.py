"""What `app.storage` makes of keys, settings and every odd answer a store can give."""

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest

from app.errors import DarkroomError, ObjectCorrupt, ObjectMissing, SetupError, StorageDown
from app.settings import Settings
from app.storage import Storage, input_key, open_store, output_key

ID = UUID("0190a8b0-0000-7000-8000-000000000001")
SHA256 = "0123456789abcdef" * 4
NOWHERE = "http://127.0.0.1:1"
MODIFIED = "Sat, 21 Nov 2026 08:44:48 GMT"

Answer = tuple[int, dict[str, str], bytes]
Script = Callable[[str, str, bytes], Answer]
"""Method, path with query, and body of a request → status, headers and body of the answer."""
Serve = Callable[[Script], AbstractContextManager[Storage]]


def settings(**changes: str) -> Settings:
    given = {"s3_endpoint": NOWHERE, "s3_access_key": "access", "s3_secret_key": "secret", **changes}
    return Settings(
        database_url="postgresql://unused",
        broker_url="redis://unused",
        secret_key="x" * 32,
        **given,  # type: ignore[arg-type]  # pydantic makes secrets of them
    )


@contextmanager
def scripted(script: Script, *, pause: float = 0) -> Iterator[Storage]:
    """Give a storage whose store is a real HTTP server that answers by this script.

    It takes `pause` seconds for every 64 KiB that it reads, as if on a slow line.
    """

    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline()
            if not self.raw_requestline or not self.parse_request():
                return
            missing, body = int(self.headers.get("Content-Length", "0")), b""
            while missing > len(body):
                body += self.rfile.read(min(missing - len(body), 64 * 1024))
                threading.Event().wait(pause)
            status, headers, answer = script(self.command, self.path, body)
            self.send_response_only(status)
            for name, value in {"Content-Length": str(len(answer)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else answer)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if pause:
            server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        limit = timedelta(seconds=0.3)
        silence = timedelta(seconds=10) if pause else limit  # what is sent may wait long in buffers
        yield open_store(settings(s3_endpoint=endpoint), connect_timeout=limit, read_timeout=silence)
        server.shutdown()
        thread.join()


def error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>said so</Message></Error>".encode()


def keeping(*, etag: Callable[[bytes], str], damage: bytes = b"") -> tuple[dict[str, bytes], Script]:
    """Give what a store of one bucket holds, and its script: it spoils what it is sent by `damage`."""
    held: dict[str, bytes] = {}

    def script(method: str, path: str, body: bytes) -> Answer:
        if method == "PUT":
            held[path] = body + damage
            return 200, {"ETag": f'"{etag(held[path])}"'}, b""
        if method == "POST":
            held.clear()
            return 200, {}, b"<DeleteResult/>"
        return 200, {"ETag": f'"{etag(held[path])}"', "Last-Modified": MODIFIED}, held[path]

    return held, script


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def test_keys_carry_account_day_job_attempt_and_hash() -> None:
    drawn = output_key(ID, date(2026, 1, 2), job_id=ID, attempt=3, index=1, sha256=SHA256, extension="png")
    assert drawn == f"outputs/{ID}/2026/01/02/{ID}/3/1-0123456789abcdef.png"
    sent = input_key(ID, date(2026, 11, 12), upload_id=ID, role="mask_image", sha256=SHA256, extension="jpg")
    assert sent == f"inputs/{ID}/2026/11/12/{ID}/mask_image-0123456789abcdef.jpg"


@pytest.mark.parametrize("key", ["", "/a", "a//b", "a/", "a/../b", "./a", "a\nb", "a\ud800", "x" * 1025])
def test_keys_that_no_store_takes_are_refused_without_asking_one(key: str) -> None:
    store = open_store(settings())
    for call in (store.get, store.stat, store.exists, lambda key: store.put(key, b"", media_type="a/b")):
        with pytest.raises(DarkroomError, match="cannot be the key") as caught:
            call(key)
        assert not caught.value.retryable
    assert list(store.delete([key])) == [key]


@pytest.mark.parametrize(
    "changes",
    [
        {"s3_endpoint": "127.0.0.1:9000"},
        {"s3_endpoint": "ftp://store"},
        {"s3_endpoint": "http://store/with/path"},
        {"s3_endpoint": "http://store:port"},
        {"s3_public_endpoint": "images.example"},
        {"s3_bucket": "A"},
    ],
)
def test_malformed_settings_are_named(changes: dict[str, str]) -> None:
    with pytest.raises(SetupError, match="DARKROOM_S3_"):
        open_store(settings(**changes))


def test_links_are_for_the_public_endpoint_and_ask_nobody() -> None:
    store = open_store(settings(s3_public_endpoint="https://images.example/"))
    for expires, seconds in ((1.9, "1"), (0, "1"), (-5, "1"), (3600, "3600"), (10**8, "604800")):
        link = store.presigned_get(
            "a b.png", expires=timedelta(seconds=expires), filename="x", media_type="image/png"
        )
        url = urlsplit(link)
        assert (url.scheme, url.netloc, url.path) == ("https", "images.example", "/darkroom/a%20b.png")
        assert parse_qs(url.query)["X-Amz-Expires"] == [seconds]


def test_links_need_a_public_endpoint() -> None:
    with pytest.raises(SetupError, match="DARKROOM_S3_PUBLIC_ENDPOINT"):
        open_store(settings()).presigned_get(
            "a", expires=timedelta(hours=1), filename="x", media_type="image/png"
        )


@pytest.mark.parametrize("media_type", ["application/xml", "text/xml; charset=utf-8"])
@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (404, "NoSuchKey", ObjectMissing),
        (404, "NoSuchBucket", StorageDown),
        (403, "SignatureDoesNotMatch", SetupError),
        (403, "RequestTimeTooSkewed", SetupError),
        (400, "AuthorizationHeaderMalformed", SetupError),
        (301, "PermanentRedirect", SetupError),
        (501, "NotImplemented", SetupError),
        (400, "XAmzContentSHA256Mismatch", ObjectCorrupt),
        (409, "OperationAborted", StorageDown),
        (429, "SlowDown", StorageDown),
        (500, "InternalError", StorageDown),
        (503, "SlowDown", StorageDown),
        (507, "XMinioStorageFull", StorageDown),
    ],
)
def test_each_refusal_has_its_error(
    media_type: str, status: int, code: str, expected: type[DarkroomError]
) -> None:
    # A wait of an hour must not be ours to wait.
    headers = {"Content-Type": media_type, "Retry-After": "3600", "Location": "http://127.0.0.1:1/"}
    with scripted(lambda *_: (status, headers, error(code))) as store:
        with pytest.raises(expected) as caught:
            store.get("a")
        assert caught.value.retryable is (expected in (StorageDown, ObjectCorrupt))
        with pytest.raises(expected):
            store.put("a", b"x", media_type="image/png")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((502, {"Content-Type": "text/html"}, b"<h1>Bad gateway</h1>"), StorageDown),
        ((503, {}, b""), StorageDown),
        # Not "missing": the endpoint is something else than an S3 store.
        ((404, {"Content-Type": "text/html"}, b"<h1>Nothing here</h1>"), SetupError),
        ((500, {"Content-Type": "application/xml"}, b"not xml"), StorageDown),
        ((500, {"Content-Type": "text/xml"}, b"\xff\xfe"), StorageDown),
        ((200, {"Content-Length": "9"}, b"short"), StorageDown),
        ((200, {"Content-Length": "many"}, b""), StorageDown),
    ],
)
def test_an_answer_that_is_not_s3_has_its_error_too(answer: Answer, expected: type[DarkroomError]) -> None:
    with scripted(lambda *_: answer) as store, pytest.raises(expected):
        store.get("a")


def test_a_listing_that_is_not_xml_is_an_error() -> None:
    with scripted(lambda *_: (200, {}, b"hello")) as store, pytest.raises(StorageDown, match="not S3"):
        list(store.list(""))


def test_a_store_that_ignores_ranges_is_refused() -> None:
    with scripted(lambda *_: (200, {}, b"everything")) as store, pytest.raises(SetupError, match="Range"):
        store.open_range("a", offset=3)


@pytest.mark.parametrize(("offset", "length"), [(-1, None), (0, 0), (5, -1)])
def test_a_range_that_makes_no_sense_is_the_callers_mistake(offset: int, length: int | None) -> None:
    with pytest.raises(ValueError, match="no range"):
        open_store(settings()).open_range("a", offset=offset, length=length)


def test_bytes_that_the_store_spoiled_are_noticed_and_deleted() -> None:
    held, script = keeping(etag=md5, damage=b"!")
    with scripted(script) as store, pytest.raises(ObjectCorrupt):
        store.put("a", b"picture", media_type="image/png")
    assert held == {}


def test_a_spoiled_object_under_a_right_etag_is_noticed_by_its_size() -> None:
    held, script = keeping(etag=lambda held: md5(held[:7]), damage=b"!")
    with scripted(script) as store, pytest.raises(ObjectCorrupt):
        store.put("a", b"picture", media_type="image/png")
    assert held == {}


def test_an_encrypted_bucket_with_etags_of_its_own_is_believed_when_the_bytes_are_right() -> None:
    held, script = keeping(etag=lambda _: "not-an-md5")
    with scripted(script) as store:
        store.put("a", b"picture", media_type="image/png")
    assert list(held.values()) == [b"picture"]


def test_a_hiccup_is_repeated_and_not_seen() -> None:
    asked = []

    def script(method: str, _: str, body: bytes) -> Answer:
        asked.append((method, body))
        if len(asked) <= 2:
            return 503, {"Content-Type": "application/xml"}, error("SlowDown")
        return 200, {"ETag": md5(b"picture"), "Last-Modified": MODIFIED}, b"picture"

    with scripted(script) as store:
        store.put("a", b"picture", media_type="image/png")
    assert asked == [("PUT", b"picture")] * 3 + [("HEAD", b"")]


def test_a_timeout_is_not_repeated() -> None:
    asked, may_answer = [], threading.Event()

    def script(method: str, _: str, __: bytes) -> Answer:
        asked.append(method)
        may_answer.wait(10)
        return 500, {}, b""

    with scripted(script) as store:
        begun = time.monotonic()
        with pytest.raises(StorageDown, match="does not answer"):
            store.get("a")
        assert time.monotonic() - begun < 2
        may_answer.set()
    assert asked == ["GET"]


def test_a_slow_line_has_the_connect_timeout_for_each_piece_and_not_for_the_whole() -> None:
    held, script = keeping(etag=md5)
    with scripted(script, pause=0.01) as store:
        begun = time.monotonic()
        store.put("a", bytes(8_000_000), media_type="image/png")
        assert time.monotonic() - begun > 0.6  # two limits: a request that timed out had not got so far
    assert [len(data) for data in held.values()] == [8_000_000]


def test_a_bulk_delete_tells_what_is_left() -> None:
    answer = (
        b"<DeleteResult><Error><Key>b</Key><Code>AccessDenied</Code><Message>locked</Message></Error>"
        b"<Error><Key>c</Key><Code>NoSuchKey</Code></Error></DeleteResult>"
    )
    with scripted(lambda *_: (200, {}, answer)) as store:
        assert store.delete(["a", "b", "c", "d//e"]) == {
            "b": "AccessDenied: locked",
            "d//e": "it has an unprintable character, or a part that is empty, '.' or '..'",
        }


def test_a_bulk_delete_refused_as_a_whole_is_an_error() -> None:
    with (
        scripted(lambda *_: (200, {}, error("InternalError"))) as store,
        pytest.raises(StorageDown, match="InternalError"),
    ):
        store.delete(["a"])
