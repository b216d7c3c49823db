"""`app.safe_http` without a network: which addresses, which URLs, which entries of an operator."""

import socket
import threading
from collections.abc import Sequence
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ForbiddenAddress, SetupError, TooLarge, Unreachable
from app.safe_http import Guard, for_buckets, for_fetch, for_webhooks
from app.safe_http.addresses import is_barred, is_private_use, is_public
from app.safe_http.line import Meter
from app.safe_http.urls import follow, parse
from app.settings import ENV_FILE, load

PUBLIC = "93.184.215.14"
ANY = "0.0.0.0"  # noqa: S104  # nothing is bound to it
METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "169.254.42.42",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::a9fe:a9fe",
    "::ffff:169.254.169.254",
    "::169.254.169.254",
    "::ffff:0:169.254.169.254",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::169.254.169.254",
    "2002:a9fe:a9fe::",
    "2001:0:a9fe:a9fe::",
    "2001:0:102:304:0:0:5601:5601",  # a Teredo client's address is sent inverted
]


@pytest.mark.parametrize("text", METADATA)
def test_metadata_are_barred_from_everybody_however_they_are_written(text: str) -> None:
    address = ip_address(text)
    everything = guard(
        allow=["0.0.0.0/0", "::/0", "metadata.internal", "*:8080"], names={"metadata.internal": [text]}
    )

    assert is_barred(address)
    assert not is_public(address)
    assert not is_private_use(address)
    for url in (
        f"http://{literal(text)}/latest",
        f"http://{literal(text)}:8080/",
        "http://metadata.internal/",
    ):
        with pytest.raises(ForbiddenAddress):
            everything.check(url)


def literal(text: str) -> str:
    return f"[{text}]" if ":" in text else text


class Names:
    """A resolver that knows these names and no others, and counts what it is asked."""

    def __init__(self, known: dict[str, list[str]]) -> None:
        self.known, self.asked = known, list[tuple[str, int]]()

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        if host not in self.known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.known[host]


def guard(
    *, allow: Sequence[str] = (), names: dict[str, list[str]] | None = None, resolver: Names | None = None
) -> Guard:
    return Guard(
        purpose="fetch",
        allow=allow,
        timeout=timedelta(seconds=2),
        max_bytes=1000,
        resolver=resolver or Names(names or {}),
    )


