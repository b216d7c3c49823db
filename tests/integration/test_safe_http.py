"""The door to customers' addresses, against real hosts on loopback: where it leads, and where it does not."""

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.errors import DarkroomError, ForbiddenAddress, Unreachable
from tests.servers.strangers import (
    HERE,
    Names,
    Stranger,
    answers,
    by_path,
    chunked,
    ended,
    guard,
    head,
    redirect,
    says,
    stranger,
)

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
INSIDE = "127.0.0.1"
"""Stands for our own network: no test allows it."""
PUBLIC = "93.184.215.14"
"""An address that passes every check; only ever given beside one that does not."""


def test_a_file_is_fetched_with_its_final_url_and_what_it_claims_to_be() -> None:
    with stranger(answers(PICTURE, "Content-Type: Image/PNG; charset=x")) as host:
        fetched = guard().fetch(
            f"http://pictures.example:{host.port}/a%20b.png?sig=1%2F2#top", accept="image/*"
        )

        assert fetched.data == PICTURE
        assert fetched.url == f"http://pictures.example:{host.port}/a%20b.png?sig=1%2F2"
        assert fetched.content_type == "image/png"
        assert host.head[0] == "GET /a%20b.png?sig=1%2F2 HTTP/1.1"
        names = {line.partition(":")[0] for line in host.head[1:]}
        assert names == {"Host", "User-Agent", "Accept-Encoding", "Connection", "Accept"}
        assert f"Host: pictures.example:{host.port}" in host.head
        assert "Accept-Encoding: identity" in host.head
        assert "Accept: image/*" in host.head
        assert ended(host)


@pytest.mark.parametrize("claim", ["", "image", "image/png\xff", "a/b/c", "image/" + "x" * 200, "<script>/a"])
def test_what_claims_nonsense_claims_nothing(claim: str) -> None:
    with stranger(answers(PICTURE, f"Content-Type: {claim}")) as host:
        assert guard().fetch(host.url).content_type is None


def test_an_ipv6_address_is_named_in_brackets() -> None:
    try:
        running = stranger(answers(PICTURE), address="::1")
        with running as host:
            assert guard(allow=["[::1]"]).fetch(f"http://[0::1]:{host.port}/").data == PICTURE
            assert f"Host: [::1]:{host.port}" in host.head
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        # What is to be shown is that nobody reads them, so they must be there.
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with stranger(answers(PICTURE)) as host:
        assert guard().fetch(host.url).data == PICTURE


def test_a_name_is_looked_up_once_and_the_connection_goes_to_what_was_checked() -> None:
    names = Names([HERE], [INSIDE])
    with (
        stranger(answers(PICTURE)) as host,
        stranger(answers(b"secret"), address=INSIDE, port=host.port) as inside,
    ):
        door = guard(resolver=names)

        assert door.fetch(f"http://rebinding.example:{host.port}/").data == PICTURE
        assert names.asked == ["rebinding.example"]
        with pytest.raises(ForbiddenAddress):
            door.fetch(f"http://rebinding.example:{host.port}/")
        assert names.asked == ["rebinding.example"] * 2
        assert inside.connections == 0


def test_what_was_public_when_it_was_checked_is_checked_again_when_it_is_fetched() -> None:
    with stranger(answers(b"secret"), address=INSIDE) as inside:
        door = guard(resolver=Names([PUBLIC], [INSIDE]), allow=[f"*:{inside.port}"])

        assert door.check(f"http://rebinding.example:{inside.port}/").addresses
        with pytest.raises(ForbiddenAddress):
            door.fetch(f"http://rebinding.example:{inside.port}/")
        assert inside.connections == 0


