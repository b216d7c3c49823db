"""Each pair in modelslab/ is a request and its answer, word for word but for <ids>, <links> and the like.

The requests are those of the seed's page, of the vendor's other pages and of its official clients.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app import web
from app.db import Database
from app.domain.spec import Operation, StoredImage
from app.settings import Settings
from app.storage import Storage
from tests import rows
from tests.conftest import Account
from tests.drawing import drawing
from tests.factories import picture
from tests.realtime import text_of
from tests.servers import strangers

PAIRS = sorted((Path(__file__).parent / "modelslab").glob("*.json"))
NUMBER = 302455
PREFIX = "05c3260d6a2e4aa582f0e952f2a5fa10"
"""Id and file_prefix of the job that a pair starts from."""
PLACEHOLDERS = {
    "<id>": r"[0-9]{6,}",
    "<id as text>": r"[0-9]{6,}",
    "<prefix>": r"[0-9a-f]{32}",
    "<number>": r"[0-9]+",
    "<digits>": r"[0-9]+",
    "<unix time>": r"1[789][0-9]{8}",
    "<request id>": r"[0-9a-f]{16}",
    "<seconds>": r"[0-9]+\.[0-9]+",
    "<time>": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    "<more words>": r", [a-z, -]+",
    "{host}": r"http://127\.0\.0\.2:[0-9]+",
}
KINDS: dict[str, type] = {"<id>": int, "<number>": int, "<seconds>": float}
"""What these are where they stand alone; within a text they are text."""
ON_EVERY_ANSWER = {
    "Content-Type": "application/json",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Request-Id": "<request id>",
}
FAILED = {"status": "failed", "finished_at": "now()", "started_at": "now()"}
STATES: dict[str, dict[str, Any]] = {
    "queued": {},
    "completed": {"status": "completed", "finished_at": "now()", "started_at": "now()"},
    "failed": {**FAILED, "error_code": "timeout", "error_message": "The job ran longer than allowed."},
    "cancelled": {"status": "cancelled", "finished_at": "now()"},
}
STORED = StoredImage(key="inputs/x", sha256="0" * 64, width=40, height=30)


@pytest.fixture(scope="module")
def host() -> Iterator[strangers.Stranger]:
    """Where the customers' images are."""
    with strangers.stranger(strangers.answers(picture(64, 48), "Content-Type: image/png")) as made:
        yield made


@pytest.fixture(scope="module")
def app(base_settings: Settings) -> Iterator[tuple[Flask, Settings]]:
    """One application for all pairs; each comes from an account of its own."""
    settings = base_settings.model_copy(
        update={
            "rate_limit_per_minute": 100_000,
            "lease": timedelta(seconds=2),
            "fetch_allow": (strangers.HERE,),
            "webhook_allow": (strangers.HERE,),
        }
    )
    flask = web.create_app(settings)
    yield flask, settings
    web.close(flask)


def give(pair: dict[str, Any], database: Database, account: Account) -> None:
    """Put the job into the tables that the pair starts from."""
    wanted = pair.get("given")
    if wanted is None:
        return
    spec = rows.make_spec(operation=Operation.IMAGE_TO_IMAGE, image=STORED, seed=42)
    job_id = rows.insert_job(
        database,
        account.id,
        spec=spec,
        dialect="modelslab",
        number=NUMBER,
        output_prefix=PREFIX,
        echo=json.dumps({"base64": wanted.get("base64", False), "track_id": None, "meta": {}}),
        **STATES[wanted["job"]],
    )
    for index, output in enumerate(wanted.get("outputs", ())):
        rows.insert_output(
            database,
            job_id,
            key=f"{job_id}/{index}",
            index=index,
            expires_in=timedelta(hours=-1 if output == "expired" else 1),
            flagged=True if output == "flagged" else None,
        )


def filled(value: Any, words: dict[str, str]) -> Any:
    """A request with this run's own key, host and images in it."""
    if isinstance(value, dict):
        return {name: filled(each, words) for name, each in value.items()}
    if isinstance(value, str):
        for word, meaning in words.items():
            value = value.replace(word, meaning)
    return value


def matches(expected: str, found: object) -> bool:
    if expected in KINDS and type(found) is not KINDS[expected]:
        return False
    pattern = re.escape(expected)
    for placeholder, meaning in PLACEHOLDERS.items():
        pattern = pattern.replace(re.escape(placeholder), meaning)
    return isinstance(found, str | KINDS.get(expected, str)) and bool(re.fullmatch(pattern, str(found)))


def differences(expected: Any, found: Any, where: str = "") -> list[str]:
    """Where an answer is not the one that was written down."""
    if isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys():
        return [d for name in expected for d in differences(expected[name], found[name], f"{where}.{name}")]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return [d for index, (one, other) in pairs for d in differences(one, other, f"{where}[{index}]")]
    if isinstance(expected, str):
        same = matches(expected, found)
    else:
        same = type(expected) is type(found) and expected == found
    return [] if same else [f"{where}: expected {expected!r}, found {found!r}"]


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_the_dialect_answers_as_written(
    path: Path,
    app: tuple[Flask, Settings],
    host: strangers.Stranger,
    account: Account,
    database: Database,
    storage: Storage,
) -> None:
    pair = json.loads(path.read_text())
    give(pair, database, account)
    words = {"{key}": account.key, "{host}": host.url, "{image}": text_of(picture(64, 48))}
    flask, settings = app
    request = filled(pair["request"], words)
    content = {"json": request["json"]} if "json" in request else {"data": request.get("text")}

    with contextlib.ExitStack() as opened:
        if pair.get("worker"):
            opened.enter_context(drawing(settings, database, storage))
        answer = flask.test_client().open(
            request["path"], method=request["method"], headers=request.get("headers"), **content
        )

    expected = pair["answer"]
    headers = {**ON_EVERY_ANSWER, **expected.get("headers", {})}
    assert answer.status_code == expected["status"], answer.text
    assert differences(expected["json"], answer.get_json()) == []
    assert differences(headers, {name: answer.headers.get(name) for name in headers}) == []


def test_every_pair_says_what_it_shows() -> None:
    assert PAIRS
    for path in PAIRS:
        pair = json.loads(path.read_text())
        assert pair.keys() <= {"shows", "given", "worker", "request", "answer"}, path
        assert pair["shows"], path