INTERNAL = {
    "localhost": ["127.0.0.1", "::1"],
    "localhost.localdomain": ["127.0.0.1"],
    "ip6-localhost": ["::1"],
    "app.localhost": ["127.0.0.1"],
    "127.0.0.1.nip.example": ["127.0.0.1"],
    "metadata.google.internal": ["169.254.169.254"],
    "db.internal": ["10.1.2.3"],
    "both.example": [PUBLIC, "10.1.2.3"],
    "last.example": [PUBLIC, "2606:2800:21f::1", "::ffff:10.1.2.3"],
    "zone.example": ["fe80::1%eth0"],
    "nothing.example": [],
}
SEEMING = [
    *["127\u30020\u30020\u30021", "127\uff0e0\uff0e0\uff0e1", "127\uff610\uff610\uff611"],
    *["\uff11\uff12\uff17.0.0.1", "\u2460\u2461\u2466.0.0.1", "\uff4cocalhost", "\u24dbocalhost"],
]
"""Hosts that look like 127.0.0.1 and localhost, with dots, digits and letters from elsewhere in Unicode."""
HOSTILE_HOSTS = [
    *["127.0.0.1", "127.1", "127.0.1", "0", ANY, "2130706433", "017700000001", "0x7f000001"],
    *["0x7f.0.0.1", "0177.0.0.1", "127.0.0.01", "0x", "127.0.0.1.", "1.2.3.4.5", "4294967297", "256.1.1.1"],
    *["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.100.100.200"],
    *["169.254.169.254", "192.0.0.192", "192.0.0.1", "192.0.2.1", "192.88.99.1", "198.18.0.1"],
    *["198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"],
    *["[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[::127.0.0.1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"],
    *["[::ffff:8.8.8.8]", "[::8.8.8.8]", "[::ffff:0:127.0.0.1]", "[::ffff:0:8.8.8.8]"],
    *[
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1::1]",
        "[2002:7f00:1::]",
        "[2002:808:808::]",
    ],
    *["[2001:0:4136:e378::]", "[2001:db8::1]", "[3fff::1]", "[fec0::1]", "[fe80::1]", "[fe80::1%25eth0]"],
    *[
        "[fe80::1%eth0]",
        "[2606:2800:21f::1%eth0]",
        "[fd00:ec2::254]",
        "[fc00::1]",
        "[fd12:3456::1]",
        "[ff02::1]",
        "[100::1]",
        "[5f00::1]",
    ],
    *["[::1", "::1", "[::1]x", "[127.0.0.1]", "[]", "[v1.x]", "", ".", "..", "a..example", ".example"],
    *["example.com.", "-a.example", "a-.example", "exa mple", "a,b.example", "a;b", "a'b", "a%00b", "a*b"],
    *["%6c%6f%63alhost", "127%2e0%2e0%2e1", *SEEMING],
    *["exam\u200bple.com", "exa\u00admple.com", "a\u2044b.com", "a/..@b"],
    *[f"{'a' * 64}.example", f"{'a.' * 127}example", "xn--", "xn--a", "\u0661\u0662\u0667.0.0.1"],
    *INTERNAL,
]
HOSTILE_URLS = [
    *[f"{scheme}://{host}/" for host in HOSTILE_HOSTS for scheme in ("http", "https")],
    *[
        "file:///etc/passwd",
        "gopher://127.0.0.1:11211/_stats",
        "ftp://ftp.example/a",
        "data:image/png;base64,AA",
    ],
    *[
        "dict://127.0.0.1/",
        "ldap://a.example/",
        "unix:///run/docker.sock",
        "javascript:alert(1)",
        "jar:http://a!/",
    ],
    *[
        "//good.example/",
        "good.example",
        "/etc/passwd",
        "",
        "http:",
        "http:/",
        "http://",
        "http:good.example",
    ],
    *["http:///good.example", "https:/good.example/", "HTTP+UNIX://good.example/", "http//good.example"],
    *["http://user@good.example/", "http://user:pw@good.example/", "http://good.example@127.0.0.1/"],
    *["http://good.example:80@127.0.0.1/", "http://@good.example/", "http://a@b@good.example/"],
    *["http://good.example\\@127.0.0.1/", "http:\\\\good.example/", "http://good.example\\.evil.example/"],
    *[
        "http://good.example:22/",
        "http://good.example:8080/",
        "http://good.example:6379/",
        "http://good.example:0/",
    ],
    *["http://good.example:65536/", "http://good.example:99999999/", "http://good.example:-1/"],
    *[
        "http://good.example:80:80/",
        "http://good.example:8o/",
        "http://good.example:/",
        "http://good.example:+80/",
    ],
    *["http://good.example:\u0668\u0660/", f"http://{PUBLIC}:8080/", f"http://{PUBLIC}.:80/"],
    *[
        "http://good.example/ a",
        " http://good.example/",
        "http://good.example/\r\nHost: b",
        "http://good.example/\0",
    ],
    *[
        "http://good.exa\tmple/",
        "http://good.example/\u2028",
        "http://good.example/\ud800",
        "\x01http://good.example/",
    ],
    "http://good.example/" + "a" * 2048,
]


@pytest.mark.parametrize("url", HOSTILE_URLS, ids=ascii)
def test_a_hostile_url_is_refused(url: str) -> None:
    names = Names({**INTERNAL, "good.example": [PUBLIC]})

    with pytest.raises(ForbiddenAddress) as caught:
        guard(resolver=names).check(url)

    assert len(names.asked) <= 1
    assert caught.value.http_status == 422
    assert "10.1.2.3" not in str(caught.value)


def test_nobody_learns_what_a_name_of_ours_means_or_whether_there_is_one() -> None:
    told = set()
    for host in [*INTERNAL, "no-such-name.internal", "10.0.0.1", "[fd00::1]", "169.254.169.254"]:
        for url in (f"http://{host}/", f"http://{host}:8080/"):
            with pytest.raises(ForbiddenAddress) as caught:
                guard(names=INTERNAL).check(url)
            told.add(caught.value.public_message)

    [sentence] = told
    assert sentence == (
        "This URL's host has no address that may be used; check its name. One inside the operator's network "
        "needs an entry in DARKROOM_FETCH_ALLOW: ask your Darkroom operator."
    )


def test_only_a_name_without_an_address_may_get_one_later() -> None:
    for host, retryable in (
        ("no-such-name.example", True),
        ("nothing.example", True),
        ("db.internal", False),
    ):
        with pytest.raises(ForbiddenAddress) as caught:
            guard(names=INTERNAL).check(f"http://{host}/")
        assert caught.value.retryable is retryable


