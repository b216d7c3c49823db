"""TCP connections to one checked address, on which every wait and every byte that comes is counted.

A timeout of `socket` is for one wait: a host that sends a byte now and then is never late. Here each wait
gets what is left of the whole exchange's time, so headers or a body that drip end in time.
"""

import math
import os
import socket
import ssl
import time
from ipaddress import ip_address
from typing import Any, Final

from app.errors import ForbiddenAddress, TooLarge
from app.safe_http.addresses import Address

_PIECE: Final = 64 * 1024
"""Bytes that are sent with one timeout."""


class Meter:
    """Time and incoming bytes that are left for an exchange."""

    def __init__(self, *, seconds: float, max_bytes: int) -> None:
        self._until = time.monotonic() + seconds
        self._bytes_left = max_bytes

    def seconds_left(self, *, at_most: float | None = None) -> float:
        """Give how long the next wait may take; raises TimeoutError when no time is left."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the exchange took longer than it may")
        return min(left, math.inf if at_most is None else at_most)

    def end_within(self, seconds: float) -> None:
        """Leave at most this much time from now on."""
        self._until = min(self._until, time.monotonic() + seconds)

    def grant(self, count: int) -> None:
        """Let this many bytes come from now on."""
        self._bytes_left = count

    def spend(self, count: int) -> None:
        """Count bytes that came; raises TooLarge when they are more than were granted."""
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise TooLarge


class Line(socket.socket):
    """A socket that spends from a meter: waits for reading and writing, and the bytes read through a file."""

    meter: Meter | None = None
    _idle: float | None = None

    def settimeout(self, value: float | None) -> None:
        """Limit each single wait, beside what the meter leaves."""
        self._idle = value
        super().settimeout(value)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Read, within the meter."""
        self._hurry()
        count = super().recv_into(*args, **kwargs)
        if self.meter is not None:
            self.meter.spend(count)
        return count

    def send(self, *args: Any, **kwargs: Any) -> int:
        """Write some of the bytes, within the meter."""
        self._hurry()
        return super().send(*args, **kwargs)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Write all of the bytes, within the meter; a timeout is for a piece of them and not for all."""
        with memoryview(data) as view, view.cast("B") as everything:
            for begin in range(0, len(everything), _PIECE):
                self._hurry()
                super().sendall(everything[begin : begin + _PIECE], flags)

    def end(self) -> None:
        """Close at once; plain `close` waits for the files made of the socket, which an error may keep."""
        if (number := self.detach()) >= 0:
            os.close(number)

    def _hurry(self) -> None:
        if self.meter is not None:
            super().settimeout(self.meter.seconds_left(at_most=self._idle))


class TlsLine(Line, ssl.SSLSocket):
    """The same under TLS; the context that makes it gives it the timeout of the handshake."""


def dial(address: Address, port: int, *, meter: Meter, patience: float) -> Line:
    """Give a connection to exactly this address, with a timeout fit for a TLS handshake.

    Args:
        meter: what connecting, and all that follows on the connection, spends from.
        patience: longest it may take to connect, and each wait after that, in seconds.

    Raises:
        TimeoutError: it took longer.
        OSError: nobody there, or no way there.
        ForbiddenAddress: who answered has another address; nothing was sent.
    """
    line = Line(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)  # noqa: PLR2004 - IPv4
    try:
        line.settimeout(meter.seconds_left(at_most=patience))
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.connect((str(address), port))
        compare_peer(line, address)
        line.settimeout(meter.seconds_left(at_most=patience))
        line.meter = meter
    except BaseException:
        line.close()
        raise
    return line


def compare_peer(line: socket.socket, address: Address) -> None:
    """Raise ForbiddenAddress unless the socket is connected to this address.

    The kernel connects 0.0.0.0 and :: to this machine itself, for example.
    """
    if ip_address(line.getpeername()[0]) != address:
        raise ForbiddenAddress
