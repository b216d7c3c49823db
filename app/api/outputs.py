"""Outputs at stable URLs of ours: 404 before, 200 while, 410 after; and keeping them: persist.

A URL holds 122 random bits and is its own permission, as an <img> tag can send no key. It is known before
the image exists, so a 404 is never cached.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Annotated, Final
from uuid import UUID

from flask import Blueprint, Response, redirect, request
from pydantic import BaseModel, ConfigDict, Field

from app import retention
from app.api import http
from app.api.operations import Operation, PathPart
from app.api.services import SHORT_LINK, Services
from app.db import outputs as rows
from app.db.history import JobRow, OutputRow
from app.domain.spec import ImageFormat
from app.errors import (
    DarkroomError,
    Gone,
    InvalidFields,
    ObjectMissing,
    RangeNotSatisfiable,
    UnknownOutput,
)
from app.settings import Settings
from app.storage import ObjectStream

PREFIXES: Final = ("/outputs", "/v1/outputs")
_NAME: Final = re.compile(r"([0-9a-f]{32})-(0|[1-9][0-9]?)\.(png|jpg|webp)")
_IMAGE_ID: Final = re.compile(r"img_([0-9a-f]{32})")
_RANGE: Final = re.compile(r"bytes\s*=\s*([0-9]{0,18})-([0-9]{0,18})\s*", re.IGNORECASE)
"""One range; 18 digits are more bytes than any store holds."""


class OutputShown(BaseModel):
    """An output of yours; `expires_at` is null once it is persisted."""

    model_config = ConfigDict(frozen=True)

    id: Annotated[str, Field(examples=["img_0193f0a27c3b7e4d8a1b2c3d4e5f6071"])]
    persisted: bool
    expires_at: http.Moment | None
    width: Annotated[int, Field(examples=[768])]
    height: Annotated[int, Field(examples=[512])]
    size: Annotated[int, Field(description="Bytes", examples=[412_873])]
    sha256: str


class Problem(BaseModel):
    """One field that cannot stay as it is."""

    field: str
    message: str


class ErrorBody(BaseModel):
    """What went wrong: a code for programs, a sentence for people, and the fields concerned."""

    code: str
    message: str
    details: list[Problem]


class ErrorShown(BaseModel):
    """The shape of every error of Darkroom's own endpoints."""

    error: ErrorBody


def output_url(row: OutputRow, job: JobRow, settings: Settings) -> str:
    """Give where an output is to be had: in its customer's bucket once it is there, else at our stable URL.

    Without the host where the request named none that can be.
    """
    if row.copy_url is not None:
        return row.copy_url
    name = f"{job.output_prefix.hex}-{row.index}.{ImageFormat(row.format).extension}"
    return f"{http.base_url(settings)}/outputs/{name}"


def present_error(error: DarkroomError) -> Response:
    """Give any error in the shape of our own endpoints."""
    problems = error.problems if isinstance(error, InvalidFields) else ()
    body = ErrorShown(
        error=ErrorBody(
            code=error.code,
            message=error.message,
            details=[Problem(field=p.field, message=p.message) for p in problems],
        )
    )
    return http.json_response(body.model_dump(mode="json"), error.http_status)


def blueprint(services: Services) -> Blueprint:
    """Give the endpoints, bound to a web process's services."""
    made = Blueprint("outputs", __name__)

    @made.get("/outputs/<name>")
    def download(name: str) -> Response:
        row = _find_by_name(name, services)
        # A presigned link is signed for GET alone, so HEAD is answered here, from the row.
        if services.settings.s3_public_endpoint and request.method != "HEAD":
            return _redirected(row, services)
        try:
            return _streamed(row, services)
        except ObjectMissing:
            # Purged since the row was read: then this raises Gone. Else the store lost it.
            _find_by_name(name, services)
            raise

    @made.post("/v1/outputs/<output_id>/persist")
    def persist(output_id: str) -> Response:
        holder = services.enter(bearer=True)
        return _shown(
            retention.persist(services.database, _parse_id(output_id), account_id=holder.account_id)
        )

    @made.delete("/v1/outputs/<output_id>/persist")
    def unpersist(output_id: str) -> Response:
        holder = services.enter(bearer=True)
        return _shown(
            retention.unpersist(
                services.settings, services.database, _parse_id(output_id), account_id=holder.account_id
            )
        )

    return made


def _find_by_name(name: str, services: Services) -> OutputRow:
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise UnknownOutput
    with services.database.autocommit() as tx:
        row = rows.by_name(tx, prefix=UUID(hex=parts[1]), index=int(parts[2]))
    if row is None or ImageFormat(row.format).extension != parts[3]:
        raise UnknownOutput("There is no output here, or not yet.")
    if row.expired:
        when = (row.purged_at or row.expires_at).astimezone(UTC)
        verb = "was deleted" if row.purged_at else "expired"
        raise Gone(f"This output {verb} at {when:%Y-%m-%dT%H:%M:%SZ}; persist outputs to keep them.")
    return row


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
        with ExitStack() as opened:
            opened.callback(services.streams.open())
            stream = services.storage.open_range(row.key, offset=begin, length=end - begin)
            opened.callback(stream.close)
            end_stream = opened.pop_all().close
            answer.response = _until_the_end(stream, end_stream)
            answer.call_on_close(end_stream)
    return answer


def _until_the_end(stream: ObjectStream, end: Callable[[], None]) -> Iterator[bytes]:
    """Give the pieces, and end the stream with the last one: not every server closes what it has read."""
    yield from stream
    end()


def _headers(row: OutputRow) -> dict[str, str]:
    return {
        "Accept-Ranges": "bytes",
        "Cache-Control": f"private, max-age={_seconds_left(row)}",
        "Content-Disposition": f'inline; filename="{_filename(row)}"',
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


def _seconds_left(row: OutputRow) -> int:
    hour = 3600
    if row.persisted_at is not None:
        return hour
    return max(0, min(hour, int((row.expires_at - datetime.now(UTC)).total_seconds())))


def _filename(row: OutputRow) -> str:
    return f"{row.id.hex}.{ImageFormat(row.format).extension}"


def _parse_id(shown: str) -> UUID:
    parts = _IMAGE_ID.fullmatch(shown)
    if parts is None:
        raise UnknownOutput
    return UUID(hex=parts[1])


def _shown(row: OutputRow) -> Response:
    body = OutputShown(
        id=f"img_{row.id.hex}",
        persisted=row.persisted_at is not None,
        expires_at=None if row.persisted_at else row.expires_at,
        width=row.width,
        height=row.height,
        size=row.size,
        sha256=row.sha256,
    )
    return http.json_response(body.model_dump(mode="json"))


_ERRORS: Final = dict.fromkeys((401, 403, 404, 410, 429, 503), ErrorShown)
_TAG: Final = "Outputs"
_BYTES: Final = tuple(each.media_type for each in ImageFormat)
_ID: Final = PathPart(
    name="id",
    description="The `imageId` of a completed job's result",
    example="img_0193f0a27c3b7e4d8a1b2c3d4e5f6071",
    pattern="^img_[0-9a-f]{32}$",
)
OPERATIONS: Final = (
    Operation(
        name="downloadOutput",
        method="GET",
        path="/outputs/{name}",
        summary="Download an output",
        description="The `url` from a completed job; whoever knows it needs no key. 404 before the image "
        "exists, 410 after it expired. Honours `Range` and `If-None-Match`. Redirects where the operator "
        "lets customers read from the object store.",
        parts=(
            PathPart(
                name="name",
                description="Last part of the `url`",
                example="5d0c8e1f2a3b4c5d8e9f0a1b2c3d4e5f-0.png",
                pattern=f"^{_NAME.pattern}$",
            ),
        ),
        answers={
            200: _BYTES,
            206: _BYTES,
            302: None,
            304: None,
            404: ErrorShown,
            410: ErrorShown,
            416: ErrorShown,
            503: ErrorShown,
        },
        secured=False,
        tag=_TAG,
    ),
    Operation(
        name="persistOutput",
        method="POST",
        path="/v1/outputs/{id}/persist",
        parts=(_ID,),
        summary="Keep an output for ever",
        description="410 when it has expired; harmless when repeated.",
        answers={200: OutputShown, **_ERRORS},
        bearer=True,
        tag=_TAG,
    ),
    Operation(
        name="releaseOutput",
        method="DELETE",
        path="/v1/outputs/{id}/persist",
        parts=(_ID,),
        summary="Let an output expire again",
        description="It expires at its old time, or a full retention from now when that has passed.",
        answers={200: OutputShown, **_ERRORS},
        bearer=True,
        tag=_TAG,
    ),
)
