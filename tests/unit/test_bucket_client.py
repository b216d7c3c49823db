"""A customer's bucket that answers in every odd way a stranger's server can."""

import hashlib
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from app import safe_http
from app.buckets import CustomerBucket, Place
from app.buckets.client import Keys
from app.buckets.targets import try_out
from app.errors import BucketDown, BucketError, BucketRefused
from app.settings import Settings

SECRET = "hush-hush-hush"
DATA = bytes(range(256)) * 40
SOON = timedelta(seconds=5)
MODIFIED = "Sat, 21 Nov 2026 08:44:48 GMT"

Answer = tuple[int, dict[str, str], bytes]


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Script = Callable[[Request], Answer]


@dataclass
class Stranger:
    """A server with one bucket named pictures; it keeps what it is sent unless its script answers first."""

    script: Script | None = None
    etag: Callable[[bytes], str] = md5
    pause: float = 0.0
    """Seconds before each byte of an answer."""
    asked: list[Request] = field(default_factory=list)
    held: dict[str, bytes] = field(default_factory=dict)
    connections: int = 0

    def answer(self, request: Request) -> Answer:
        self.asked.append(request)
        if self.script is not None and (scripted := self.script(request))[0]:
            return scripted
        if request.method == "PUT":
            self.held[request.path] = request.body
        elif request.method == "DELETE":
            self.held.pop(request.path, None)
            return 204, {}, b""
        if request.path not in self.held:
            return 404, {}, error("NoSuchKey")
        data = self.held[request.path]
        return 200, {"ETag": f'"{self.etag(data)}"', "Last-Modified": MODIFIED}, data


