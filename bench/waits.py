"""The real application with three more addresses: a stream, a slow answer, and how many streams are open.

/bench/wait?seconds=N    a comment line at once and one per second, as an event stream does; holds a thread
/bench/slow?seconds=N    one answer after N seconds
/bench/open              how many of both are running
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final
from urllib.parse import parse_qs

from app.web import from_environment

StartResponse = Callable[..., Any]
_EVERY: Final = 1.0


class Waits:
    """Answers /bench/… itself and hands everything else on."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._lock = threading.Lock()
        self._open = 0

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        path = environ["PATH_INFO"]
        if not path.startswith("/bench/"):
            answer: Iterable[bytes] = self._application(environ, start_response)
            return answer
        seconds = float(parse_qs(environ["QUERY_STRING"]).get("seconds", ["0"])[0])
        if path == "/bench/wait":
            start_response("200 OK", [("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache")])
            return self._stream(seconds)
        if path == "/bench/slow":
            self._count(+1)
            time.sleep(seconds)  # the slow request itself
            self._count(-1)
        body = str(self._open).encode()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    def _stream(self, seconds: float) -> Iterator[bytes]:
        self._count(+1)
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                yield b": still here\n\n"
                time.sleep(min(_EVERY, max(0.0, end - time.monotonic())))  # the stream's own pace
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            self._open += change


def application() -> Waits:
    """Give the application for the environment's settings."""
    return Waits(from_environment())
