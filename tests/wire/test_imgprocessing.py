"""Each pair in imgprocessing/ is a request and its answer, word for word but for <ids>, <times> and the like.

Images that a pair starts from are uploaded first, and what it makes is made: a worker runs beside.
"""

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
from tests.album import IMAGES, Person, file_of, key_of, made
from tests.drawing import drawing
from tests.factories import picture

PAIRS = sorted((Path(__file__).parent / "imgprocessing").glob("*.json"))
PLACEHOLDERS = {
    "<image id>": r"image_[a-zA-Z0-9]{24}",
    "<time>": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z",
    "<public url>": r"http://localhost/outputs/[0-9a-f]{32}-0\.jpg",
    "<unix time>": r"1[789]\d{8}",
    "<request id>": r"[0-9a-f]{16}",
    "<number>": r"\d+",
}
ON_EVERY_ANSWER = {
    "X-Request-Id": "<request id>",
    "X-RateLimit-Limit": "100000",
    "X-RateLimit-Remaining": "<number>",
    "X-RateLimit-Reset": "<unix time>",
}
ON_JSON = {
    "Content-Type": "application/json",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}


def an_object() -> Image.Image:
    """A black square on white."""
    image = Image.new("RGB", (40, 30), "white")
    image.paste("black", (10, 10, 20, 20))
    return image


FILES = {
    "photo.jpg": picture(40, 30, kind="JPEG"),
    "photo.png": picture(40, 30),
    "photo.webp": picture(40, 30, kind="WEBP"),
    "object.jpg": file_of(an_object(), "JPEG", quality=100),
    "drawing.png": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>',
}
"""What the form parts `{"file": name}` hold."""


@pytest.fixture(scope="module")
def client(base_settings: Settings) -> Iterator[FlaskClient]:
    """One application for all pairs; each comes from an account of its own."""
    flask = web.create_app(base_settings.model_copy(update={"rate_limit_per_minute": 100_000}))
    yield flask.test_client()
    web.close(flask)


@pytest.fixture
def worker(settings: Settings, database: Database, storage: Storage) -> Iterator[None]:
    with drawing(settings, database, storage):
        yield


def words_of(pair: dict[str, Any], person: Person) -> dict[str, str]:
    """Make what the pair starts from; gives what stands for its {words}."""
    words = {"{key}": person.key}
    wanted = pair.get("given", {})
    if "photo" in wanted:
        photo = person.upload(FILES[wanted["photo"]])
        words["{photo}"] = photo["id"]
        if wanted.get("published"):
            photo = made(person.post(f"{IMAGES}/{photo['id']}/publish"))
            words["{photo.url}"] = photo["url"]
    return words


def filled(node: Any, words: dict[str, str]) -> Any:
    """A part of a pair with its {words} replaced."""
    if isinstance(node, dict):
        return {name: filled(value, words) for name, value in node.items()}
    if isinstance(node, list):
        return [filled(value, words) for value in node]
    for word, meant in words.items():
        node = node.replace(word, meant) if isinstance(node, str) else node
    return node


def send(person: Person, request: dict[str, Any]) -> Any:
    """Send the request as the file describes it."""
    headers = {} if request.get("anonymous") else {"x-api-key": person.key}
    options: dict[str, Any] = {"headers": {**headers, **request.get("headers", {})}}
    if "form" in request:
        options["data"] = {name: as_part(value) for name, value in request["form"].items()}
        options["content_type"] = "multipart/form-data"
    elif "json" in request:
        options["json"] = request["json"]
    elif "text" in request:
        options["data"] = request["text"]
    return person.client.open(request["path"], method=request["method"], **options)


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


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_the_dialect_answers_as_written(
    path: Path, client: FlaskClient, database: Database, settings: Settings
) -> None:
    pair = json.loads(path.read_text())
    prefix = pair.get("given", {}).get("key", "live_")
    person = Person(client, key_of(database, settings, "alice", prefix=prefix))
    words = words_of(pair, person)

    answer = send(person, filled(pair["request"], words))

    expected = filled(pair["answer"], words)
    assert answer.status_code == expected["status"], answer.text
    if "json" in expected:
        assert differences(expected["json"], answer.json) == []
    else:
        assert answer.text == expected["text"]
    own = ON_JSON if "json" in expected else {"Content-Type": None}
    headers = {**ON_EVERY_ANSWER, **own, **expected.get("headers", {})}
    assert differences(headers, {name: answer.headers.get(name) for name in headers}) == []


def test_every_pair_says_what_it_shows() -> None:
    assert PAIRS
    for path in PAIRS:
        pair = json.loads(path.read_text())
        assert pair.keys() <= {"shows", "given", "request", "answer"}, path
        assert pair["shows"], path
