"""What its owner does with an output, with a key: look at it, keep it, publish it, download it, delete it."""

import re
from datetime import UTC
from typing import Any, Final
from uuid import UUID

from flask import Blueprint, Response

from app import retention
from app.api import http
from app.api.operations import Operation, PathPart
from app.api.outputs_errors import ErrorShown
from app.api.outputs_sending import send
from app.api.services import Services
from app.db import history
from app.db import outputs as rows
from app.db.history import OutputRow
from app.domain.job import OutputState
from app.domain.spec import ImageFormat
from app.errors import Gone, ObjectMissing, UnknownOutput
from app.shown import IMAGE_PREFIX, OutputShown, output_shown

_PATTERN: Final = f"^{IMAGE_PREFIX}[0-9a-f]{{32}}$"


def add_endpoints(made: Blueprint, services: Services) -> None:
    """Add the endpoints to a blueprint, bound to a web process's services."""
    _add_reading(made, services)
    _add_keeping(made, services)
    _add_publishing(made, services)


def refuse_gone(row: OutputRow) -> None:
    """Return if an output can be had.

    Raises:
        Gone: it expired or was deleted; the message says when.
    """
    if not row.expired:
        return
    if row.purged_at is None and row.state != OutputState.LIVE:
        raise Gone("This output was deleted.")
    when = (row.purged_at or row.expires_at).astimezone(UTC)
    verb = "was deleted" if row.purged_at else "expired"
    raise Gone(f"This output {verb} at {when:%Y-%m-%dT%H:%M:%SZ}; persist outputs to keep them.")


def _add_reading(made: Blueprint, services: Services) -> None:
    @made.get("/v1/outputs/<output_id>")
    def read(output_id: str) -> Response:
        return _shown(_find(output_id, services), services)

    @made.get("/v1/outputs/<output_id>/download")
    def download_own(output_id: str) -> Response:
        row = _find(output_id, services)
        refuse_gone(row)
        try:
            return send(row, services)
        except ObjectMissing:
            # Purged since the row was read: then this raises Gone. Else the store lost it.
            refuse_gone(_find(output_id, services))
            raise

    @made.delete("/v1/outputs/<output_id>")
    def discard(output_id: str) -> Response:
        holder = services.enter(bearer=True)
        retention.discard(services.database, _parse_id(output_id), account_id=holder.account_id)
        return http.empty()


def _add_keeping(made: Blueprint, services: Services) -> None:
    @made.post("/v1/outputs/<output_id>/persist")
    def persist(output_id: str) -> Response:
        holder = services.enter(bearer=True)
        row = retention.persist(services.database, _parse_id(output_id), account_id=holder.account_id)
        return _shown(row, services)

    @made.delete("/v1/outputs/<output_id>/persist")
    def unpersist(output_id: str) -> Response:
        holder = services.enter(bearer=True)
        row = retention.unpersist(
            services.settings, services.database, _parse_id(output_id), account_id=holder.account_id
        )
        return _shown(row, services)


def _add_publishing(made: Blueprint, services: Services) -> None:
    @made.post("/v1/outputs/<output_id>/publish")
    def publish(output_id: str) -> Response:
        holder = services.enter(bearer=True)
        row = retention.publish(services.database, _parse_id(output_id), account_id=holder.account_id)
        return _shown(row, services)

    @made.delete("/v1/outputs/<output_id>/publish")
    def unpublish(output_id: str) -> Response:
        holder = services.enter(bearer=True)
        row = retention.unpublish(services.database, _parse_id(output_id), account_id=holder.account_id)
        return _shown(row, services)


def _find(output_id: str, services: Services) -> OutputRow:
    """The caller's output, gone or not; names the caller and counts the request."""
    holder = services.enter(bearer=True)
    with services.database.autocommit() as tx:
        row = rows.by_id(tx, _parse_id(output_id), account_id=holder.account_id)
    if row is None:
        raise UnknownOutput
    return row


def _parse_id(shown: str) -> UUID:
    if not re.fullmatch(_PATTERN, shown):
        raise UnknownOutput
    return UUID(hex=shown.removeprefix(IMAGE_PREFIX))


def _shown(row: OutputRow, services: Services) -> Response:
    with services.database.autocommit() as tx:
        job = history.find_job(tx, row.job_id, account_id=http.caller().account_id)
    assert job is not None
    base_url = http.base_url(services.settings)
    body = output_shown(row, prefix=job.output_prefix, base_url=base_url)
    return http.json_response(body.model_dump(mode="json"))


_ERRORS: Final = dict.fromkeys((401, 403, 404, 429, 503), ErrorShown)
_LATE: Final = {**_ERRORS, 410: ErrorShown}
_BYTES: Final = tuple(each.media_type for each in ImageFormat)
_ID: Final = (
    PathPart(
        name="id",
        description="The `id` of an output, which Realm's API calls `imageId`",
        example="img_0193f0a27c3b7e4d8a1b2c3d4e5f6071",
        pattern=_PATTERN,
    ),
)


def _described(name: str, method: Any, path: str, answers: dict[int, Any], **more: Any) -> Operation:
    return Operation(
        name=name,
        method=method,
        path=path,
        answers=answers,
        parts=_ID,
        bearer=True,
        counted=True,
        tag="Outputs",
        **more,
    )


OPERATIONS: Final = (
    _described(
        "readOutput",
        "GET",
        "/v1/outputs/{id}",
        {200: OutputShown, **_ERRORS},
        summary="Get an output",
        description="All about an image of yours but its bytes, also after it is gone.",
    ),
    _described(
        "discardOutput",
        "DELETE",
        "/v1/outputs/{id}",
        {204: None, **_LATE},
        summary="Delete an output",
        description="Kept, published or not; at once for everybody, and for good. 410 when it is deleted "
        "already.",
    ),
    _described(
        "downloadOwnOutput",
        "GET",
        "/v1/outputs/{id}/download",
        {200: _BYTES, 206: _BYTES, 302: None, 304: None, **_LATE, 416: ErrorShown},
        summary="Download an output with your key",
        description="Also while it is private. Honours `Range` and `If-None-Match`. Redirects where the "
        "operator lets customers read from the object store.",
    ),
    _described(
        "persistOutput",
        "POST",
        "/v1/outputs/{id}/persist",
        {200: OutputShown, **_LATE},
        summary="Keep an output for ever",
        description="410 when it has expired; harmless when repeated.",
    ),
    _described(
        "releaseOutput",
        "DELETE",
        "/v1/outputs/{id}/persist",
        {200: OutputShown, **_LATE},
        summary="Let an output expire again",
        description="It expires at its old time, or a full retention from now when that has passed.",
    ),
    _described(
        "publishOutput",
        "POST",
        "/v1/outputs/{id}/publish",
        {200: OutputShown, **_LATE},
        summary="Publish an output",
        description="Everybody may fetch it from its `url`, and caches may keep it for five minutes. It is "
        "persisted with that. Harmless when repeated.",
    ),
    _described(
        "unpublishOutput",
        "DELETE",
        "/v1/outputs/{id}/publish",
        {200: OutputShown, **_LATE},
        summary="Make an output private",
        description="Only you may fetch it, with a key, whether it was published or not; it stays persisted "
        "if it is.",
    ),
)
