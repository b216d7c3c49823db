"""Outputs at stable URLs of ours: 404 before, 200 while, 410 after.

A URL holds 122 random bits and is its own permission, as an <img> tag can send no key. It is known before
the image exists, so a 404 is never cached. What their owners do with outputs is in `outputs_owned`.
"""

import re
from typing import Final
from uuid import UUID

from flask import Blueprint, Response

from app.api import outputs_errors, outputs_owned
from app.api.operations import Operation, PathPart
from app.api.outputs_errors import ErrorShown
from app.api.outputs_sending import send
from app.api.services import Services
from app.db import outputs as rows
from app.db.history import OutputRow
from app.domain.copies import TEXT_EXTENSION
from app.domain.spec import ImageFormat
from app.errors import ObjectMissing, UnknownOutput

__all__ = ["OPERATIONS", "PREFIXES", "ErrorShown", "blueprint", "present_error"]

PREFIXES: Final = ("/outputs", "/v1/outputs")
_NAME: Final = re.compile(rf"([0-9a-f]{{32}})-(0|[1-9][0-9]?)\.(png|jpg|webp|{TEXT_EXTENSION})")
present_error = outputs_errors.present_error


def blueprint(services: Services) -> Blueprint:
    """Give the endpoints, bound to a web process's services."""
    made = Blueprint("outputs", __name__)

    @made.get("/outputs/<name>")
    def download(name: str) -> Response:
        row = _find_by_name(name, services)
        try:
            return send(row, services, as_text=name.endswith(f".{TEXT_EXTENSION}"))
        except ObjectMissing:
            # Purged since the row was read: then this raises Gone. Else the store lost it.
            _find_by_name(name, services)
            raise

    outputs_owned.add_endpoints(made, services)
    return made


def _find_by_name(name: str, services: Services) -> OutputRow:
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise UnknownOutput
    with services.database.autocommit() as tx:
        row = rows.by_name(tx, prefix=UUID(hex=parts[1]), index=int(parts[2]))
    if row is None or parts[3] not in {ImageFormat(row.format).extension, TEXT_EXTENSION}:
        raise UnknownOutput("There is no output here, or not yet.")
    outputs_owned.refuse_gone(row)
    return row


_BYTES: Final = tuple(each.media_type for each in ImageFormat)
_BYTES_OR_TEXT: Final = (*_BYTES, "text/plain")
OPERATIONS: Final = (
    Operation(
        name="downloadOutput",
        method="GET",
        path="/outputs/{name}",
        summary="Download an output",
        description="The `url` from a completed job; whoever knows it needs no key. 404 before the image "
        "exists, 410 after it expired. Honours `Range` and `If-None-Match`. Redirects where the operator "
        "lets customers read from the object store. With `.base64` in place of the extension it is the "
        "image as base64 text.",
        parts=(
            PathPart(
                name="name",
                description="Last part of the `url`",
                example="5d0c8e1f2a3b4c5d8e9f0a1b2c3d4e5f-0.png",
                pattern=f"^{_NAME.pattern}$",
            ),
        ),
        answers={
            200: _BYTES_OR_TEXT,
            206: _BYTES,
            302: None,
            304: None,
            404: ErrorShown,
            410: ErrorShown,
            416: ErrorShown,
            503: ErrorShown,
        },
        secured=False,
        tag="Outputs",
    ),
    *outputs_owned.OPERATIONS,
)
