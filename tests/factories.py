"""Pictures and request bodies that tests send, and how a refusal looks."""

import io
import re
from typing import Any

from PIL import Image
from werkzeug.test import TestResponse

from app.db import Database
from app.storage import Storage
from tests import rows

GENERATE = "/v1/images/generate"
MODIFY = "/v1/images/modify"
Part = tuple[io.BytesIO, str]
_JARGON = re.compile(
    r"pydantic|Value error|Input should|validation|psycopg|sqlalchemy|object at|None\b|http://|inputs/|outputs/"
)


def picture(
    width: int = 8, height: int = 8, *, kind: str = "PNG", mode: str = "RGB", **options: Any
) -> bytes:
    """An image file of one grey."""
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, kind, **options)
    return file.getvalue()


def turned(kind: str, *, orientation: int, width: int, height: int) -> bytes:
    """An image file whose EXIF has this orientation; width and height are those it is stored with."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return picture(width, height, kind=kind, exif=exif)


def file_part(data: bytes | None = None, name: str = "photo.png") -> Part:
    """A file for a multipart body; a small picture unless told otherwise."""
    return io.BytesIO(picture() if data is None else data), name


def form(**fields: Any) -> dict[str, Any]:
    """A multipart body that modify accepts, with these fields in place of its own; None leaves one out."""
    whole = {"modelId": "sketch", "prompt": "in winter", "image": file_part(), **fields}
    return {name: value for name, value in whole.items() if value is not None}


def body(**fields: Any) -> dict[str, Any]:
    """A JSON body that generate accepts, with these members besides or instead."""
    return {"modelId": "sketch", "prompt": "a hill", **fields}


def written(database: Database, storage: Storage) -> dict[str, int]:
    """How much requests have left behind: rows per table, and input objects of which no row knows."""
    tables = ("jobs", "job_events", "inputs", "idempotency_keys")
    found = {table: rows.query(database, f"SELECT count(*) AS rows FROM {table}")[0].rows for table in tables}
    known = {row.key for row in rows.query(database, "SELECT key FROM inputs")}
    accounts = rows.query(database, "SELECT id FROM accounts")
    stored = {each.key for account in accounts for each in storage.list(f"inputs/{account.id}/")}
    return {**found, "orphans": len(stored - known)}


NOTHING = {"jobs": 0, "job_events": 0, "inputs": 0, "idempotency_keys": 0, "orphans": 0}
"""What `written` gives when nothing was."""


def refused(answer: TestResponse, status: int) -> dict[str, str]:
    """Check that an answer is an error in Realm's one shape; gives message by field, "" for all of it."""
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/json"
    assert {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"} <= set(answer.headers.keys())
    assert re.fullmatch("[0-9a-f]{16}", answer.headers["X-Request-Id"])
    assert answer.json is not None
    assert answer.json.keys() == {"error"}
    error = answer.json["error"]
    assert error.keys() == {"code", "message", "details"}
    assert re.fullmatch("[A-Z_]+", error["code"])
    assert not _JARGON.search(error["message"]), error["message"]
    if error["details"]:
        assert error["message"] == "; ".join(f"{d['field']}: {d['message']}" for d in error["details"])
        return {detail["field"]: detail["message"] for detail in error["details"]}
    return {"": error["message"]}
