"""`python -m bench.serve SERVER APPLICATION PORT`: one application under one WSGI server, one process.

granian runs as the product runs it (`app.serve`); the others get as many threads. They are no dependencies
of ours: `is_installed` says whether the bench can have them.
"""

import importlib.util
import os
import sys
from importlib import import_module
from typing import Final

from app.serve import serve
from app.settings import load
from bench.load import HOST

SERVERS: Final = ("granian", "gunicorn", "waitress")
GRACE_SECONDS: Final = 25


def is_installed(server: str) -> bool:
    """Whether this server can be started here."""
    return importlib.util.find_spec(server) is not None


def main(server: str, application: str, port: int) -> None:
    """Serve until SIGTERM; `application` is `module:factory`."""
    settings = load()
    if server == "granian":
        serve(settings, host=HOST, port=port, application=application)
    elif server == "gunicorn":
        options = {
            "worker-class": "gthread",
            "workers": "1",
            "threads": str(settings.web_threads),
            "bind": f"{HOST}:{port}",
            "graceful-timeout": str(GRACE_SECONDS),
            "timeout": "60",
            "log-level": "warning",
        }
        flags = [f"--{name}={value}" for name, value in options.items()]
        os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *flags, f"{application}()"])  # noqa: S606 - the same interpreter
    else:
        module, _, factory = application.partition(":")
        app = getattr(import_module(module), factory)()
        import_module("waitress").serve(app, host=HOST, port=port, threads=settings.web_threads)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
