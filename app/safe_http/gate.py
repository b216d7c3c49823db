"""From a host's name to addresses that may be connected to: looked up once, every address checked."""

import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from typing import Final

from app.errors import ForbiddenAddress
from app.log import get_logger
from app.safe_http.addresses import Address, is_public
from app.safe_http.allow import AllowList
from app.safe_http.urls import address_of, parse_host

log = get_logger(__name__)

CONNECT_TIMEOUT: Final = timedelta(seconds=5)
"""How long a look-up may take, and how long a connection to each address."""
Resolver = Callable[[str, int], Sequence[str]]
"""Gives all addresses of a name, for a port; raises `socket.gaierror` when there are none."""
_NO_SUCH_NAME: Final = frozenset(
    getattr(socket, name)
    for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY")
    if hasattr(socket, name)  # musl has the first alone
)


def ask_system(host: str, port: int) -> list[str]:
    """Give the addresses that this machine's resolver knows, in the order it prefers."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Decides which addresses of a host may be connected to, for one purpose; thread-safe."""

    purpose: str
    allow: AllowList
    resolver: Resolver = ask_system

    def addresses(self, host: str, port: int, *, seconds: float) -> tuple[Address, ...]:
        """Give all addresses of a host, in the resolver's order, at least one.

        The resolver is asked once, or not at all for an address.

        Raises:
            ForbiddenAddress: the name has no address, or one that may not be used, or the port is not open;
                a name that does not exist reads like one of our own network.
            TimeoutError: the look-up took longer than `seconds`.
            socket.gaierror: the look-up failed, and may succeed later.
        """
        host = parse_host(host)
        literal = address_of(host)
        found = (literal,) if literal is not None else self._look_up(host, port, seconds=seconds)
        uncovered = [address for address in found if not self.allow.covers(host, address, port)]
        if not found or not all(map(is_public, uncovered)):
            log.info("address_refused", purpose=self.purpose, host=host, port=port, found=[*map(str, found)])
            raise ForbiddenAddress(self._why_not(), retryable=not found)
        if uncovered and not self.allow.opens(port):
            raise ForbiddenAddress(
                f"Port {port} may not be used; use 80 or 443, or ask your Darkroom operator to allow it with "
                f"{self.allow.setting}."
            )
        return found

    def _why_not(self) -> str:
        return (
            "This URL's host has no address that may be used; check its name. One inside the operator's "
            f"network needs an entry in {self.allow.setting}: ask your Darkroom operator."
        )

    def _look_up(self, host: str, port: int, *, seconds: float) -> tuple[Address, ...]:
        """Ask the resolver, in a thread of its own: nothing else ends the wait for a slow name server.

        A thread that nobody waits for any more ends when the resolver gives up, after some half a minute.
        """
        asked: Future[Sequence[str]] = Future()
        threading.Thread(target=self._ask, args=(asked, host, port), daemon=True).start()
        try:
            found = asked.result(timeout=seconds)
        except socket.gaierror as error:
            if error.errno in _NO_SUCH_NAME:
                return ()
            raise
        return tuple(dict.fromkeys(map(ip_address, found)))

    def _ask(self, asked: "Future[Sequence[str]]", host: str, port: int) -> None:
        try:
            asked.set_result(self.resolver(host, port))
        except OSError as error:
            asked.set_exception(error)
