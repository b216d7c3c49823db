"""Each pair in realm/ is a request and its answer, word for word but for <ids>, <times> and the like."""

import io
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask.testing import FlaskClient

from app import web
from app.db import Database
from app.domain.spec import Operation, StoredImage
from app.settings import Settings
from tests import rows
from tests.conftest import Account
from tests.factories import picture

PAIRS = sorted((Path(__file__).parent / "realm").glob("*.json"))
FILES = {
    "photo.jpg": picture(40, 30, kind="JPEG"),
    "photo.png": picture(40, 30),
    "mask.png": picture(40, 30, mode="L"),
    "notes.png": b"just some text",
}
"""What the form parts `{"file": name}` hold."""
PLACEHOLDERS = {
    "<job id>": r"job_[0-9a-f]{32}",
    "<image id>": r"img_[0-9a-f]{32}",
    "<time>": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z",
    "<output url>": r"http://localhost/outputs/[0-9a-f]{32}-\d\.png",
    "<unix time>": r"1[789]\d{8}",
    "<request id>": r"[0-9a-f]{16}",
    "<number>": r"\d+",
}
ON_EVERY_ANSWER = {
    "Content-Type": "application/json",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Request-Id": "<request id>",
    "X-RateLimit-Limit": "100000",
    "X-RateLimit-Remaining": "<number>",
    "X-RateLimit-Reset": "<unix time>",
}
FAILED = {"status": "failed", "finished_at": "now()", "started_at": "now()"}
STATES: dict[str, dict[str, Any]] = {
    "queued": {},
    "processing": {
        "status": "processing",
        "attempt": 1,
        "progress": 0.25,
        "started_at": "now()",
        "lease_owner": "host:1:0",
        "lease_until": "now() + interval '1 minute'",
        "deadline_at": "now() + interval '1 minute'",
    },
    "waiting for its second attempt": {"attempt": 1, "progress": 0.25, "started_at": "now()"},
    "completed": {"status": "completed", "finished_at": "now()", "started_at": "now()"},
    "failed": {**FAILED, "error_code": "timeout", "error_message": "The job ran longer than allowed."},
    "failed without a message": {**FAILED, "error_code": "provider_failed"},
    "cancelled": {"status": "cancelled", "finished_at": "now()"},
}
STORED = StoredImage(key="inputs/x", sha256="0" * 64, width=40, height=30)


@pytest.fixture(scope="module")
def client(base_settings: Settings) -> Iterator[FlaskClient]:
    """One application for all pairs; each comes from an account of its own."""
    flask = web.create_app(base_settings.model_copy(update={"rate_limit_per_minute": 100_000}))
    yield flask.test_client()
    web.close(flask)


def given(pair: dict[str, Any], database: Database, owner: UUID) -> str:
    """Put the job into the tables that the pair starts from; gives its id as customers see it."""
    wanted = pair.get("given")
    if wanted is None:
        return ""
    spec = rows.make_spec(seed=42)
    if wanted.get("operation") == "image_to_image":
        spec = rows.make_spec(operation=Operation.IMAGE_TO_IMAGE, image=STORED)
    job_id = rows.insert_job(database, owner, spec=spec, **STATES[wanted["job"]])
    for index, output in enumerate(wanted.get("outputs", ())):
        persisted = {"persisted_at": "2026-01-01T00:00:00Z"} if output == "persisted" else {}
        rows.insert_output(
            database,
            job_id,
            key=f"{job_id}/{index}",
            index=index,
            expires_in=timedelta(hours=1),
            width=32,
            height=24,
            seed=42 + index,
            **persisted,
        )
    return f"job_{job_id.hex}"


def send(client: FlaskClient, request: dict[str, Any], *, job_id: str, key: str) -> Any:
    """Send the request as the file describes it."""
    headers = {} if request.get("anonymous") else {"X-API-Key": key}
    options: dict[str, Any] = {"headers": {**headers, **request.get("headers", {})}}
    if "form" in request:
        options["data"] = {name: as_part(value) for name, value in request["form"].items()}
        options["content_type"] = "multipart/form-data"
    elif "json" in request:
        options["json"] = request["json"]
    elif "text" in request:
        options["data"] = request["text"]
    path = request["path"].replace("{jobId}", job_id)
    return client.open(path, method=request["method"], **options)


def as_part(value: str | dict[str, str]) -> Any:
    if isinstance(value, str):
        return value
    return io.BytesIO(FILES[value["file"]]), value["file"]


def differences(expected: Any, found: Any, where: str = "") -> list[str]:
    """Where an answer is not the one that was written down."""
    if isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys():
        return [d for name in expected for d in differences(expected[name], found[name], f"{where}.{name}")]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return [d for index, (one, other) in pairs for d in differences(one, other, f"{where}[{index}]")]
    if isinstance(expected, str) and expected in PLACEHOLDERS:
        same = re.fullmatch(PLACEHOLDERS[expected], str(found)) is not None
    else:
        same = type(expected) is type(found) and expected == found
    return [] if same else [f"{where}: expected {expected!r}, found {found!r}"]


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_the_dialect_answers_as_written(
    path: Path, client: FlaskClient, account: Account, database: Database
) -> None:
    pair = json.loads(path.read_text())
    job_id = given(pair, database, account.id)

    answer = send(client, pair["request"], job_id=job_id, key=account.key)

    expected = pair["answer"]
    headers = {**ON_EVERY_ANSWER, **expected.get("headers", {})}
    assert answer.status_code == expected["status"], answer.text
    assert differences(expected["json"], answer.json) == []
    assert differences(headers, {name: answer.headers.get(name) for name in headers}) == []


def test_every_pair_says_what_it_shows() -> None:
    assert PAIRS
    for path in PAIRS:
        pair = json.loads(path.read_text())
        assert pair.keys() <= {"shows", "given", "request", "answer"}, path
        assert pair["shows"], path
