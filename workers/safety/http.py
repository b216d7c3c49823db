"""A safety service of the operator's, asked over HTTP."""

import io
import re
import time
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Final

import orjson
import requests
from PIL import Image
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

from app.domain.webhook import parse_retry_after
from app.errors import SafetyDown, SetupError
from workers.safety.views import views

_CONNECT: Final = 3.0
"""Seconds to connect."""
_VERDICT: Final = 20.0
"""Seconds without a byte, and seconds that an answer may take to come."""
_LONGEST_ANSWER: Final = 64 * 1024
"""Bytes; a verdict has 17, and some services tell scores and boxes besides."""
_LONGEST_SIDE: Final = 768
"""Pixels; classifiers look at 224 to 512, and a smaller image is a shorter wait."""
_PLACE: Final = re.compile(r"(https?://)(?:[^/?#]*@)?([^/?#]*)", re.IGNORECASE)
"""What may be told of an address: neither its password nor its query, which may hold a token."""


class HttpChecker:
    """Asks an HTTP service: POST of the image as PNG, answered by JSON with a boolean `flagged`.

    The address comes from the operator, so it is not guarded like a customer's; redirects are not followed.
    A transparent image is sent twice, as it shows and as it is beneath. Messages name host and port only.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        found = _PLACE.match(url)
        self._place = found[1] + found[2] if found else "DARKROOM_SAFETY_URL"

    def flagged(self, image: Image.Image) -> bool:
        """See `Checker`."""
        return any(self._ask(_as_png(view)) for view in views(image))

    def _ask(self, png: bytes) -> bool:
        try:
            status, retry_after, body = _exchange(self._url, png)
        except (requests.RequestException, HTTPError, HTTPException, OSError) as error:
            # Not in its own words: they hold the address whole.
            raise SafetyDown(
                f"The safety service at {self._place} does not answer ({type(error).__name__})."
            ) from error
        if status // 100 != 2:  # noqa: PLR2004 - success
            wait = parse_retry_after(retry_after, now=datetime.now(UTC))
            raise SafetyDown(f"The safety service at {self._place} answers with {status}.", retry_after=wait)
        return self._verdict(body)

    def _verdict(self, body: bytes) -> bool:
        try:
            told = orjson.loads(body)
        except ValueError:
            told = None
        found = told.get("flagged") if isinstance(told, dict) else None
        if not isinstance(found, bool):
            raise SafetyDown(
                f'The safety service at {self._place} must answer {{"flagged": true or false}} as JSON, '
                f"in at most {_LONGEST_ANSWER} bytes."
            )
        return found


def verify(url: str) -> None:
    """Look whether this can be an address; asks nobody.

    Raises:
        SetupError: it cannot.
    """
    try:
        requests.Request("POST", url).prepare()
    except requests.RequestException:
        raise SetupError(
            "DARKROOM_SAFETY_URL is no address of an HTTP service; write it like http://checker.internal:9000/."
        ) from None


def _exchange(url: str, png: bytes) -> tuple[int, str | None, bytes]:
    """Give the status, the header Retry-After and the body of what is answered to an image.

    The connection ends with this function: nothing that is raised of the answer keeps it.
    """
    with requests.post(
        url,
        data=png,
        headers={
            "Content-Type": "image/png",
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # what was packed could unpack to any size
            "Connection": "close",
        },
        timeout=(_CONNECT, _VERDICT),
        allow_redirects=False,
        stream=True,
    ) as answer:
        return answer.status_code, answer.headers.get("Retry-After"), _read(answer.raw)


def _as_png(view: Image.Image) -> bytes:
    view.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    file = io.BytesIO()
    view.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _read(answer: BaseHTTPResponse) -> bytes:
    """Give the answer, or what came of it until it was too long or took too long, which is no verdict."""
    until = time.monotonic() + _VERDICT
    received = b""
    while len(received) <= _LONGEST_ANSWER:
        piece = answer.read1(_LONGEST_ANSWER + 1 - len(received), decode_content=False)
        if not piece:
            return received
        if time.monotonic() > until:
            raise TimeoutError
        received += piece
    return b""
