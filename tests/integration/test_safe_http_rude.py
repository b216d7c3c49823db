"""The door to customers' addresses, against hosts that send too much, too slowly, or nonsense."""

import gzip
import socket
import time
from datetime import timedelta

import pytest

from app.errors import TooLarge, Unreachable
from tests.servers.strangers import (
    LIMIT,
    Script,
    Stranger,
    answers,
    chunked,
    dripping,
    ended,
    guard,
    head,
    redirect,
    says,
    silence,
    stranger,
)

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40


def endless(host: Stranger, line: socket.socket) -> None:
    while not host.leaving.is_set():
        line.sendall(b"\0" * 65536)


def crumbs(host: Stranger, line: socket.socket) -> None:
    line.sendall(head("Transfer-Encoding: chunked"))
    while not host.leaving.is_set():
        line.sendall(b"1;" + b"x" * 500 + b"\r\n\0\r\n")


def trailers(host: Stranger, line: socket.socket) -> None:
    line.sendall(head("Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\n")
    while not host.leaving.is_set():
        line.sendall(b"X: y\r\n" * 100)


def without_length(host: Stranger, line: socket.socket) -> None:
    line.sendall(head("Content-Type: image/png"))
    endless(host, line)


def long_status(host: Stranger, line: socket.socket) -> None:
    line.sendall(b"HTTP/1.1 200 ")
    endless(host, line)


def many_headers(host: Stranger, line: socket.socket) -> None:
    line.sendall(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 50_000 + b"\r\nZ: " + b"y" * 50_000 + b"\r\n\r\n")
    silence(host, line)


def go_on(host: Stranger, line: socket.socket) -> None:
    while not host.leaving.is_set():
        line.sendall(head(status="100 Continue") * 100)


@pytest.mark.parametrize(
    "script",
    [
        answers(b"\0" * (LIMIT + 1)),
        says(head(f"Content-Length: {10**15}")),
        says(head(), b"\0" * (LIMIT + 1)),
        *[chunked, crumbs, trailers, without_length, long_status, many_headers, go_on],
    ],
)
def test_more_than_is_taken_is_refused_before_it_is_all_here(script: Script) -> None:
    with stranger(script) as host:
        with pytest.raises(TooLarge):
            guard().fetch(host.url)
        assert ended(host)


def test_just_as_much_as_is_taken_is_taken_and_a_caller_may_take_less() -> None:
    with stranger(answers(b"\0" * LIMIT)) as host:
        assert len(guard().fetch(host.url).data) == LIMIT
        with pytest.raises(TooLarge, match="49,999 bytes"):
            guard().fetch(host.url, max_bytes=LIMIT - 1)


@pytest.mark.parametrize("size", [64, 1024, 16_384])
def test_a_file_may_come_in_chunks(size: int) -> None:
    pieces = [PICTURE[begin : begin + size] for begin in range(0, len(PICTURE), size)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])
    with stranger(says(head("Transfer-Encoding: chunked"), body)) as host:
        assert guard().fetch(host.url, max_bytes=len(PICTURE)).data == PICTURE


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip", "deflate", "br", "zstd", "identity, gzip"])
def test_a_decompression_bomb_is_refused_unopened(coding: str) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    assert len(bomb) < LIMIT
    with stranger(answers(bomb, f"Content-Encoding: {coding}")) as host:
        with pytest.raises(Unreachable, match="compressed"):
            guard().fetch(host.url)
        assert ended(host)


def test_what_is_packed_in_secret_stays_packed() -> None:
    bomb = gzip.compress(bytes(10_000_000))
    for headers in (["Content-Type: application/gzip"], ["Content-Encoding: identity"], []):
        with stranger(answers(bomb, *headers)) as host:
            assert guard().fetch(host.url).data == bomb


SLOW = {
    "silence": silence,
    "status": dripping(),
    "headers": dripping(b"HTTP/1.1 200 OK\r\n", piece=b"a: b\r\n"),
    "continue": dripping(piece=head(status="100 Continue")),
    "body": dripping(head("Content-Length: 5000")),
    "body without a length": dripping(head()),
    "chunks": dripping(head("Transfer-Encoding: chunked"), piece=b"1\r\nx\r\n"),
    "chunk's size": dripping(head("Transfer-Encoding: chunked"), piece=b"0"),
    "trailers": dripping(head("Transfer-Encoding: chunked"), b"0\r\n", piece=b"a: b\r\n"),
}


