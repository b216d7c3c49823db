"""One HTTP connection by hand, to see when each piece of an answer arrives and how one breaks off."""

import socket
from typing import Final, Self

from bench.load import HOST

_PATIENCE: Final = 10.0


class Client:
    """A connection to a server on the loopback address; waits at most 10 s for anything."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port), timeout=_PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, path: str) -> None:
        """Ask for a path; the connection is to be closed after the answer."""
        self.send(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())

    def send(self, data: bytes) -> None:
        """Send bytes as they are.

        Raises:
            OSError: the server closed the connection.
        """
        self._socket.sendall(data)

    def receive(self) -> bytes:
        """Give the next bytes that arrive; none when the server has closed.

        Raises:
            OSError: nothing came in 10 s, or the server broke the connection off.
        """
        return self._socket.recv(65536)

    def rest(self) -> bytes:
        """Give everything up to the end of the connection.

        Raises:
            OSError: see `receive`.
        """
        pieces = []
        while piece := self.receive():
            pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Close the connection, whatever is under way on it."""
        self._socket.close()


def fetch(port: int, path: str) -> bytes:
    """Give the body of an answer.

    Raises:
        OSError: see `Client.receive`.
    """
    with Client(port) as client:
        client.get(path)
        return client.rest().partition(b"\r\n\r\n")[2]
