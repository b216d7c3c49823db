"""The ModelsLab dialect's door: a body is read, the key taken out of it, and its owner named."""

from typing import Any, Final
from uuid import UUID

from flask import request
from werkzeug.exceptions import RequestEntityTooLarge

from app.api import http
from app.api.services import Services
from app.errors import BodyTooLarge, RequestError, Unauthenticated
from app.settings import Settings

_NOBODY: Final = UUID(int=0)
"""In whose name a body is read that a header names no owner for; all such bodies share his places."""


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
    with services.bodies.reading(_reader(services, by_header)):
        _refuse_crowds(limit, most=services.settings.max_json_bytes)
        is_absent = not request.content_length and not request.get_data(cache=True)
        content = {} if is_absent else http.read_json(request, limit=limit)
    # Werkzeug would keep the body to the end of a request that may yet wait half a minute for its images.
    request.__dict__.pop("_cached_data", None)
    return content


def _reader(services: Services, by_header: str | None) -> UUID:
    """In whose name the body is read: the account that a header's key proves, else nobody's."""
    if by_header is None:
        return _NOBODY
    try:
        return services.keys.holder(by_header).account_id
    except RequestError:
        return _NOBODY


def _refuse_crowds(limit: int, *, most: int) -> None:
    """Refuse a large body of many small members, which as objects of Python would take twenty times as much.

    What makes a body large here is base64 text, which has no comma.
    """
    request.max_content_length = limit + 1
    try:
        body = request.get_data(cache=True)  # read_json finds it there
    except RequestEntityTooLarge:
        return  # which read_json tells
    if len(body) > most and body.count(b",") > most // 2:
        raise BodyTooLarge(f"A body of more than {most:,} bytes may hold little but images as base64 text.")


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