@pytest.mark.parametrize(
    ("url", "asked_for", "host", "port"),
    [
        ("https://good.example", "https://good.example/", "good.example", 443),
        ("HTTP://GOOD.example:80/A?b=%2F&c#frag", "http://good.example/A?b=%2F&c", "good.example", 80),
        ("https://good.example:80?x", "https://good.example:80/?x", "good.example", 80),
        ("https://good.example/a/../b//c;d", "https://good.example/a/../b//c;d", "good.example", 443),
        ("https://good.example/ü?ß=“", "https://good.example/%C3%BC?%C3%9F=%E2%80%9C", "good.example", 443),
        ("https://Bücher.example/", "https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443),
        ("https://my_bucket.s3.example/", "https://my_bucket.s3.example/", "my_bucket.s3.example", 443),
        ("http://1e100.example/", "http://1e100.example/", "1e100.example", 80),
        (f"http://{PUBLIC}/", f"http://{PUBLIC}/", PUBLIC, 80),
        ("http://[2606:2800:021f::0001]/", "http://[2606:2800:21f::1]/", "2606:2800:21f::1", 80),
        ("http://[64:ff9b::5db8:d70e]/", "http://[64:ff9b::5db8:d70e]/", "64:ff9b::5db8:d70e", 80),
        ("https://good.example/a@b:c[d]", "https://good.example/a@b:c[d]", "good.example", 443),
    ],
)
def test_a_public_url_is_asked_for_as_it_was_written(url: str, asked_for: str, host: str, port: int) -> None:
    hosts = ("good.example", "xn--bcher-kva.example", "my_bucket.s3.example", "1e100.example")
    names = Names({name: [PUBLIC] for name in hosts})

    checked = guard(resolver=names).check(url)

    assert (checked.url, checked.host, checked.port) == (asked_for, host, port)
    is_name = any(letter > "f" for letter in host)
    assert names.asked == ([(host, port)] if is_name else [])
    assert checked.addresses == (ip_address(PUBLIC if is_name else host),)


@given(st.text(max_size=60) | st.from_regex(r"https?://[0-9a-fx.:\[\]@%\\/-]{1,40}", fullmatch=True))
def test_whatever_is_written_is_refused_or_means_the_same_when_it_is_read_again(url: str) -> None:
    try:
        target = parse(url)
    except ForbiddenAddress:
        return
    assert parse(target.url) == target
    assert target.url.isascii()


@pytest.mark.parametrize(
    ("location", "leads_to"),
    [
        ("/b", "https://good.example/b"),
        ("c?d", "https://good.example/x/c?d"),
        ("?e", "https://good.example/x/y?e"),
        ("//other.example/f", "https://other.example/f"),
        ("https://other.example/a/../g?h=%2f#i", "https://other.example/a/../g?h=%2f"),
        ("/ü".encode().decode("latin-1"), "https://good.example/%C3%BC"),
    ],
)
def test_a_redirect_leads_where_a_browser_would_go(location: str, leads_to: str) -> None:
    assert follow(parse("https://good.example/x/y?z"), location).url == leads_to


@pytest.mark.parametrize(
    "location",
    [
        *[
            "file:///etc/passwd",
            "gopher://a.example/",
            "data:,x",
            "http://good.example/",
            "//user@a.example/",
        ],
        *["https://[::1/", "//[", "\\\\a.example", "/a b", "/a\tb", "https://a.exa\nmple/", "x" * 3000],
    ],
)
def test_a_redirect_to_what_may_not_be_asked_for_is_refused(location: str) -> None:
    with pytest.raises(ForbiddenAddress):
        follow(parse("https://good.example/x/y"), location)


@pytest.mark.parametrize(
    ("allow", "url", "addresses"),
    [
        ("10.0.0.0/8", "http://db.internal/", ["10.1.2.3"]),
        ("10.0.0.0/8", "http://db.internal:9000/", ["10.1.2.3"]),
        ("10.0.0.0/8", "http://db.internal/", ["10.1.2.3", PUBLIC]),
        ("10.1.2.3", "http://10.1.2.3:5000/", []),
        ("10.1.2.3:5000", "http://10.1.2.3:5000/", []),
        ("127.0.0.1", "http://db.internal/", ["127.0.0.1"]),
        ("[::1]:8080", "http://[::1]:8080/", []),
        ("::1", "http://[::1]:8080/", []),
        ("fd00::/8", "http://db.internal/", ["fd12::1"]),
        ("db.internal", "http://db.internal:81/", ["10.1.2.3"]),
        ("DB.internal:81", "http://db.Internal:81/", ["192.168.0.1", "fd12::1"]),
        (".internal", "http://db.internal:81/", ["100.64.0.1"]),
        (".internal:81", "http://db.internal:81/", [PUBLIC]),
        ("*:8443", "https://db.internal:8443/", [PUBLIC]),
    ],
)
def test_an_operators_entry_lets_customers_in(allow: str, url: str, addresses: list[str]) -> None:
    checked = guard(allow=[allow], names={"db.internal": addresses}).check(url)

    assert [str(address) for address in checked.addresses] == (addresses or [checked.host])


@pytest.mark.parametrize(
    ("allow", "url", "addresses"),
    [
        ("10.0.0.0/8", "http://db.internal/", ["10.1.2.3", "192.168.0.1"]),
        ("10.0.0.0/8", "http://db.internal:81/", ["10.1.2.3", PUBLIC]),
        ("10.0.0.0/8", "http://db.internal/", ["::ffff:10.1.2.3"]),
        ("10.1.2.3:5000", "http://10.1.2.3/", []),
        ("db.internal:81", "http://db.internal/", ["10.1.2.3"]),
        ("db.internal:81", "http://db.internal:82/", [PUBLIC]),
        ("internal", "http://db.internal/", ["10.1.2.3"]),
        (".b.internal", "http://db.internal/", ["10.1.2.3"]),
        (".db.internal", "http://db.internal/", ["10.1.2.3"]),
        ("*:8443", "https://db.internal:8443/", ["10.1.2.3"]),
        # Whoever runs a name's DNS is not let into this machine.
        (".internal", "http://db.internal/", ["127.0.0.1"]),
        (".internal", "http://db.internal/", ["::1"]),
        (".internal", "http://db.internal/", [ANY]),
    ],
)
def test_an_operators_entry_lets_nobody_in_beside_it(allow: str, url: str, addresses: list[str]) -> None:
    with pytest.raises(ForbiddenAddress):
        guard(allow=[allow], names={"db.internal": addresses}).check(url)


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "*",
        "10.0.0.0/33",
        "10.0.0.1/8",
        "10.0.0",
        "a b",
        "host:0",
        "host:70000",
        "host:",
        "http://a",
        "*.a",
        "a.",
        "localhost:1",
    ],
)
def test_an_entry_that_means_nothing_is_named_with_its_setting(entry: str) -> None:
    with pytest.raises(SetupError, match="DARKROOM_FETCH_ALLOW"):
        guard(allow=[entry])