@pytest.mark.parametrize("name", list(SLOW))
def test_whatever_drips_the_whole_ends_in_time(name: str) -> None:
    with stranger(SLOW[name]) as host:
        begun = time.monotonic()
        with pytest.raises(Unreachable, match="within the time") as caught:
            guard(timeout=0.3).fetch(host.url)
        assert 0.2 < time.monotonic() - begun < 2
        assert caught.value.retryable
        assert ended(host)


def test_all_redirects_together_have_the_time_of_one_fetch() -> None:
    def late(host: Stranger, line: socket.socket) -> None:
        host.leaving.wait(0.2)
        redirect("/again")(host, line)

    with stranger(late) as host:
        with pytest.raises(Unreachable, match="within the time"):
            guard(timeout=0.5).fetch(host.url)
        assert len(host.requests) == 3


@pytest.mark.parametrize(
    ("script", "sentence", "retryable"),
    [
        (says(), "hung up before", True),
        (says(head("Content-Length: 100"), b"half"), "broke off", True),
        (says(head("Transfer-Encoding: chunked"), b"5\r\nhal"), "broke off", True),
        (says(head("Transfer-Encoding: chunked"), b"minus one\r\n"), "broke off", True),
        (says(head("Content-Length: 1, 2")), "not answer in HTTP", False),
        (says(b"SSH-2.0-OpenSSH_9.2\r\n"), "not answer in HTTP", False),
        (says(b"HTTP/9 200 OK\r\n\r\n"), "not answer in HTTP", False),
        (says(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 200, b"\r\n"), "not answer in HTTP", False),
    ],
)
def test_a_host_that_breaks_off_or_talks_nonsense_is_told(
    script: Script, sentence: str, *, retryable: bool
) -> None:
    with stranger(script) as host:
        with pytest.raises(Unreachable, match=sentence) as caught:
            guard().fetch(host.url)
        assert (caught.value.retryable, caught.value.status) == (retryable, None)
        assert ended(host)


def test_a_host_that_accepts_no_connection_is_told() -> None:
    with stranger(answers()) as host:
        gone = host.url
    with pytest.raises(Unreachable, match="accepts no connection") as caught:
        guard().fetch(gone)
    assert caught.value.retryable


def test_an_answer_shorter_than_what_follows_it_is_cut_where_it_says() -> None:
    with stranger(says(head("Content-Length: 4"), b"data and more")) as host:
        assert guard().fetch(host.url).data == b"data"


def test_of_a_body_that_drips_or_breaks_off_the_status_is_enough() -> None:
    for script, kept in (
        (says(head("Content-Length: 100"), b"half"), b"half"),
        (says(head("Transfer-Encoding: chunked"), b"4\r\nhalf\r\nzz"), b"half"),
        (says(head("Content-Encoding: gzip"), b"not gzip"), b"not gzip"),
        (without_length, b"\0" * 1024),
        (dripping(head("Content-Length: 1000"), b"begun"), b"begun"),
    ):
        with stranger(script) as host:
            begun = time.monotonic()
            answer = guard(timeout=30).post(host.url, body=b"", headers={})
            assert answer.status == 200
            assert answer.body.startswith(kept)
            assert time.monotonic() - begun < 5


@pytest.mark.parametrize("name", ["silence", "status", "headers", "continue"])
def test_a_receiver_that_does_not_answer_is_not_waited_for(name: str) -> None:
    with stranger(SLOW[name]) as host:
        begun = time.monotonic()
        with pytest.raises(Unreachable) as caught:
            guard().post(host.url, body=b"{}", headers={}, timeout=timedelta(seconds=0.3))
        assert time.monotonic() - begun < 2
        assert caught.value.retryable
        assert ended(host)


def test_a_receiver_that_never_reads_the_body_is_not_waited_for() -> None:
    def deaf(host: Stranger, _line: socket.socket) -> None:
        host.leaving.wait()

    with stranger(deaf, reads_bodies=False) as host:
        begun = time.monotonic()
        with pytest.raises(Unreachable, match="within the time"):
            guard(timeout=0.5).post(host.url, body=bytes(30_000_000), headers={})
        assert time.monotonic() - begun < 3
