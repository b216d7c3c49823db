"""An account's images as IMG Processing shows them: one by its id, pages of them, and their bytes.

What a test key made is seen with test keys only, and what a live key made with live keys only.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from urllib.parse import urlencode
from uuid import UUID

from flask import Response, request

from app.api import http
from app.api.imgprocessing_ids import image_id, output_id, unknown
from app.api.imgprocessing_models import Image, ImageList, Links, ListQuery
from app.api.services import Services
from app.db import library, outputs
from app.db.history import OutputRow
from app.domain.job import Access
from app.domain.spec import ImageFormat
from app.errors import FieldProblem, InvalidFields, ObjectMissing, UnknownOutput
from app.shown import output_url
from app.storage import ObjectStream

PATH = "/v1/images"


def find(shown: str, services: Services) -> OutputRow:
    """Give the caller's image with this id.

    Raises:
        UnknownOutput: there is none in the part of the library that the caller's key sees.
    """
    holder = http.caller()
    with services.database.autocommit() as tx:
        row = outputs.in_library(tx, output_id(shown), account_id=holder.account_id, test=holder.test)
    if row is None:
        raise unknown(shown)
    return row


def present(rows: Sequence[OutputRow], services: Services) -> list[Image]:
    """Give images as they are shown."""
    base_url = http.base_url(services.settings)
    with services.database.autocommit() as tx:
        found = library.prefixes(tx, [row.job_id for row in rows if row.access is not Access.PRIVATE])
    return [
        Image(
            id=image_id(row.id),
            name=row.name or "",
            url=output_url(row, prefix=found[row.job_id], base_url=base_url) if row.job_id in found else None,
            width=row.width,
            height=row.height,
            format=ImageFormat(row.format).value,
            size=row.size,
            created_at=row.created_at,
        )
        for row in rows
    ]


def page(query: ListQuery, services: Services) -> ImageList:
    """Give a page of the library and the links to those beside it.

    Raises:
        InvalidFields: `from` is no id. One of an image that was deleted still marks its place.
    """
    holder = http.caller()
    start = _place(query.start)
    with services.database.autocommit() as tx:
        found = outputs.library(
            tx, account_id=holder.account_id, test=holder.test, start=start, limit=query.take + 1
        )
        newest = found[0].id if found else start
        newer: list[OutputRow] = []
        if start is not None and newest is not None:
            newer = outputs.newer_in_library(
                tx, account_id=holder.account_id, test=holder.test, than=newest, limit=query.take
            )
    links = Links(
        previous=_link(newer[0].id, query, services) if newer else None,
        next=_link(found[query.take].id, query, services) if len(found) > query.take else None,
    )
    return ImageList(data=present(found[: query.take], services), links=links)


def _place(shown: str | None) -> UUID | None:
    try:
        return None if shown is None else output_id(shown)
    except UnknownOutput:
        message = "must be the id of an image; leave it out to begin with the newest"
        raise InvalidFields(FieldProblem(field="from", message=message)) from None


def _link(first: UUID, query: ListQuery, services: Services) -> str:
    words = urlencode({"take": query.take, "from": image_id(first)})
    return f"{http.base_url(services.settings)}{PATH}?{words}"


def download(shown: str, services: Services) -> Response:
    """Give an image's bytes.

    Raises:
        UnknownOutput: see `find`; also when it was deleted this very moment.
        Busy: too many images are being sent already.
    """
    row = find(shown, services)
    image_format = ImageFormat(row.format)
    answer = Response(mimetype=image_format.media_type)
    answer.headers["Cache-Control"] = "private, no-store"
    answer.headers["Content-Disposition"] = f'inline; filename="{shown}.{image_format.extension}"'
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.content_length = row.size
    if request.method != "HEAD":
        _stream(row, answer, services)
    return answer


def _stream(row: OutputRow, answer: Response, services: Services) -> None:
    with ExitStack() as opened:
        opened.callback(services.streams.open(row.account_id))
        try:
            stream = services.storage.open_range(row.key)
        except ObjectMissing:
            find(image_id(row.id), services)  # raises when it was deleted meanwhile; else the store lost it
            raise
        opened.callback(stream.close)
        end = opened.pop_all()
        answer.response = _until_the_end(stream, end)
        answer.call_on_close(end.close)


def _until_the_end(stream: ObjectStream, end: ExitStack) -> Iterator[bytes]:
    """Give the pieces, and end the stream with the last one: not every server closes what it has read."""
    yield from stream
    end.close()
