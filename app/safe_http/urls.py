"""A customer's URL, read once and strictly: what two readers could understand differently is refused.

What is checked must be what is connected to. So nothing here guesses, repairs or normalises more than letter
case, and no other code of ours takes a customer's URL apart.
"""

import re
import unicodedata
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final
from urllib.parse import quote, urljoin

import idna

from app.errors import ForbiddenAddress
from app.safe_http.addresses import Address

MAX_URL: Final = 2048
"""Longest URL in characters; browsers and proxies agree on little above it."""
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_MAX_HOST: Final = 253
_URL: Final = re.compile(r"([a-z][a-z0-9+.-]*):(?://([^/?#]*))?(.*)", re.IGNORECASE)
_AUTHORITY: Final = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?")
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A last label that browsers take for a number, and so the whole host for an IPv4 address."""
_ASCII: Final = "".join(map(chr, range(0x80)))


@dataclass(frozen=True, kw_only=True)
class Target:
    """An http or https URL in its parts; `host` is in lower-case ASCII, an IPv6 address without brackets."""

    scheme: str
    host: str
    port: int
    path: str
    """What the request line names: path and query, without the fragment."""

    @property
    def url(self) -> str:
        """The URL that is asked for."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"


def parse(url: str) -> Target:
    """Give the parts of a URL.

    Path and query stay as they are, since they may be signed; characters beyond ASCII are percent-encoded.

    Raises:
        ForbiddenAddress: it is no http or https URL, is longer than `MAX_URL`, names a user, or has a host,
            a port or a character that leaves room for doubt; the message says what to change.
    """
    if len(url) > MAX_URL:
        raise ForbiddenAddress(f"The URL may have at most {MAX_URL:,} characters.")
    _refuse_odd(url)
    found = _URL.fullmatch(url)
    scheme = found[1].lower() if found else ""
    if found is None or scheme not in DEFAULT_PORTS or found[2] is None:
        raise ForbiddenAddress("The URL must begin with http:// or https://.")
    if "@" in found[2]:
        raise ForbiddenAddress("The URL must not name a user or a password; leave out what is before the @.")
    authority = _AUTHORITY.fullmatch(found[2])
    if authority is None:
        raise ForbiddenAddress("The URL's host or port is malformed.")
    port = int(authority[2]) if authority[2] else DEFAULT_PORTS[scheme]
    if not 1 <= port <= 65535:  # noqa: PLR2004  # what TCP has
        raise ForbiddenAddress("The URL's port must be a number from 1 to 65535.")
    return Target(scheme=scheme, host=parse_host(authority[1]), port=port, path=_path(found[3]))


def follow(target: Target, location: str) -> Target:
    """Give where a redirect from `target` leads; `location` is the header as `http.client` reads it.

    Raises:
        ForbiddenAddress: as `parse` does, and when it leads from https to http.
    """
    location = quote(location, safe=_ASCII, encoding="latin-1")  # the bytes that were sent
    _refuse_odd(location)  # urljoin leaves some of it out
    if not re.match(r"[a-z][a-z0-9+.-]*:", location, re.IGNORECASE):
        try:
            location = urljoin(target.url, location)
        except ValueError:
            raise ForbiddenAddress("The URL redirects to an address that is malformed.") from None
    found = parse(location)
    if target.scheme == "https" and found.scheme == "http":
        raise ForbiddenAddress("The URL redirects from https to http; give the address it redirects to.")
    return found


def parse_host(text: str) -> str:
    """Give a host as it is looked up: a name in lower-case ASCII, or an address in its canonical form.

    Raises:
        ForbiddenAddress: it is neither a name of well-formed labels, with an underscore at most, nor an IPv4
            address of four decimal numbers, nor an IPv6 address.
    """
    if text.startswith("[") or ":" in text:
        return _ipv6(text.removeprefix("[").removesuffix("]"))
    host = text.lower() if text.isascii() else _to_ascii(text)
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _ipv4(host)
    if len(host) > _MAX_HOST or not all(map(_LABEL.fullmatch, labels)):
        raise ForbiddenAddress("The URL's host is not a well-formed name.")
    return host


def address_of(host: str) -> Address | None:
    """Give the address that a host from `parse_host` is, None when it is a name."""
    if ":" in host:
        return IPv6Address(host)
    return IPv4Address(host) if _NUMBER.fullmatch(host.rpartition(".")[2]) else None


def _refuse_odd(text: str) -> None:
    if not text.isprintable() or " " in text or "\\" in text:
        raise ForbiddenAddress("The URL must not contain spaces, control characters or backslashes.")


def _ipv6(text: str) -> str:
    try:
        address = IPv6Address(text)
    except AddressValueError:
        raise ForbiddenAddress("The URL's host is not a well-formed IPv6 address.") from None
    if address.scope_id is not None:
        raise ForbiddenAddress("An IPv6 address must not name an interface; leave out what is after the %.")
    return str(address)


def _ipv4(text: str) -> str:
    # 127.1, 2130706433, 0177.0.0.1 and 0x7f.0.0.1 are addresses to some readers and names to others.
    try:
        return str(IPv4Address(text))
    except AddressValueError:
        raise ForbiddenAddress("An IPv4 address must be written as four decimal numbers.") from None


def _to_ascii(text: str) -> str:
    # Without the mapping of UTS 46, which makes dots and digits of characters that only look like them.
    try:
        return idna.encode(unicodedata.normalize("NFC", text.lower())).decode("ascii")
    except idna.IDNAError:
        raise ForbiddenAddress("The URL's host is not a well-formed internationalised name.") from None


def _path(rest: str) -> str:
    path = rest.partition("#")[0]
    return quote(path if path.startswith("/") else f"/{path}", safe=_ASCII)
