"""Webhooks as a fake vendor sends them: unsigned, and to loopback alone."""

import contextlib
import json
import threading
import urllib.request
from typing import Any
from urllib.parse import urlsplit


def call_back(url: str, body: dict[str, Any], *, times: int) -> None:
    """Post a body so many times, one after the other, in a thread; what is answered does not matter."""
    if urlsplit(url).hostname == "127.0.0.1":
        threading.Thread(target=_post, args=(url, body, times), daemon=True).start()


def _post(url: str, body: dict[str, Any], times: int) -> None:
    for _ in range(times):
        request = urllib.request.Request(  # noqa: S310  # http, on loopback
            url, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5):  # noqa: S310  # as above
            pass
