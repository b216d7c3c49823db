"""The door itself: `check`, `fetch` and `post` for a customer's URL."""

import contextlib
import re
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from http.client import HTTPException
from typing import Final

from urllib3 import BaseHTTPResponse
from urllib3 import exceptions as urllib3

from app import __version__
from app.errors import TooLarge, Unreachable
from app.safe_http.addresses import Address
from app.safe_http.allow import AllowList
from app.safe_http.connection import GuardedConnection, GuardedTlsConnection, trust
from app.safe_http.gate import CONNECT_TIMEOUT, Gate, Resolver, ask_system
from app.safe_http.line import Meter
from app.safe_http.reasons import told
from app.safe_http.urls import Target, follow, parse

MAX_REDIRECTS: Final = 3
MAX_HEAD: Final = 64 * 1024
"""Most bytes of an answer's status line and headers."""
KEPT: Final = 1024
"""Bytes kept of the answer to a post."""
_BODY_PATIENCE: Final = 2.0
"""Seconds to wait for what is kept: by then the status is known, which is all that counts."""
_PIECE: Final = 64 * 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_GOOD: Final = frozenset({200, 203})
"""Statuses of an answer that is the whole thing."""
_MEDIA_TYPE: Final = re.compile(r"\s*([\w!#$&^.+-]{1,127}/[\w!#$&^.+-]{1,127})\s*(?:;|\Z)", re.ASCII)
"""RFC 6838, section 4.2."""
_TEMPORARY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_ALWAYS_SENT: Final = {
    "User-Agent": f"Darkroom/{__version__}",
    "Accept-Encoding": "identity",  # what was packed could unpack to any size
    "Connection": "close",
}


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A URL that may be used at the moment: what its name means may change any time after."""

    url: str
    """As it will be asked for: host in lower-case ASCII, no fragment."""
    host: str
    port: int
    addresses: tuple[Address, ...]


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What lay at a URL."""

    data: bytes
    url: str
    """Where it lay, after the redirects."""
    content_type: str | None
    """The media type that was claimed, in lower case and without parameters; None when it was malformed."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What somebody answered to a post, whatever the status."""

    status: int
    headers: Mapping[str, str]
    """Looked up in any case; a header sent twice has its values joined by a comma."""
    body: bytes
    """At most the first 1,024 bytes, as they were sent; fewer when they came slowly."""


