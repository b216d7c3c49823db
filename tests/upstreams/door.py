"""A port on loopback that can be shut and opened again, and leaves no thread or socket behind."""

import contextlib
import socket
import threading
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from tests.upstreams.ledger import Ledger
from tests.upstreams.wire import Line, Request

_PATIENCE: Final = 6.0
"""Seconds until an answer under way ends: the longest thing it does is to fetch an image within 5."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, port: int, handler: type[BaseHTTPRequestHandler], ledger: Ledger) -> None:
        self.open: set[socket.socket] = set()
        self.changed = threading.Condition()
        self._ledger = ledger
        super().__init__(("127.0.0.1", port), handler)

    def accept(self) -> None:
        """Serve connections until `stop`, at rest between them; `serve_forever` would look at a clock."""
        while True:
            try:
                connection, address = self.socket.accept()
            except OSError:
                return
            self.process_request(connection, address)

    def stop(self) -> None:
        """Refuse connections, and let `accept` return."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.changed:
            self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self.changed:
            self.open.discard(request)
            self.changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        del request, client_address
        with self._ledger.lock:
            self._ledger.breakages.append(traceback.format_exc())

    def cut(self) -> None:
        """End all connections, and return when their threads are done with them."""
        with self.changed:
            for connection in self.open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self.changed.wait_for(lambda: not self.open, _PATIENCE)


class Door:
    """A port of its own, from the first `up` until `close`.

    Args:
        serve: answers a request over a line, and says whether the connection can be used again; runs in a
            thread of the connection, and may raise OSError when the client is gone.
        leaving: set when everything is to end; `Line` obeys it.
        ledger: gets tracebacks of what `serve` raises else.
    """

    def __init__(
        self, serve: Callable[[Request, Line], bool], leaving: threading.Event, ledger: Ledger
    ) -> None:
        self._handler = _handler(serve, leaving)
        self._ledger = ledger
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._kept: socket.socket | None = None
        self._port = 0
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._port}"

    def up(self) -> None:
        """Listen, if it does not."""
        with self._lock:
            if self._server is not None:
                return
            self._server = _Server(self._port, self._handler, self._ledger)
            self._port = self._server.server_address[1]
            self._keep(None)
            self._thread = threading.Thread(target=self._server.accept, daemon=True)
            self._thread.start()

    def down(self) -> None:
        """Refuse connections and cut those that there are; nobody else gets the port meanwhile."""
        with self._lock:
            if self._server is None or self._thread is None:
                return
            self._server.stop()
            self._thread.join()
            self._server.server_close()
            # Bound and not listening: connections are refused, and the system gives the port to nobody.
            kept = socket.socket()
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            kept.bind(("127.0.0.1", self._port))
            self._keep(kept)
            self._server.cut()
            self._server = None

    def close(self) -> None:
        """Give the port back."""
        self.down()
        self._keep(None)

    def _keep(self, kept: socket.socket | None) -> None:
        if self._kept is not None:
            self._kept.close()
        self._kept = kept


def _handler(
    serve: Callable[[Request, Line], bool], leaving: threading.Event
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_HEAD(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def do_DELETE(self) -> None:
            self._answer()

        def _answer(self) -> None:
            # A client that leaves, at any point, is none of the server's troubles.
            again = False
            with contextlib.suppress(OSError):
                again = serve(self._read(), Line(self.connection, leaving))
            self.close_connection |= not again

        def _read(self) -> Request:
            parts = urlsplit(self.path)
            return Request(
                method=self.command,
                path=parts.path,
                query=dict(parse_qsl(parts.query, keep_blank_values=True)),
                headers={name.lower(): value for name, value in self.headers.items()},
                raw=self.rfile.read(int(self.headers.get("Content-Length", 0))),
            )

        def handle_one_request(self) -> None:
            # Between requests too: our own end cuts connections that wait for a next one.
            self.close_connection = True
            with contextlib.suppress(OSError):
                super().handle_one_request()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler
