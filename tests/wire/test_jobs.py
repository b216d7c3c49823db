"""Each pair in jobs/ is a request and its answer, word for word but for <ids>, <times> and the like.

An event stream is written down as its lines, each `data` as the object that it holds.
"""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import web
from app.db import Database
from app.settings import Settings
from tests import rows
from tests.conftest import Account
from tests.drawing import announce

PAIRS = sorted((Path(__file__).parent / "jobs").glob("*.json"))
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"
ANY_JOB = r"http://localhost/v1/jobs/job_[0-9a-f]{32}"
PLACEHOLDERS = {
    "<job id>": r"job_[0-9a-f]{32}",
    "<image id>": r"img_[0-9a-f]{32}",
    "<time>": TIME,
    "<output url>": r"http://localhost/outputs/[0-9a-f]{32}-\d\.png",
    "<job url>": ANY_JOB,
    "<events url>": f"{ANY_JOB}/events",
    "<timeline url>": f"{ANY_JOB}/timeline",
    "<page url>": r"http://localhost/v1/jobs\?status=completed&limit=1&before=job_[0-9a-f]{32}",
    "<worker>": r"[0-9a-f]{8}",
    "<unix time>": r"1[789]\d{8}",
    "<request id>": r"[0-9a-f]{16}",
    "<number>": r"\d+(\.\d+)?",
    "<seconds>": r"[1-9]\d?",
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
CLAIMED: dict[str, Any] = {"attempt": 1, "started_at": "now()"}
STATES: dict[str, dict[str, Any]] = {
    "queued": {"track_id": "order-1138"},
    "processing": {
        **CLAIMED,
        "status": "processing",
        "stage": "generating",
        "step": 3,
        "steps": 12,
        "progress": 0.25,
        "lease_owner": "host:1:0",
        "lease_until": "now() + interval '1 minute'",
        "deadline_at": "now() + interval '1 minute'",
    },
    "waiting for its second attempt": {**CLAIMED, "progress": 0.25, "error_code": "provider_unavailable"},
    "completed": {**CLAIMED, "status": "completed", "finished_at": "now()", "progress": 1.0},
    "failed": {
        **CLAIMED,
        "status": "failed",
        "finished_at": "now()",
        "error_code": "timeout",
        "error_message": "The job ran longer than its deadline allows.",
    },
    "cancelled": {
        "status": "cancelled",
        "finished_at": "now()",
        "cancel_requested_at": "now()",
        "error_code": "cancelled",
        "error_message": "The job was cancelled before it ran.",
    },
}
EVENTS: dict[str, list[tuple[str | None, str, int, str, dict[str, Any] | None]]] = {
    "completed after a retry": [
        (None, "queued", 0, "submitted", None),
        ("queued", "processing", 1, "claimed", None),
        ("processing", "queued", 1, "retry", {"error_code": "provider_unavailable", "delay_seconds": 0.5}),
        ("queued", "processing", 2, "claimed", None),
        ("processing", "completed", 2, "completed", {"seconds": {"generate": 1.25}}),
    ],
}
"""Of each: from, to, attempt, reason and detail."""


@pytest.fixture(scope="module")
def client(base_settings: Settings) -> Iterator[FlaskClient]:
    """One application for all pairs; each comes from an account of its own."""
    flask = web.create_app(base_settings.model_copy(update={"rate_limit_per_minute": 100_000}))
    yield flask.test_client()
    web.close(flask)


def given(wanted: dict[str, Any], database: Database, owner: UUID) -> dict[str, str]:
    """Put the job into the tables that a pair starts from; gives ids as customers see them, by name."""
    events = EVENTS.get(wanted.get("events", ""), ())
    columns = {**STATES[wanted["job"]], **({"attempt": events[-1][2]} if events else {})}
    job_id = rows.insert_job(database, owner, spec=rows.make_spec(seed=42), dialect="jobs", **columns)
    ids = {"jobId": f"job_{job_id.hex}", "outputId": ""}
    for index, state in enumerate(wanted.get("outputs", ())):
        kept = {"persisted_at": "2026-01-01T00:00:00Z"} if state == "persisted" else {}
        output_id = rows.insert_output(
            database,
            job_id,
            key=f"{job_id}/{index}",
            index=index,
            expires_in=timedelta(hours=-1 if state == "expired" else 1),
            width=32,
            height=24,
            seed=42 + index,
            access="private" if state == "private" else "link",
            **kept,
        )
        ids["outputId"] = f"img_{output_id.hex}"
    for before, after, attempt, reason, detail in events:
        rows.execute(
            database,
            "INSERT INTO job_events (job_id, from_status, to_status, attempt, reason, worker, detail) "
            "VALUES (%(id)s, %(before)s, %(after)s, %(attempt)s, %(reason)s, %(worker)s, %(detail)s::jsonb)",
            id=job_id,
            before=before,
            after=after,
            attempt=attempt,
            reason=reason,
            worker=None if reason == "submitted" else "gpu-7.internal:4711:1",
            detail=None if detail is None else json.dumps(detail),
        )
    return ids


def send(client: FlaskClient, request: dict[str, Any], *, ids: dict[str, str], key: str) -> TestResponse:
    """Send the request as the file describes it."""
    headers = {} if request.get("anonymous") else {"X-API-Key": key}
    path = request["path"]
    for name, value in ids.items():
        path = path.replace(f"{{{name}}}", value)
    body = {"json": request["json"]} if "json" in request else {}
    return client.open(
        path, method=request["method"], headers={**headers, **request.get("headers", {})}, **body
    )


def lines(stream: str) -> Any:
    """A stream as it is written down: its lines, and objects in place of their JSON."""
    found: list[Any] = []
    for line in stream.split("\n"):
        name, _, value = line.partition(": ")
        found.append({name: json.loads(value)} if name == "data" else line)
    return found


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
    announce(database)
    ids = given(pair["given"], database, account.id) if "given" in pair else {}

    answer = send(client, pair["request"], ids=ids, key=account.key)

    expected = pair["answer"]
    headers = {**ON_EVERY_ANSWER, **expected.get("headers", {})}
    found, wanted = answer.json, expected.get("json")
    if "stream" in expected:
        found, wanted = lines(answer.text), expected["stream"]
        headers = {**headers, "Content-Type": "text/event-stream; charset=utf-8"}
        del headers["X-Content-Type-Options"]
    assert answer.status_code == expected["status"], answer.text
    assert differences(wanted, found) == []
    assert differences(headers, {name: answer.headers.get(name) for name in headers}) == []


def test_every_pair_says_what_it_shows() -> None:
    assert PAIRS
    for path in PAIRS:
        pair = json.loads(path.read_text())
        assert pair.keys() <= {"shows", "given", "request", "answer"}, path
        assert pair["shows"], path
