"""HTTP to an upstream provider: bounded in time and size, never redirected, and no secret in what it says."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn

import orjson
import requests
import urllib3
from requests.adapters import HTTPAdapter

from app import __version__
from app.domain.webhook import parse_retry_after
from app.errors import (
    ContentRefused,
    ProviderBusy,
    ProviderDenied,
    ProviderDown,
    ProviderError,
    ProviderRefused,
)
from workers.providers.upstream.promise import AnswerLost

_CONNECT: Final = 5.0
"""Seconds."""
_PIECE: Final = 64 * 1024
_LONGEST_TOLD: Final = 300
_MAX_BYTES: Final = 96 * 1024 * 1024
"""Of an answer: ten images of 4 megapixels as base64 text are about that."""
_DENIED: Final = frozenset({401, 402, 403})
_BUSY: Final = frozenset({425, 429})
_LOST: Final = frozenset({502, 504, 520, 524})
"""A gateway says these; what stands behind it may have taken the call."""
_LONGEST_PAUSE: Final = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a vendor answered: status, headers, and the body's bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Give the body's JSON object.

        Raises:
            AnswerLost: it is none: whatever was asked for may have been done all the same.
        """
        try:
            found = orjson.loads(self.body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise AnswerLost("The provider's answer is not JSON.")
        return found


class Line:
    """One account's connection pool; threads share it.

    Args:
        timeout: of a whole exchange, from connecting to the last byte.
        key: never shown in an error.
    """

    def __init__(self, *, base_url: str, timeout: timedelta, key: str, connections: int) -> None:
        self.base_url = base_url.rstrip("/")
        self._timeout = timeout.total_seconds()
        self._key = key
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy and no .netrc of the machine's
        self._session.headers["User-Agent"] = f"Darkroom/{__version__}"
        pool = HTTPAdapter(pool_connections=1, pool_maxsize=connections, max_retries=0)
        self._session.mount("http://", pool)
        self._session.mount("https://", pool)

    def send(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, object] | None = None,
        data: Mapping[str, str] | None = None,
        files: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request and give the answer, whatever its status.

        Raises:
            ProviderDown: nothing was sent: no connection.
            AnswerLost: it was sent, and no whole answer came within the time.
        """
        end = time.monotonic() + self._timeout
        # `from None` below: what the library says names addresses, and may hold a key.
        try:
            with self._session.request(
                method,
                f"{self.base_url}{path}",
                json=json,
                data=data,
                files=files,
                headers=dict(headers or {}),
                timeout=(min(_CONNECT, self._timeout), self._timeout),
                allow_redirects=False,
                stream=True,
            ) as response:
                return Answer(
                    status=response.status_code,
                    headers=response.headers,
                    body=_body(response, end),
                )
        except requests.exceptions.ConnectTimeout:
            raise ProviderDown("The provider cannot be reached.") from None
        except requests.exceptions.SSLError:
            raise ProviderDown("The provider does not show a certificate that can be trusted.") from None
        except requests.exceptions.ConnectionError as error:
            if "NewConnectionError" in repr(error) or "NameResolutionError" in repr(error):
                raise ProviderDown("The provider cannot be reached.") from None
            raise AnswerLost("The provider broke off the connection.") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError):
            raise AnswerLost("The provider did not answer in time.") from None

    def told(self, text: object) -> str:
        """Give a vendor's own words as they may be shown: short, printable, without our key."""
        plain = "".join(letter if letter.isprintable() else " " for letter in str(text))
        return plain.replace(self._key, "…")[:_LONGEST_TOLD].strip() if self._key else plain[:_LONGEST_TOLD]

    def refuse(self, answer: Answer, message: object, *, content: bool = False) -> NoReturn:
        """Raise what an answer that is no success means.

        Args:
            message: the vendor's own words.
            content: whether they say that it will not draw this.
        """
        raise self._meaning(answer, self.told(message) or f"HTTP status {answer.status}", content=content)

    def _meaning(self, answer: Answer, says: str, *, content: bool) -> ProviderError:
        status = answer.status
        if content:
            return ContentRefused(f"The provider will not draw this: {says}")
        if status in _DENIED:
            return ProviderDenied(f"The provider does not let us in ({status}): {says}")
        if status in _BUSY:
            return ProviderBusy("The provider takes no more calls now.", retry_after=_pause(answer))
        if status in _LOST:
            return AnswerLost(f"A gateway answered in the provider's place ({status}).")
        if status >= 500 or status in {408, 409} or 300 <= status < 400:  # noqa: PLR2004 - HTTP's
            return ProviderDown(f"The provider answered {status}.", retry_after=_pause(answer))
        return ProviderRefused(f"The provider refused it: {says}")


def _body(response: requests.Response, end: float) -> bytes:
    """Read a body within the time and the size allowed; also where it comes drop by drop."""
    data = bytearray()
    raw = response.raw
    while True:
        piece = raw.read1(_PIECE, decode_content=True)
        if not piece:
            return bytes(data)
        data += piece
        if len(data) > _MAX_BYTES:
            raise AnswerLost("The provider's answer is too long.")
        if time.monotonic() > end:
            raise AnswerLost("The provider did not answer in time.")


def _pause(answer: Answer) -> timedelta | None:
    """How long the vendor asks us to wait, by Retry-After or by Realm's X-RateLimit-Reset."""
    now = datetime.now(UTC)
    found = parse_retry_after(answer.headers.get("Retry-After"), now=now)
    reset = answer.headers.get("X-RateLimit-Reset", "")
    if found is None and answer.status in _BUSY and reset.isascii() and reset.isdigit():
        found = timedelta(seconds=max(1, min(int(reset[:12]) - now.timestamp(), 600)))
    return None if found is None else min(found, _LONGEST_PAUSE)
