"""What an operator lets customers reach beyond public hosts on the usual ports."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from app.errors import ForbiddenAddress, SetupError
from app.safe_http.addresses import Address, is_barred, is_private_use, is_public
from app.safe_http.urls import parse_host

PORTS: Final = frozenset({80, 443})
"""Ports of public hosts that need no entry."""
_WITH_PORT: Final = re.compile(r"(.+):([0-9]{1,5})")


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """One line of the list; without a network and a name it is about ports alone."""

    network: IPv4Network | IPv6Network | None = None
    name: str | None = None
    """A host's name; one that begins with a dot stands for all names that end with it."""
    port: int | None = None

    def covers(self, host: str, address: Address, port: int) -> bool:
        if self.port not in (None, port):
            return False
        if self.network is not None:
            return address in self.network
        if self.name is None or not (is_public(address) or is_private_use(address)):
            return False
        return host.endswith(self.name) if self.name.startswith(".") else host == self.name


class AllowList:
    """An operator's entries for one purpose.

    An entry is a network (`10.0.0.0/8`), an address (`127.0.0.1`, `[::1]`), a host (`hooks.internal`), a
    suffix (`.svc.cluster.local`), each with a port behind a colon or good for every port; or `*` with a port,
    which opens that port of public hosts. A name covers public addresses and those of private use, never this
    machine's own: whoever runs a name's DNS is not thereby let into our loopback, so that takes an address.

    Raises:
        SetupError: an entry is none of these; the message names it and `setting`.
    """

    def __init__(self, entries: Iterable[str], *, setting: str) -> None:
        self.setting = setting
        self._entries = tuple(_parse(entry.strip().lower(), setting) for entry in entries)

    def covers(self, host: str, address: Address, port: int) -> bool:
        """Whether an entry lets customers connect to this address, which `host` has, on this port."""
        return not is_barred(address) and any(it.covers(host, address, port) for it in self._entries)

    def opens(self, port: int) -> bool:
        """Whether customers may connect to this port of any public host."""
        return port in PORTS or any(
            it.port == port and it.network is None and it.name is None for it in self._entries
        )


def _parse(entry: str, setting: str) -> _Entry:
    if network := _network(entry):
        return _Entry(network=network)
    found = _WITH_PORT.fullmatch(entry)
    body, port = (found[1], int(found[2])) if found else (entry, None)
    if port is not None and not 1 <= port <= 65535:  # noqa: PLR2004  # what TCP has
        raise SetupError(f"{setting}: the port of {entry!r} is not a number from 1 to 65535.")
    if body == "*" and port is not None:
        return _Entry(port=port)
    if network := _network(body):
        return _Entry(network=network, port=port)
    if body == "localhost":
        raise SetupError(f"{setting}: write 127.0.0.1 or [::1] where it says {entry!r}.")
    try:
        return _Entry(name="." * body.startswith(".") + parse_host(body.removeprefix(".")), port=port)
    except ForbiddenAddress:
        raise SetupError(
            f"{setting}: {entry!r} is neither a network (10.0.0.0/8), an address (127.0.0.1, [::1]), a host"
            " (hooks.internal), a suffix (.svc.cluster.local), one of these with :port, nor *:port."
        ) from None


def _network(text: str) -> IPv4Network | IPv6Network | None:
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    try:
        return ip_network(text)
    except ValueError:
        return None