@pytest.mark.parametrize("found", [[HERE, INSIDE], [INSIDE, HERE], [PUBLIC, INSIDE], [INSIDE, PUBLIC]])
def test_one_address_of_ours_among_a_names_spoils_it(found: list[str]) -> None:
    with stranger(answers(PICTURE)) as host, stranger(answers(), address=INSIDE, port=host.port) as inside:
        with pytest.raises(ForbiddenAddress):
            guard(resolver=Names(found)).fetch(f"http://both.example:{host.port}/")
        assert host.connections == inside.connections == 0


def test_when_the_first_address_is_dead_the_next_one_is_tried() -> None:
    with stranger(answers(PICTURE)) as host:
        door = guard(resolver=Names(["127.0.0.3", "127.0.0.4", HERE]), allow=["127.0.0.0/29"])

        assert door.fetch(f"http://good.example:{host.port}/").data == PICTURE


def test_a_connection_that_ends_elsewhere_than_it_was_sent_is_refused_before_a_byte() -> None:
    # The kernel takes 0.0.0.0 for this machine, so the other end is 127.0.0.1.
    with stranger(answers(b"secret"), address=INSIDE) as inside:
        door = guard(resolver=Names(["0.0.0.0"]), allow=["0.0.0.0/8"])  # noqa: S104  # nothing is bound

        with pytest.raises(ForbiddenAddress):
            door.fetch(f"http://zero.example:{inside.port}/")
        assert ended(inside)
        assert (inside.connections, inside.requests) == (1, [])


def test_an_allowed_internal_host_answers_on_its_own_port() -> None:
    with stranger(answers(b"thanks", status="202 Accepted")) as host:
        for entry in (HERE, f"{HERE}:{host.port}", "127.0.0.0/30"):
            answer = guard(allow=[entry]).post(
                f"http://hooks.internal:{host.port}/in", body=b"{}", headers={}
            )
            assert (answer.status, answer.body) == (202, b"thanks")
        with pytest.raises(ForbiddenAddress):
            guard(allow=[f"{HERE}:{host.port + 1}"]).post(
                f"http://hooks.internal:{host.port}/", body=b"", headers={}
            )


def test_redirects_are_followed_three_times_and_each_hop_is_looked_up_anew() -> None:
    names = Names([HERE])
    script = by_path(
        a=redirect("/b", "301 Moved Permanently"),
        b=redirect("c?x=%2f", "307 Temporary Redirect"),
        c=redirect("//other.example:PORT/end?ü", "303 See Other"),
        end=answers(PICTURE),
    )
    with stranger(script) as host:
        fetched = guard(resolver=names).fetch(f"http://good.example:{host.port}/a")

    assert fetched.data == PICTURE
    assert fetched.url == f"http://other.example:{host.port}/end?%C3%BC"
    assert names.asked == ["good.example"] * 3 + ["other.example"]


def test_a_loop_of_redirects_ends() -> None:
    with stranger(redirect("/again")) as host:
        with pytest.raises(Unreachable, match="more than 3 times") as caught:
            guard().fetch(host.url)
        assert not caught.value.retryable
        assert len(host.requests) == 4


