"""The ModelsLab dialect's door: a body is read, the key taken out of it, and its owner named."""

from contextlib import AbstractContextManager, suppress
from typing import Any, Final
from uuid import UUID

from flask import request
from werkzeug.exceptions import RequestEntityTooLarge

from app.api import http
from app.api.services import Services
from app.errors import RequestError, Unauthenticated
from app.settings import Settings

_NOBODY: Final = UUID(int=0)
"""In whose name a body is read that a header names no owner for; all such bodies share his places."""
_PLACES_OF_LARGE: Final = 4
"""Places of nobody's that a large body counts for: whoever it is may send 35 MB before he is asked for a key,
which as JSON take twice that, and 32 such bodies at a time filled the memory of a web process."""


def generation_limit(settings: Settings) -> int:
    """Give the largest JSON body of a generation, bytes: as many bytes of images as a form may have."""
    return settings.max_upload_bytes * 4 // 3 + settings.max_json_bytes


def enter(services: Services, *, limit: int | None = None) -> dict[str, Any]:
    """Name the caller, count the request, and give the body's members without its key.

    The key is the body's member `key`, else the header `key`, else `Authorization: Bearer`, else X-API-Key.
    Members that are null or blank are left out, as they mean the default. An absent body is an empty one.

    Args:
        limit: largest body in bytes; None: DARKROOM_MAX_JSON_BYTES.

    Raises:
        Unauthenticated, AccountDisabled, RateLimited, and what `http.read_json` raises.
    """
    by_header = _header_key()
    try:
        content = _read(services, limit or services.settings.max_json_bytes, by_header)
    except RequestError:
        # Broken bodies count too; whose a body is that has the key in it cannot be told then.
        if by_header is None:
            services.rate_limit.count(None)
        else:
            _admit(services, by_header)
        raise
    sent = content.pop("key", None)
    _admit(services, by_header if sent is None or sent == "" else sent)
    return {name: value for name, value in content.items() if not _is_blank(name, value)}


def _header_key() -> str | None:
    return request.headers.get("key") or _bearer() or request.headers.get("X-API-Key")


def _bearer() -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _read(services: Services, limit: int, by_header: str | None) -> dict[str, Any]:
    with _reading(services, by_header):
        _refuse_crowds(limit, small=services.settings.max_json_bytes)
        is_absent = not request.content_length and not request.get_data(cache=True)
        content = {} if is_absent else http.read_json(request, limit=limit)
    # Werkzeug would keep the body to the end of a request that may yet wait half a minute for its images.
    request.__dict__.pop("_cached_data", None)
    return content


def _reading(services: Services, by_header: str | None) -> AbstractContextManager[None]:
    """Count the body while it is read: for the account that a header's key proves, else among nobody's."""
    if by_header is not None:
        with suppress(RequestError):
            return services.bodies.reading(services.keys.holder(by_header).account_id)
    is_small = (request.content_length or 0) <= services.settings.max_json_bytes
    is_small &= "Transfer-Encoding" not in request.headers
    return services.unnamed_bodies.reading(_NOBODY, places=1 if is_small else _PLACES_OF_LARGE)


def _refuse_crowds(limit: int, *, small: int) -> None:
    request.max_content_length = limit + 1
    try:
        body = request.get_data(cache=True)  # read_json finds it there
    except RequestEntityTooLarge:
        return  # which read_json tells
    http.refuse_crowd(body, small=small)


def _admit(services: Services, key: object) -> None:
    try:
        services.admit(key if isinstance(key, str) else None)
    except Unauthenticated:
        told = "API key required" if key is None else "Invalid API key"
        raise Unauthenticated(told) from None


def _is_blank(name: str, value: object) -> bool:
    if isinstance(value, str):
        # An empty track_id is told again as it was sent.
        return (not value or value.isspace()) and name != "track_id"
    return value is None