class Guard:
    """Reaches customers' addresses for one purpose, and nothing of ours; threads may share it.

    Every connection goes to an address that was checked: a name is looked up once for it, all its addresses
    are checked, and the connection's other end is compared before a byte is sent. There is no proxy, no
    cookie, no password and no environment in it.

    Args:
        purpose: `fetch`, `webhook` or `bucket`: whose setting is named when an entry of `allow` is malformed.
        allow: what the operator lets customers reach; see `AllowList`.
        timeout: for a whole exchange, from the look-up to the last byte, redirects included.
        max_bytes: most that is fetched.
        ca_file: certificate authorities to trust beside the usual ones, PEM.

    Raises:
        SetupError: an entry of `allow` is malformed.
    """

    def __init__(
        self,
        *,
        purpose: str,
        allow: Iterable[str],
        timeout: timedelta,
        max_bytes: int,
        resolver: Resolver = ask_system,
        ca_file: str | None = None,
    ) -> None:
        allowed = AllowList(allow, setting=f"DARKROOM_{purpose.upper()}_ALLOW")
        self.gate = Gate(purpose=purpose, allow=allowed, resolver=resolver)
        self._timeout, self._max_bytes, self._ca_file = timeout, max_bytes, ca_file

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """What certificates are checked with; made when it is first needed, as reading it takes 40 ms."""
        return trust(self._ca_file)

    def check(self, url: str) -> Checked:
        """Give what a URL means now, without connecting to it: for refusing it while its sender listens.

        Raises:
            ForbiddenAddress: it may not be used.
            Unreachable: its host's name cannot be looked up at the moment.
        """
        target = parse(url)
        with told():
            seconds = min(CONNECT_TIMEOUT, self._timeout).total_seconds()
            found = self.gate.addresses(target.host, target.port, seconds=seconds)
        return Checked(url=target.url, host=target.host, port=target.port, addresses=found)

    def fetch(
        self,
        url: str,
        *,
        accept: str = "*/*",
        max_bytes: int | None = None,
        timeout: timedelta | None = None,
    ) -> Fetched:
        """Give what lies at a URL; follows up to three redirects, each checked like the first URL.

        Raises:
            ForbiddenAddress: it, or what it redirects to, may not be used.
            Unreachable: it could not be had; `status` is the HTTP status where there was one.
            TooLarge: it has more than `max_bytes`; never more than that is kept.
        """
        limit = self._max_bytes if max_bytes is None else max_bytes
        end = time.monotonic() + (timeout or self._timeout).total_seconds()
        target = parse(url)
        for _ in range(MAX_REDIRECTS + 1):
            found = self._get(target, accept=accept, limit=limit, seconds=end - time.monotonic())
            if isinstance(found, Fetched):
                return found
            target = found
        raise Unreachable(f"The URL redirects more than {MAX_REDIRECTS} times.")

    def post(
        self,
        url: str,
        *,
        body: bytes,
        headers: Mapping[str, str],
        timeout: timedelta | None = None,
    ) -> Answer:
        """Post a body and give the answer, a redirect like any other.

        Raises:
            ForbiddenAddress: the URL may not be used.
            Unreachable: there was no answer; whether the body arrived is unknown.
            TooLarge: the answer's headers are longer than 64 KiB.
        """
        target = parse(url)
        meter = Meter(seconds=(timeout or self._timeout).total_seconds(), max_bytes=MAX_HEAD)
        with self._exchange("POST", target, meter, headers=headers, body=body) as response:
            kept = _beginning(response, meter)
            return Answer(status=response.status, headers=response.headers, body=kept)

    def _get(self, target: Target, *, accept: str, limit: int, seconds: float) -> Fetched | Target:
        meter = Meter(seconds=seconds, max_bytes=MAX_HEAD)
        with self._exchange("GET", target, meter, headers={"Accept": accept}) as response:
            location = response.headers.get("Location")
            if response.status in _REDIRECTS and location is not None:
                return follow(target, location)
            _refuse_unusable(response, limit)
            meter.grant(limit + limit // 8 + MAX_HEAD)  # what chunks of at least 64 bytes add
            claimed = _MEDIA_TYPE.match(response.headers.get("Content-Type", ""))
            return Fetched(
                data=_read(response, limit),
                url=target.url,
                content_type=claimed[1].lower() if claimed else None,
            )

    @contextlib.contextmanager
    def _exchange(
        self,
        method: str,
        target: Target,
        meter: Meter,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> Iterator[BaseHTTPResponse]:
        """Send one request on a connection of its own and give the answer, its body yet to be read."""
        with told(), contextlib.ExitStack() as opened:
            connection = opened.enter_context(contextlib.closing(self._connection(target, meter)))
            line = connection.open()
            opened.callback(line.end)
            # It may have answered, and hung up, before it took all of the body.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(
                    method,
                    target.path,
                    body=body,
                    headers={**_ALWAYS_SENT, **headers},
                    preload_content=False,
                    decode_content=False,
                )
            yield opened.enter_context(contextlib.closing(connection.getresponse()))

    def _connection(self, target: Target, meter: Meter) -> GuardedConnection:
        timeout = CONNECT_TIMEOUT.total_seconds()
        if target.scheme == "https":
            return GuardedTlsConnection(
                target.host,
                target.port,
                gate=self.gate,
                meters=lambda: meter,
                timeout=timeout,
                ssl_context=self.tls,
            )
        return GuardedConnection(
            target.host, target.port, gate=self.gate, meters=lambda: meter, timeout=timeout
        )


def _refuse_unusable(response: BaseHTTPResponse, limit: int) -> None:
    status = response.status
    if status not in _GOOD:
        raise Unreachable(
            f"The URL answers with HTTP status {status}.", status=status, retryable=status in _TEMPORARY
        )
    if response.headers.get("Content-Encoding", "").strip().lower() not in ("", "identity"):
        raise Unreachable("The URL's host sends it compressed, though asked not to.", status=status)
    if (response.length_remaining or 0) > limit:
        raise _too_large(limit)


def _read(response: BaseHTTPResponse, limit: int) -> bytes:
    data = bytearray()
    for piece in response.stream(_PIECE, decode_content=False):
        data += piece
        if len(data) > limit:
            raise _too_large(limit)
    return bytes(data)


def _beginning(response: BaseHTTPResponse, meter: Meter) -> bytes:
    """Give the first bytes of a body, or those that came before it broke off."""
    meter.end_within(_BODY_PATIENCE)
    kept = b""
    with contextlib.suppress(urllib3.HTTPError, HTTPException, OSError, TooLarge):
        while len(kept) < KEPT and (piece := response.read1(KEPT - len(kept), decode_content=False)):
            kept += piece
    return kept


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"What lies at the URL has more than the {limit:,} bytes that are taken.")
