"""A running Darkroom inside the test's own process: a real HTTP server on loopback, a worker beside it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from werkzeug.serving import WSGIRequestHandler, make_server

from app import web
from app.db import Database
from app.settings import Settings
from app.storage import Storage
from tests.drawing import drawing
from workers import providers
from workers.providers.base import Provider


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing: a test's own output is what counts."""


@contextmanager
def serving(
    settings: Settings,
    database: Database,
    storage: Storage,
    *,
    provider: Callable[[str], Provider] = providers.load,
) -> Iterator[str]:
    """Serve on a free port, and run what is submitted; the value is the address, as http://127.0.0.1:41234.

    Args:
        provider: see `drawing`.
    """
    flask = web.create_app(settings)
    server = make_server("127.0.0.1", 0, flask, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="serving", daemon=True)
    thread.start()
    try:
        with drawing(settings, database, storage, provider=provider):
            yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(timeout=5)
        server.server_close()
        web.close(flask)
