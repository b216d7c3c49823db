"""The door under TLS, and the pool of connections that goes through it."""

import io
import socket
import time
from collections.abc import Sequence
from datetime import timedelta

import pytest
from minio import Minio
from minio.error import MinioException
from urllib3 import PoolManager, Retry
from urllib3.exceptions import HTTPError, MaxRetryError, NameResolutionError

from app.errors import ForbiddenAddress, TooLarge, Unreachable
from app.safe_http import Guard, guarded_pool
from tests.servers.strangers import (
    HERE,
    Authority,
    Names,
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

OK = b"fine"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def test_tls_is_spoken_with_the_name_and_not_with_the_address(authority: Authority) -> None:
    with stranger(answers(OK), tls=authority.host("pictures.example")) as host:
        url = f"https://pictures.example:{host.port}/a"
        fetched = guard(ca_file=authority.file).fetch(url)

        assert (fetched.data, fetched.url) == (OK, url)
        assert host.server_name == "pictures.example"
        assert f"Host: pictures.example:{host.port}" in host.head
        assert ended(host)


def test_a_certificate_for_another_name_is_refused_before_a_word_is_said(authority: Authority) -> None:
    with stranger(answers(OK), tls=authority.host("other.example")) as host:
        for name in ("pictures.example", "a.other.example", HERE):
            with pytest.raises(Unreachable, match="certificate") as caught:
                guard(ca_file=authority.file).fetch(f"https://{name}:{host.port}/")
            assert not caught.value.retryable
            assert ended(host)
        assert host.requests == []


def test_a_certificate_that_nobody_vouches_for_or_that_is_old_is_refused(authority: Authority) -> None:
    for expired, trusted in ((False, None), (True, authority.file)):
        with stranger(answers(OK), tls=authority.host("pictures.example", expired=expired)) as host:
            with pytest.raises(Unreachable, match="certificate"):
                guard(ca_file=trusted).fetch(f"https://pictures.example:{host.port}/")
            assert host.requests == []


def test_a_host_that_does_not_speak_tls_is_told() -> None:
    with stranger(silence, greeting=b"220 mail.example ESMTP\r\n") as host:
        with pytest.raises(Unreachable, match="TLS"):
            guard().fetch(f"https://pictures.example:{host.port}/")
        assert ended(host)


def test_a_redirect_from_https_to_http_is_refused(authority: Authority) -> None:
    with (
        stranger(answers(OK)) as plain,
        stranger(redirect(plain.url), tls=authority.host("pictures.example")) as host,
    ):
        with pytest.raises(ForbiddenAddress, match="from https to http"):
            guard(ca_file=authority.file).fetch(f"https://pictures.example:{host.port}/")
        assert plain.connections == 0


def test_a_redirect_from_http_to_https_is_followed(authority: Authority) -> None:
    with stranger(answers(OK), tls=authority.host("pictures.example")) as host:
        with stranger(redirect(f"https://pictures.example:{host.port}/a")) as plain:
            fetched = guard(ca_file=authority.file).fetch(plain.url)
        assert (fetched.data, fetched.url) == (OK, f"https://pictures.example:{host.port}/a")


@pytest.mark.parametrize(
    "script",
    [
        silence,
        dripping(),
        dripping(head()),
        dripping(head("Transfer-Encoding: chunked"), piece=b"1\r\nx\r\n"),
    ],
)
def test_under_tls_too_the_whole_ends_in_time(authority: Authority, script: Script) -> None:
    with stranger(script, tls=authority.host("pictures.example")) as host:
        begun = time.monotonic()
        with pytest.raises(Unreachable, match="within the time"):
            guard(ca_file=authority.file, timeout=0.4).fetch(f"https://pictures.example:{host.port}/")
        assert time.monotonic() - begun < 2
        assert ended(host)


def test_a_handshake_that_never_comes_is_not_waited_for() -> None:
    with stranger(silence) as host:
        begun = time.monotonic()
        with pytest.raises(Unreachable, match="within the time"):
            guard(timeout=0.3).fetch(f"https://pictures.example:{host.port}/")
        assert time.monotonic() - begun < 2


def test_under_tls_too_a_large_body_is_sent_and_a_larger_answer_not_taken(authority: Authority) -> None:
    body = bytes(3_000_000)
    with stranger(answers(OK), tls=authority.host("pictures.example")) as host:
        made = guard(ca_file=authority.file)
        assert made.post(f"https://pictures.example:{host.port}/", body=body, headers={}).body == OK
        assert host.requests[0].endswith(body)
    with stranger(chunked, tls=authority.host("pictures.example")) as host:
        with pytest.raises(TooLarge):
            guard(ca_file=authority.file).fetch(f"https://pictures.example:{host.port}/")
        assert ended(host)


def bucket(pool: PoolManager, host: Stranger, *, name: str = "store.example") -> Minio:
    """Give a client for a customer's bucket at this host."""
    return Minio(
        f"{name}:{host.port}",
        access_key="access",
        secret_key="secret",
        region="us-east-1",
        secure=host.url.startswith("https"),
        http_client=pool,
    )


def store(client: Minio) -> str | None:
    return client.put_object("pictures", "a.png", io.BytesIO(b"picture"), 7).etag


STORED = says(head('ETag: "e"', "Content-Length: 0"))


def test_a_customers_bucket_is_reached_through_the_guard_and_a_connection_is_kept() -> None:
    names = Names([HERE])
    with (
        stranger(STORED, keeps_alive=True) as host,
        guarded_pool(guard(resolver=names)) as pool,
    ):
        client = bucket(pool, host)

        assert [store(client) for _ in range(3)] == ["e"] * 3
        assert names.asked == ["store.example"]
        assert host.connections == 1
        assert host.requests[0].endswith(b"picture")
        assert f"Host: store.example:{host.port}" in host.head


def test_every_new_connection_of_a_pool_is_looked_up_and_checked_anew() -> None:
    names = Names([HERE], [HERE], ["127.0.0.1"])
    closing = says(head('ETag: "e"', "Content-Length: 0", "Connection: close"))
    with stranger(closing) as host, guarded_pool(guard(resolver=names)) as pool:
        client = bucket(pool, host)

        assert [store(client) for _ in range(2)] == ["e"] * 2
        with pytest.raises(ForbiddenAddress):
            store(client)
        assert (len(names.asked), host.connections) == (3, 2)


@pytest.mark.parametrize("found", [["127.0.0.1"], [HERE, "127.0.0.1"], ["169.254.169.254"], ["10.0.0.1"]])
def test_a_bucket_in_our_own_network_is_refused(found: list[str]) -> None:
    with stranger(STORED) as host, guarded_pool(guard(resolver=Names(found))) as pool:
        with pytest.raises(ForbiddenAddress):
            store(bucket(pool, host))
        assert host.connections == 0


def test_a_pool_follows_no_redirect() -> None:
    with (
        stranger(STORED) as elsewhere,
        stranger(redirect(elsewhere.url, "307 Temporary Redirect")) as host,
        guarded_pool(guard()) as pool,
    ):
        assert pool.request("GET", host.url).status == 307
        assert pool.request("GET", host.url, redirect=True).status == 307
        with pytest.raises(MinioException):
            store(bucket(pool, host))
        assert elsewhere.connections == 0


def test_a_pool_speaks_tls_with_the_name(authority: Authority) -> None:
    with stranger(STORED, tls=authority.host("store.example")) as host:
        with guarded_pool(guard(ca_file=authority.file)) as pool:
            assert store(bucket(pool, host)) == "e"
            assert host.server_name == "store.example"
            with pytest.raises(MaxRetryError, match=r"(?i)certificate"):
                store(bucket(pool, host, name="other.example"))
        assert len(host.requests) == 1


def test_a_store_that_drips_or_floods_holds_nobody() -> None:
    short = timedelta(seconds=0.4)
    with stranger(dripping(head())) as host, guarded_pool(guard(), exchange=short) as pool:
        begun = time.monotonic()
        with pytest.raises(HTTPError):
            pool.request("GET", host.url)
        assert time.monotonic() - begun < 2
        assert ended(host)
    with stranger(silence) as host, guarded_pool(guard(), read_timeout=short) as pool:
        with pytest.raises(HTTPError):
            pool.request("GET", host.url)
        assert ended(host)
    with stranger(chunked) as host, guarded_pool(guard(), max_bytes=100_000) as pool:
        with pytest.raises(TooLarge):
            pool.request("GET", host.url)
        assert ended(host)


def test_each_request_of_a_kept_connection_has_its_own_time_and_bytes() -> None:
    def late(host: Stranger, line: socket.socket) -> None:
        host.leaving.wait(0.2)
        answers(bytes(60_000))(host, line)

    with (
        stranger(late, keeps_alive=True) as host,
        guarded_pool(guard(), max_bytes=100_000, exchange=timedelta(seconds=0.5)) as pool,
    ):
        for _ in range(4):
            assert len(pool.request("GET", host.url).data) == 60_000
        assert host.connections == 1


def test_a_pools_retries_are_the_callers_and_none_by_default() -> None:
    def away(_host: str, _port: int) -> Sequence[str]:
        asked.append(_host)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    asked: list[str] = []
    made: Guard = guard(resolver=away)
    for retries, tries in ((None, 1), (Retry(2, backoff_factor=0), 3)):
        asked.clear()
        with guarded_pool(made, retries=retries) as pool, pytest.raises(MaxRetryError) as caught:
            pool.request("GET", "http://store.example/")
        assert isinstance(caught.value.reason, NameResolutionError)
        assert len(asked) == tries
