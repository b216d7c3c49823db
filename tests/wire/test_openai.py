"""Each pair in openai/ is a request and its answer, word for word but for <ids>, <images> and the like.

A worker draws beside, as answers of this dialect are the images themselves.
"""

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from PIL import Image

from app import web
from app.db import Database
from app.settings import Settings
from app.storage import Storage
from tests.conftest import Account
from tests.drawing import drawing
from tests.factories import picture
from tests.openai_images import mask_with_hole, png

FOLDER = Path(__file__).parent / "openai"
PAIRS = sorted(FOLDER.glob("*.json"))
FILES = {
    "photo.jpg": picture(40, 30, kind="JPEG"),
    "photo.png": picture(40, 30),
    "photo.webp": picture(40, 30, kind="WEBP"),
    "mask.png": png(mask_with_hole()),
}
"""What the form parts `{"file": name}` hold, and `<data of name>` in JSON."""
PLACEHOLDERS = {
    "<job id>": r"job_[0-9a-f]{32}",
    "<image id>": r"img_[0-9a-f]{32}",
    "<url of png>": r"http://localhost/outputs/[0-9a-f]{32}-\d\.png",
    "<unix time>": r"1[789]\d{8}",
    "<request id>": r"[0-9a-f]{16}",
    "<number>": r"\d+",
}
IMAGES = {"<png>": "PNG", "<jpeg>": "JPEG", "<webp>": "WEBP"}
ON_EVERY_ANSWER = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Request-Id": "<request id>",
    "X-RateLimit-Limit": "100000",
    "X-RateLimit-Remaining": "<number>",
    "X-RateLimit-Reset": "<unix time>",
}
UNCOUNTED = {"generate-as-get"}
"""Where no endpoint was found nobody is asked for a key."""


@pytest.fixture(scope="module")
def client(base_settings: Settings) -> Iterator[FlaskClient]:
    """One application for all pairs; each comes from an account of its own."""
    changes = {"rate_limit_per_minute": 100_000, "models_file": FOLDER / "catalogue.yaml"}
    flask = web.create_app(base_settings.model_copy(update=changes))
    yield flask.test_client()
    web.close(flask)


@pytest.fixture
def worker(settings: Settings, database: Database, storage: Storage) -> Iterator[None]:
    with drawing(settings, database, storage):
        yield


def send(client: FlaskClient, request: dict[str, Any], *, key: str) -> Any:
    """Send the request as the file describes it."""
    headers = {} if request.get("anonymous") else {"Authorization": f"Bearer {key}"}
    options: dict[str, Any] = {"headers": {**headers, **request.get("headers", {})}}
    if "form" in request:
        options["data"] = {name: as_part(value) for name, value in request["form"].items()}
        options["content_type"] = "multipart/form-data"
    elif "json" in request:
        options["json"] = filled(request["json"])
    elif "text" in request:
        options["data"] = request["text"]
    return client.open(request["path"], method=request["method"], **options)


def as_part(value: str | dict[str, str]) -> Any:
    if isinstance(value, str):
        return value
    return io.BytesIO(FILES[value["file"]]), value["file"]


def filled(node: Any) -> Any:
    """A part of a body with each `<data of name>` replaced by a data URI."""
    if isinstance(node, dict):
        return {name: filled(value) for name, value in node.items()}
    if isinstance(node, list):
        return [filled(value) for value in node]
    found = re.fullmatch(r"<data of (.+)>", node) if isinstance(node, str) else None
    return f"data:image/x;base64,{base64.b64encode(FILES[found[1]]).decode()}" if found else node


def differences(expected: Any, found: Any, where: str = "") -> list[str]:
    """Where an answer is not the one that was written down."""
    if isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys():
        return [d for name in expected for d in differences(expected[name], found[name], f"{where}.{name}")]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return [d for index, (one, other) in pairs for d in differences(one, other, f"{where}[{index}]")]
    if isinstance(expected, str) and expected in IMAGES:
        image = Image.open(io.BytesIO(base64.b64decode(found, validate=True)))
        same = image.format == IMAGES[expected]
    elif isinstance(expected, str) and expected in PLACEHOLDERS:
        same = re.fullmatch(PLACEHOLDERS[expected], str(found)) is not None
    else:
        same = type(expected) is type(found) and expected == found
    return [] if same else [f"{where}: expected {expected!r}, found {str(found)[:200]!r}"]


def events_of(text: str) -> list[Any]:
    """The data of each Server-Sent Event, whose name is its type."""
    events = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        name, _, data = block.partition("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_the_dialect_answers_as_written(path: Path, client: FlaskClient, account: Account) -> None:
    pair = json.loads(path.read_text())

    answer = send(client, pair["request"], key=account.key)

    expected = pair["answer"]
    assert answer.status_code == expected["status"], answer.text
    is_stream = "events" in expected
    kind = "text/event-stream; charset=utf-8" if is_stream else "application/json"
    headers = {**ON_EVERY_ANSWER, "Content-Type": kind, **expected.get("headers", {})}
    if path.stem in UNCOUNTED:
        headers = {name: value for name, value in headers.items() if not name.startswith("X-RateLimit")}
    found = events_of(answer.text) if is_stream else answer.json
    assert differences(expected["events"] if is_stream else expected["json"], found) == []
    assert differences(headers, {name: answer.headers.get(name) for name in headers}) == []


def test_every_pair_says_what_it_shows() -> None:
    assert PAIRS
    for path in PAIRS:
        pair = json.loads(path.read_text())
        assert pair.keys() == {"shows", "request", "answer"}, path
        assert pair["shows"], path