def test_a_look_up_that_fails_for_now_is_no_verdict() -> None:
    def away(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_AGAIN, f"Temporary failure in name resolution of {host}:{port}")

    made = Guard(purpose="fetch", allow=[], timeout=timedelta(seconds=2), max_bytes=1, resolver=away)

    with pytest.raises(Unreachable, match="cannot be looked up") as caught:
        made.check("http://good.example/")
    assert caught.value.retryable


def test_a_look_up_that_takes_for_ever_is_not_waited_for() -> None:
    answered = threading.Event()

    def slow(_host: str, _port: int) -> Sequence[str]:
        answered.wait(10)
        return [PUBLIC]

    made = Guard(purpose="fetch", allow=[], timeout=timedelta(seconds=0.1), max_bytes=1, resolver=slow)

    with pytest.raises(Unreachable, match="within the time") as caught:
        made.check("http://good.example/")
    assert caught.value.retryable
    answered.set()


def test_each_purpose_has_a_list_of_its_own(tmp_path: Path) -> None:
    (tmp_path / ENV_FILE).write_text(
        """
        DARKROOM_DATABASE_URL=postgresql://unused
        DARKROOM_BROKER_URL=redis://unused
        DARKROOM_S3_ENDPOINT=http://127.0.0.1:1
        DARKROOM_S3_ACCESS_KEY=unused
        DARKROOM_S3_SECRET_KEY=unused
        DARKROOM_SECRET_KEY=0123456789abcdef0123456789abcdef
        DARKROOM_FETCH_ALLOW=10.0.0.1, ,10.0.0.2
        DARKROOM_WEBHOOK_ALLOW=10.0.0.3
        """
    )
    settings = load(tmp_path, bucket_allow=("10.0.0.4",))
    assert settings.fetch_allow == ("10.0.0.1", "10.0.0.2")
    for open_guard, allowed in (
        (for_fetch, {"10.0.0.1", "10.0.0.2"}),
        (for_webhooks, {"10.0.0.3"}),
        (for_buckets, {"10.0.0.4"}),
    ):
        made = open_guard(settings)
        for host in ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"):
            if host in allowed:
                assert made.check(f"http://{host}/").host == host
            else:
                with pytest.raises(ForbiddenAddress):
                    made.check(f"http://{host}/")


def test_a_malformed_list_names_the_setting_of_its_purpose() -> None:
    for purpose in ("fetch", "webhook", "bucket"):
        with pytest.raises(SetupError, match=f"DARKROOM_{purpose.upper()}_ALLOW.*'every where'"):
            Guard(purpose=purpose, allow=["every where"], timeout=timedelta(seconds=1), max_bytes=1)


def test_a_meter_runs_out_of_bytes_and_of_time() -> None:
    meter = Meter(seconds=60, max_bytes=10)
    meter.spend(10)
    with pytest.raises(TooLarge):
        meter.spend(1)
    meter.grant(5)
    meter.spend(5)

    assert 59 < meter.seconds_left() <= 60
    assert meter.seconds_left(at_most=3) == 3
    meter.end_within(0)
    with pytest.raises(TimeoutError):
        meter.seconds_left()