@pytest.mark.parametrize(
    "to",
    [
        *["http://127.0.0.1:PORT/", "http://[::1]:PORT/", "http://127.1:PORT/", "http://localhost:PORT/"],
        *["http://[::ffff:127.0.0.2]:PORT/", "http://169.254.169.254/", "http://user@127.0.0.2:PORT/"],
        *[
            "file:///etc/passwd",
            "gopher://127.0.0.2:PORT/_x",
            "ftp://127.0.0.2/",
            "data:image/png;base64,AA==",
        ],
        *["http://127.0.0.2:22/", "//127.0.0.1:PORT/", "\\\\127.0.0.1/", "http:///", "http://"],
    ],
)
def test_a_chain_of_redirects_that_ends_with_us_is_refused(to: str) -> None:
    def resolver(host: str, _port: int) -> list[str]:
        return [INSIDE if host == "localhost" else HERE]

    script = by_path(a=redirect("/b"), b=redirect(to))
    with stranger(script) as host, stranger(answers(b"secret"), address=INSIDE, port=host.port) as inside:
        with pytest.raises(ForbiddenAddress):
            guard(resolver=resolver, allow=[f"{HERE}:{host.port}"]).fetch(
                f"http://good.example:{host.port}/a"
            )
        assert len(host.requests) == 2
        assert inside.connections == 0


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        *[
            ("404 Not Found", False),
            ("403 Forbidden", False),
            ("204 No Content", False),
            ("304 Not Modified", False),
        ],
        *[("206 Partial Content", False), ("429 Slow Down", True), ("500 Oh", True), ("503 Busy", True)],
        *[("302 Found", False), ("300 Multiple Choices", False), ("501 Never", False)],
    ],
)
def test_a_status_that_brings_no_file_is_told(status: str, *, retryable: bool) -> None:
    with stranger(answers(PICTURE, status=status)) as host:
        with pytest.raises(Unreachable, match=status[:3]) as caught:
            guard().fetch(host.url)
        assert (caught.value.status, caught.value.retryable) == (int(status[:3]), retryable)
        assert ended(host)


def test_a_post_sends_the_body_as_it_is_and_gives_status_headers_and_a_kilobyte() -> None:
    body = b'{"a": "\xc3\xbc"}'
    with stranger(answers(b"y" * 5000, "Retry-After: 7", status="503 Busy")) as host:
        answer = guard().post(
            f"{host.url}/in?x=1", body=body, headers={"Content-Type": "application/json", "webhook-id": "m"}
        )

        assert (answer.status, answer.body) == (503, b"y" * 1024)
        assert answer.headers.get("retry-after") == "7"
        assert host.requests[0].endswith(b"\r\n\r\n" + body)
        assert host.head[0] == "POST /in?x=1 HTTP/1.1"
        assert {"Content-Type: application/json", "webhook-id: m", f"Content-Length: {len(body)}"} <= set(
            host.head
        )
        assert ended(host)


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"]
)
def test_a_post_follows_no_redirect(status: str) -> None:
    with stranger(answers()) as elsewhere, stranger(redirect(elsewhere.url, status)) as host:
        answer = guard().post(host.url, body=b"{}", headers={})

        assert (answer.status, answer.headers["Location"]) == (int(status[:3]), elsewhere.url)
        assert (len(host.requests), elsewhere.connections) == (1, 0)


def test_a_receiver_that_refuses_a_body_before_it_has_read_it_is_heard() -> None:
    def refuse(_: Stranger, line: socket.socket) -> None:
        line.sendall(head("Content-Length: 0", status="413 Too Large"))
        line.close()

    with stranger(refuse, reads_bodies=False) as host:
        assert guard().post(host.url, body=bytes(30_000_000), headers={}).status == 413


def test_a_header_that_would_smuggle_another_is_not_sent() -> None:
    with stranger(answers()) as host:
        with pytest.raises(ValueError, match="header"):
            guard().post(host.url, body=b"", headers={"X-Track": "1\r\nHost: inside"})
        assert host.requests == []


def test_a_guard_is_shared_by_many_threads_and_leaves_nothing_open() -> None:
    def fetch(number: int) -> str:
        try:
            return guard_of_all.fetch(f"{host.url}/{paths[number % len(paths)]}").url
        except DarkroomError as error:
            return error.code

    paths = ["good", "away", "big", "loop", "bad"]
    script = by_path(
        good=answers(PICTURE), away=says(), big=chunked, loop=redirect("/loop"), bad=answers(status="500 Oh")
    )
    guard_of_all = guard()
    with stranger(script) as host, ThreadPoolExecutor(16) as pool:
        found = list(pool.map(fetch, range(100)))
        assert found.count(f"{host.url}/good") == 20
        assert found.count("too_large") == 20
        assert found.count("unreachable_address") == 60
        for _ in range(20 * 8):
            assert ended(host)
