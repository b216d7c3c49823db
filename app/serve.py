"""Runs the Flask application under granian; docs/decisions/0003 says why granian."""

from typing import Final

from granian import Granian
from granian.constants import Interfaces
from granian.http import HTTP1Settings

from app.settings import Settings

_GRACE_SECONDS: Final = 25
_HEADERS_SECONDS: Final = 15
"""Longest a client may take to send its headers; slower ones hold a connection for nothing."""
_QUIET: Final[dict[str, object]] = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr"}},
    "loggers": {"_granian": {"level": "WARNING", "handlers": ["stderr"], "propagate": False}},
}
"""Granian's own records, warnings and worse; ours are configured by the application."""


def serve(settings: Settings, *, host: str, port: int, application: str = "app.web:from_environment") -> None:
    """Serve until SIGTERM or SIGINT, then let running requests end, at most 25 s.

    Args:
        application: `module:factory` of a WSGI application.

    Raises:
        SystemExit: the port is taken or the application cannot be built; the log says why.
    """
    server = Granian(
        application,
        factory=True,
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        workers=settings.web_processes,
        blocking_threads=settings.web_threads,
        # Beyond its threads a process lets this many requests wait; more wait in the listen queue.
        backpressure=settings.web_threads * 2,
        http1_settings=HTTP1Settings(header_read_timeout=_HEADERS_SECONDS * 1000),
        respawn_failed_workers=True,
        workers_kill_timeout=_GRACE_SECONDS,
        websockets=False,
        log_dictconfig=_QUIET,
    )
    server.serve()
