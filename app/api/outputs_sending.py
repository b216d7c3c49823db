"""An output's bytes as an answer: whole, a range of them, as base64 text, or as a link into the object store.

Who may have them is for the caller to decide, and to raise what is to be said when the output is gone.
"""

import base64
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Final

from flask import Response, redirect, request

from app.api.outputs_errors import present_error
from app.api.services import SHORT_LINK, Services
from app.db.history import OutputRow
from app.domain.copies import TEXT_EXTENSION
from app.domain.job import Access
from app.domain.spec import ImageFormat
from app.errors import RangeNotSatisfiable

_RANGE: Final = re.compile(r"bytes\s*=\s*([0-9]{0,18})-([0-9]{0,18})\s*", re.IGNORECASE)
"""One range; 18 digits are more bytes than any store holds."""
_HOUR: Final = 3600
_LONGEST_PUBLIC: Final = 300
"""Seconds for which caches between us and a browser may keep a published image: so long they may serve it
after it is no longer public."""


def send(row: OutputRow, services: Services, *, as_text: bool = False) -> Response:
    """Give the answer to a request for an output's bytes; honours Range, If-Range and If-None-Match.

    Raises:
        ObjectMissing: the store has no such object: purged since the row was read, or lost.
        Busy: as many outputs are being sent as may be.
        StorageDown: the store does not answer.
    """
    if as_text:
        return _text_streamed(row, services)
    # A presigned link is signed for GET alone, so HEAD is answered here, from the row.
    if services.settings.s3_public_endpoint and request.method != "HEAD":
        return _redirected(row, services)
    return _streamed(row, services)


def _streamed(row: OutputRow, services: Services) -> Response:
    """The bytes, or the range asked for, straight from the store in small chunks."""
    answer = Response(mimetype=ImageFormat(row.format).media_type, headers=_headers(row))
    answer.set_etag(row.sha256)
    if request.if_none_match.contains_weak(row.sha256):
        answer.status_code = 304
        return answer
    begin, end = asked = _asked_range(row) or (0, row.size)
    if begin >= end:
        refusal = present_error(RangeNotSatisfiable(f"This output has {row.size:,} bytes."))
        refusal.headers["Content-Range"] = f"bytes */{row.size}"
        return refusal
    if asked != (0, row.size):
        answer.status_code = 206
        answer.headers["Content-Range"] = f"bytes {begin}-{end - 1}/{row.size}"
    answer.content_length = end - begin
    if request.method != "HEAD":
        _open(answer, row, services, begin=begin, end=end)
    return answer


def _text_streamed(row: OutputRow, services: Services) -> Response:
    """The image as plain base64 text, encoded on its way; whole, as nobody asks for a range of that."""
    answer = Response(
        mimetype="text/plain", headers={**_headers(row, TEXT_EXTENSION), "Accept-Ranges": "none"}
    )
    etag = f"{row.sha256}-{TEXT_EXTENSION}"
    answer.set_etag(etag)
    if request.if_none_match.contains_weak(etag):
        answer.status_code = 304
        return answer
    answer.content_length = -(-row.size // 3) * 4
    if request.method != "HEAD":
        _open(answer, row, services, begin=0, end=row.size, encode=_encoded)
    return answer


def _encoded(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Give base64 text of pieces of any length, without padding but at the end."""
    rest = b""
    for piece in pieces:
        rest += piece
        whole = len(rest) // 3 * 3
        yield base64.b64encode(rest[:whole])
        rest = rest[whole:]
    yield base64.b64encode(rest)


def _open(
    answer: Response,
    row: OutputRow,
    services: Services,
    *,
    begin: int,
    end: int,
    encode: Callable[[Iterable[bytes]], Iterable[bytes]] = iter,
) -> None:
    """Have an answer send an object, or a range of it, once it is known that it can be read."""
    with ExitStack() as opened:
        opened.callback(services.streams.open(row.account_id))
        stream = services.storage.open_range(row.key, offset=begin, length=end - begin)
        opened.callback(stream.close)
        end_stream = opened.pop_all().close
        answer.response = _until_the_end(encode(stream), end_stream)
        answer.call_on_close(end_stream)


def _until_the_end(pieces: Iterable[bytes], end: Callable[[], None]) -> Iterator[bytes]:
    """Give the pieces, and end the stream with the last one: not every server closes what it has read."""
    yield from pieces
    end()


def _headers(row: OutputRow, extension: str | None = None) -> dict[str, str]:
    return {
        "Accept-Ranges": "bytes",
        "Cache-Control": _cache_control(row),
        "Content-Disposition": f'inline; filename="{_filename(row, extension)}"',
        "X-Content-Type-Options": "nosniff",
    }


def _asked_range(row: OutputRow) -> tuple[int, int] | None:
    """First byte and end (exclusive) asked for, empty when it lies outside; None for the whole.

    As RFC 9110 section 14 has it: a range counts for GET only, and one that cannot be read, as also several
    at once, means the whole; so does an If-Range that is not the very ETag.
    """
    found = _RANGE.fullmatch(request.headers.get("Range", ""))
    condition = request.headers.get("If-Range", f'"{row.sha256}"')
    if found is None or request.method != "GET" or condition != f'"{row.sha256}"':
        return None
    first, last = found.groups()
    if first:
        end = min(int(last) + 1, row.size) if last else row.size
        return None if last and int(last) < int(first) else (int(first), end)
    return (max(0, row.size - int(last)), row.size) if last else None


def _redirected(row: OutputRow, services: Services) -> Response:
    """A presigned link that never outlives the output."""
    left = (row.expires_at - datetime.now(UTC)) if row.persisted_at is None else SHORT_LINK
    link = services.storage.presigned_get(
        row.key,
        expires=min(SHORT_LINK, left),
        filename=_filename(row),
        media_type=ImageFormat(row.format).media_type,
    )
    answer = redirect(link, code=302)
    answer.headers["Cache-Control"] = "no-store"
    assert isinstance(answer, Response)
    return answer


def _cache_control(row: OutputRow) -> str:
    if row.access is Access.PUBLIC:
        return f"public, max-age={_LONGEST_PUBLIC}"
    if row.persisted_at is not None:
        return f"private, max-age={_HOUR}"
    left = int((row.expires_at - datetime.now(UTC)).total_seconds())
    return f"private, max-age={max(0, min(_HOUR, left))}"


def _filename(row: OutputRow, extension: str | None = None) -> str:
    return f"{row.id.hex}.{extension or ImageFormat(row.format).extension}"
