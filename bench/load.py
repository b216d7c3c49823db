"""A small HTTP/1.1 client that keeps some connections busy: one thread, one selector, about 20 µs a request.

It costs both sides of a comparison the same, and little enough to leave the second core to the server.
"""

import re
import selectors
import socket
import time
from dataclasses import dataclass, field
from typing import Final

from app.errors import SetupError
from bench.numbers import percentile

HOST: Final = "127.0.0.1"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STALLED: Final = 30.0
"""Seconds without any answer after which the server counts as stuck."""


def post(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """Give the bytes of a POST request with a JSON body."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {HOST}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(kw_only=True)
class Measured:
    """What the client saw: seconds per request, and how often each status came."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.latencies) / self.seconds

    def latency(self, share: float) -> float:
        """Give a percentile of the latencies, in milliseconds."""
        return percentile(self.latencies, share) * 1000

    def __add__(self, other: "Measured") -> "Measured":
        both = {*self.statuses, *other.statuses}
        return Measured(
            seconds=self.seconds + other.seconds,
            latencies=self.latencies + other.latencies,
            statuses={one: self.statuses.get(one, 0) + other.statuses.get(one, 0) for one in both},
        )

    def only(self, status: int) -> "Measured":
        """Give itself.

        Raises:
            SetupError: an answer had another status, so the figures are of something else.
        """
        if set(self.statuses) != {status}:
            raise SetupError(f"the server answered {self.statuses} where only {status} was expected")
        return self


class _Connection:
    def __init__(self, port: int, request: bytes) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=_STALLED)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = request
        self._received = b""
        self._sent_at = 0.0

    def send(self) -> None:
        self._received = b""
        self._sent_at = time.perf_counter()
        self.socket.sendall(self._request)

    def receive(self) -> tuple[int, float] | None:
        """Give status and seconds once the answer is complete."""
        piece = self.socket.recv(65536)
        if not piece:
            raise SetupError(f"the server closed a connection after {self._received[:200]!r}")
        self._received += piece
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or length is None or len(body) < int(length[1]):
            return None
        return int(head[9:12]), time.perf_counter() - self._sent_at


def drive(
    request: bytes, *, port: int, connections: int, seconds: float, most: int | None = None
) -> Measured:
    """Send the request again and again on each of the connections, one at a time.

    Args:
        request: the bytes to send; every answer must carry a Content-Length.
        port: of a server on the loopback address.
        connections: requests in flight.
        seconds: when to stop.
        most: how many requests to stop after, if that comes first.

    Raises:
        SetupError: the server closes a connection or does not answer for 30 s.
    """
    opened = [_Connection(port, request) for _ in range(connections)]
    measured = Measured()
    began = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        for connection in opened:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send()
        waiting = len(opened)
        while waiting:
            ready = selector.select(timeout=_STALLED)
            if not ready:
                raise SetupError(f"no answer within {_STALLED:g} s on {connections} connections")
            for key, _ in ready:
                answer = key.data.receive()
                if answer is None:
                    continue
                status, took = answer
                measured.latencies.append(took)
                measured.statuses[status] = measured.statuses.get(status, 0) + 1
                enough = most is not None and len(measured.latencies) + waiting > most
                if time.perf_counter() - began < seconds and not enough:
                    key.data.send()
                else:
                    waiting -= 1
    measured.seconds = time.perf_counter() - began
    for connection in opened:
        connection.socket.close()
    return measured
