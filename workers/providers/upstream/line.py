"""HTTP to an upstream provider: bounded in time and size, never redirected, and no secret in what it says."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Final, NoReturn

import orjson
import requests
import urllib3
from requests.adapters import HTTPAdapter

from app import __version__
from app.domain.webhook import parse_retry_after
from app.errors import (
    ContentRefused,
    ForbiddenAddress,
    ProviderBusy,
    ProviderDenied,
    ProviderDown,
    ProviderError,
    ProviderRefused,
    TooLarge,
)
from app.safe_http import Guard, guarded_pool, was_not_sent
from workers.providers.upstream.promise import AnswerLost
from workers.providers.upstream.words import is_about_account

_LONGEST_TOLD: Final = 300
_MAX_BYTES: Final = 96 * 1024 * 1024
"""Of an answer: ten images of 4 megapixels as base64 text are about that."""
_DENIED: Final = frozenset({401, 402})
"""These are about the whole account. A 403 may be about one model, or a feature that is not in the plan."""
_BUSY: Final = frozenset({425, 429})
_LOST: Final = frozenset({502, 504, 520, 524})
"""A gateway says these; what stands behind it may have taken the call."""
_LATER: Final = frozenset({408, 409})
_REDIRECTS: Final = 3
"""The hundreds of a redirect, which is never followed."""
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


class _Guarded(HTTPAdapter):
    """Takes requests to the guard's connections, whose meter ends an exchange also where headers drip."""

    def __init__(self, pool: urllib3.PoolManager) -> None:
        self._pool = pool
        super().__init__()

    def init_poolmanager(self, *_: Any, **__: Any) -> None:
        """Use the pool that is there."""
        self.poolmanager = self._pool


class Line:
    """One account's connection pool; threads share it.

    Args:
        guard: reaches the account's host, and public ones.
        timeout: of a whole exchange, from connecting to the last byte.
        key: never shown in an error.
        connections: kept open.
    """

    def __init__(
        self, *, base_url: str, guard: Guard, timeout: timedelta, key: str, connections: int
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._timeout = timeout.total_seconds()
        self._key = key
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy and no .netrc of the machine's
        self._session.headers["User-Agent"] = f"Darkroom/{__version__}"
        # What was packed could unpack to any size.
        self._session.headers["Accept-Encoding"] = "identity"
        pool = guarded_pool(
            guard, read_timeout=timeout, exchange=timeout, max_bytes=_MAX_BYTES, maxsize=connections
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Guarded(pool))

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
        # `from None` below: what the library says names addresses, and may hold a key.
        try:
            with self._session.request(
                method,
                f"{self._base_url}{path}",
                json=json,
                data=data,
                files=files,
                headers=dict(headers or {}),
                timeout=self._timeout,
                allow_redirects=False,
                stream=True,
            ) as response:
                body = response.raw.read(decode_content=False)
                return Answer(status=response.status_code, headers=response.headers, body=body)
        except ForbiddenAddress:
            raise ProviderDown(
                "The provider's base_url leads where DARKROOM_UPSTREAM_ALLOW does not."
            ) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, TooLarge) as error:
            if was_not_sent(error):
                raise ProviderDown("The provider cannot be reached.") from None
            raise AnswerLost("The provider's answer did not come whole, or not in time.") from None

    def told(self, text: object) -> str:
        """Give a vendor's own words as they may be shown: short, printable, without our key."""
        plain = "".join(letter if letter.isprintable() else " " for letter in str(text))
        return plain.replace(self._key, "…")[:_LONGEST_TOLD].strip() if self._key else plain[:_LONGEST_TOLD]

    def refuse(
        self, answer: Answer, message: object, *, code: object = None, content: bool = False
    ) -> NoReturn:
        """Raise what an answer that is no success means.

        Args:
            message: the vendor's own words.
            code: its code for them, where it has one.
            content: whether they say that it will not draw this.
        """
        says = self.told(message) or f"HTTP status {answer.status}"
        shut = answer.status in _DENIED or (
            answer.status == HTTPStatus.FORBIDDEN and is_about_account(code, message)
        )
        raise self._meaning(answer, says, content=content, shut=shut)

    def _meaning(self, answer: Answer, says: str, *, content: bool, shut: bool) -> ProviderError:
        status = answer.status
        if content:
            return ContentRefused(f"The provider will not draw this: {says}")
        if shut:
            return ProviderDenied(f"The provider does not let us in ({status}): {says}")
        if status in _BUSY:
            return ProviderBusy("The provider takes no more calls now.", retry_after=_pause(answer))
        if status in _LOST:
            return AnswerLost(f"A gateway answered in the provider's place ({status}).")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _LATER or status // 100 == _REDIRECTS:
            return ProviderDown(f"The provider answered {status}.", retry_after=_pause(answer))
        return ProviderRefused(f"The provider refused it: {says}")


def _pause(answer: Answer) -> timedelta | None:
    """How long the vendor asks us to wait, by Retry-After or by Realm's X-RateLimit-Reset."""
    now = datetime.now(UTC)
    found = parse_retry_after(answer.headers.get("Retry-After"), now=now)
    reset = answer.headers.get("X-RateLimit-Reset", "")
    if found is None and answer.status in _BUSY and reset.isascii() and reset.isdigit():
        found = timedelta(seconds=max(1, min(int(reset[:12]) - now.timestamp(), 600)))
    return None if found is None else min(found, _LONGEST_PAUSE)