class Quiet(ThreadingHTTPServer):
    """A server that does not tell of clients that hang up: here that is what they should."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        del request, client_address


KEEP: Answer = (0, {}, b"")
"""What a script gives where the server shall do as S3 does."""


def error(code: str, message: str = f"you sent {SECRET} from 10.0.0.7") -> bytes:
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


def xml(status: int, code: str) -> Answer:
    return status, {"Content-Type": "application/xml"}, error(code)


@contextmanager
def serving(
    stranger: Stranger, *, in_host: bool = False, exchange: timedelta = SOON
) -> Iterator[CustomerBucket]:
    """Give the bucket on a real HTTP server, reached through the guard."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            stranger.connections += 1
            super().setup()

        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline()
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            request = Request(self.command, self.path, dict(self.headers.items()), body)
            status, headers, data = stranger.answer(request)
            shown = {"Content-Length": str(len(data)), **headers}
            head = "".join(f"{name}: {value}\r\n" for name, value in shown.items() if value)
            whole = f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + (b"" if self.command == "HEAD" else data)
            if not stranger.pause:
                self.wfile.write(whole)
                return
            for n in range(len(whole)):
                if ended.wait(stranger.pause):
                    return
                self.wfile.write(whole[n : n + 1])

    settings = Settings(
        database_url="postgresql://unused",
        broker_url="redis://unused",
        s3_endpoint="http://unused",
        s3_access_key="unused",
        s3_secret_key="unused",
        secret_key="x" * 32,
        bucket_allow=("127.0.0.1",),
    )
    guard = safe_http.for_buckets(settings, resolver=lambda _host, _port: ["127.0.0.1"])
    with Quiet(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        host = "s3.stranger.example" if in_host else "127.0.0.1"
        yield CustomerBucket(
            Place(server=f"http://{host}:{server.server_port}", bucket="pictures", in_host=in_host),
            region="us-east-1",
            directory="my pics",
            keys=Keys(access="AKIA", secret=SECRET),
            pool=safe_http.guarded_pool(guard, exchange=exchange),
        )
        ended.set()
        server.shutdown()
        thread.join()


def put(bucket: CustomerBucket, data: bytes = DATA, *, within: timedelta = SOON) -> None:
    bucket.put("a-0.png", data, media_type="image/png", within=within)


def test_an_object_arrives_public_under_its_directory_and_is_checked() -> None:
    stranger = Stranger()
    with serving(stranger) as bucket:
        put(bucket)
        assert bucket.get("a-0.png", longest=10, within=SOON) == DATA[:10]
        bucket.delete("a-0.png", within=SOON)

    assert [(one.method, one.path) for one in stranger.asked] == [
        (method, "/pictures/my%20pics/a-0.png") for method in ("PUT", "HEAD", "GET", "DELETE")
    ]
    sent = stranger.asked[0]
    assert (sent.headers["x-amz-acl"], sent.headers["Content-Type"]) == ("public-read", "image/png")
    assert sent.body == DATA
    assert stranger.held == {}


def test_a_bucket_named_by_its_host_stays_there() -> None:
    stranger = Stranger()
    with serving(stranger, in_host=True) as bucket:
        put(bucket)

    assert {one.path for one in stranger.asked} == {"/my%20pics/a-0.png"}
    assert all(one.headers["Host"].startswith("pictures.s3.stranger.example:") for one in stranger.asked)


@pytest.mark.parametrize("answer", [xml(400, "AccessControlListNotSupported"), xml(501, "NotImplemented")])
def test_a_store_without_acls_is_asked_again_without_one_and_remembered(answer: Answer) -> None:
    stranger = Stranger(lambda request: answer if "x-amz-acl" in request.headers else KEEP)
    with serving(stranger) as bucket:
        put(bucket)
        put(bucket)

    sent = ["x-amz-acl" in one.headers for one in stranger.asked if one.method == "PUT"]
    assert sent == [True, False, False]
    assert list(stranger.held.values()) == [DATA]


def test_an_encrypted_buckets_etag_is_made_up_for_by_the_bytes() -> None:
    stranger = Stranger(etag=lambda _: "of-the-cipher")
    with serving(stranger) as bucket:
        put(bucket)

    assert [one.method for one in stranger.asked] == ["PUT", "HEAD", "GET"]


@pytest.mark.parametrize("kept", [DATA[:-1], DATA[:-1] + b"x", DATA + b"x", b""])
def test_bytes_that_did_not_arrive_are_noticed(kept: bytes) -> None:
    stranger = Stranger(
        lambda request: (
            KEEP
            if request.method == "DELETE"
            else (200, {"ETag": f'"{md5(kept)}"', "Last-Modified": MODIFIED}, kept)
        )
    )
    with serving(stranger) as bucket, pytest.raises(BucketDown, match="did not keep"):
        put(bucket)


@pytest.mark.parametrize(
    ("answer", "kind", "member"),
    [
        (xml(403, "SignatureDoesNotMatch"), BucketRefused, "aws_access_key_id"),
        (xml(403, "InvalidAccessKeyId"), BucketRefused, "aws_access_key_id"),
        (xml(403, "AccessDenied"), BucketRefused, "aws_access_key_id"),
        ((403, {}, b""), BucketRefused, "aws_access_key_id"),
        (
            (403, {"Content-Type": "text/xml"}, error("SignatureDoesNotMatch")),
            BucketRefused,
            "aws_access_key_id",
        ),
        (xml(404, "NoSuchBucket"), BucketRefused, "bucket"),
        (xml(400, "AuthorizationHeaderMalformed"), BucketRefused, "region_name"),
        (xml(301, "PermanentRedirect"), BucketRefused, "region_name"),
        ((302, {"Location": "http://169.254.169.254/"}, b"<a>moved</a>"), BucketRefused, "endpoint_url"),
        (xml(418, "<&>"), BucketDown, "endpoint_url"),
        (xml(405, "MethodNotAllowed"), BucketRefused, "endpoint_url"),
        (xml(403, "RequestTimeTooSkewed"), BucketDown, "endpoint_url"),
        (xml(500, "InternalError"), BucketDown, "endpoint_url"),
        (xml(503, "SlowDown"), BucketDown, "endpoint_url"),
        ((502, {}, b"<html>bad gateway</html>"), BucketDown, "endpoint_url"),
        ((200, {}, b"<html>hello</html>"), BucketDown, "endpoint_url"),
        ((200, {"ETag": ""}, b"\xff" * 200_000), BucketDown, "endpoint_url"),
        ((400, {"Content-Type": "application/xml"}, b"<" * 1000), BucketDown, "endpoint_url"),
        ((400, {"Content-Type": "application/xml"}, b"\xff\xfe"), BucketDown, "endpoint_url"),
        ((400, {"Content-Type": "application/xml"}, b"<a>" * 20_000), BucketDown, "endpoint_url"),
        ((400, {"Content-Type": "application/xml"}, b"<Error/>"), BucketRefused, "endpoint_url"),
        ((403, {"Content-Length": "999999999"}, b"cut off"), BucketDown, "endpoint_url"),
        ((200, {"Content-Length": "no number"}, b""), BucketDown, "endpoint_url"),
        ((200, {"Content-Encoding": "gzip"}, b"no gzip"), BucketDown, "endpoint_url"),
        (
            (204, {"Transfer-Encoding": "chunked", "Content-Length": ""}, b"zz\r\n"),
            BucketDown,
            "endpoint_url",
        ),
    ],
    ids=lambda value: repr(value)[:50] if isinstance(value, tuple) else None,
)
def test_every_answer_becomes_one_of_our_errors_and_quotes_nothing(
    answer: Answer, kind: type[BucketError], member: str
) -> None:
    with serving(Stranger(lambda _: answer), exchange=timedelta(seconds=1)) as bucket:
        with pytest.raises(kind) as caught:
            put(bucket)
        with pytest.raises(BucketError):
            bucket.get("a-0.png", longest=10**9, within=SOON) if answer[0] >= 400 else put(bucket)

    assert caught.value.member == member
    for told in ("".join(traceback.format_exception(caught.value)), repr(caught.value), repr(bucket)):
        assert SECRET not in told
        assert "10.0.0.7" not in told


@pytest.mark.parametrize(
    "headers", [{"Last-Modified": ""}, {"Last-Modified": "yesterday"}, {"Content-Length": "-5"}, {"ETag": ""}]
)
def test_a_head_that_says_nonsense_is_no_crash(headers: dict[str, str]) -> None:
    stranger = Stranger()
    usual = {"ETag": f'"{md5(DATA)}"', "Last-Modified": MODIFIED, "Content-Length": str(len(DATA))}
    stranger.script = lambda request: (200, {**usual, **headers}, b"") if request.method == "HEAD" else KEEP
    with serving(stranger) as bucket:
        try:
            put(bucket)
        except BucketError:
            return
    assert list(stranger.held.values()) == [DATA]


def test_details_are_good_enough_without_the_right_to_delete() -> None:
    """ModelsLab's page asks for the rights to list, put, get and set an ACL."""
    stranger = Stranger(lambda request: xml(403, "AccessDenied") if request.method == "DELETE" else KEEP)
    with serving(stranger) as bucket:
        try_out(bucket)

    assert [one.method for one in stranger.asked] == ["PUT", "HEAD", "GET", "DELETE"]


def test_details_that_give_back_something_else_are_not_good_enough() -> None:
    probe = Stranger()
    probe.script = lambda request: (
        (200, {"Last-Modified": MODIFIED}, b"never") if request.method == "GET" else KEEP
    )
    with serving(probe) as bucket, pytest.raises(BucketRefused, match="other bytes"):
        try_out(bucket)

    assert probe.held == {}  # what was written is deleted all the same


def test_a_silent_server_costs_no_more_than_the_time_given() -> None:
    with serving(Stranger(pause=60)) as bucket:
        begun = time.monotonic()
        with pytest.raises(BucketDown, match="in time"):
            put(bucket, within=timedelta(seconds=0.4))
        assert time.monotonic() - begun < 1.5


def test_an_answer_that_drips_ends_with_the_exchange() -> None:
    with serving(Stranger(pause=0.05), exchange=timedelta(seconds=0.6)) as bucket:
        begun = time.monotonic()
        with pytest.raises(BucketDown):
            put(bucket, within=timedelta(seconds=0.4))
        assert time.monotonic() - begun < 2


def test_without_time_nothing_is_asked() -> None:
    stranger = Stranger()
    with serving(stranger) as bucket, pytest.raises(BucketDown, match="in time"):
        put(bucket, within=timedelta(0))

    assert stranger.asked == []


def test_a_connection_is_used_again_and_outlives_a_client() -> None:
    """minio clears the pool of every client that is thrown away."""
    stranger = Stranger()
    with serving(stranger) as bucket:
        for _ in range(3):
            put(bucket)

    assert stranger.connections == 1
