"""What tests of the ModelsLab dialect share: a house to ask, bodies to send, and how its refusals look."""

import base64
import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

import numpy as np
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from app import web
from app.db import Database
from app.settings import Settings
from app.storage import Storage
from tests import rows
from tests.conftest import Account
from tests.drawing import drawing
from tests.factories import picture

ENTERPRISE = "/api/v1/enterprise/realtime/"
REALTIME = "/api/v6/realtime/"
IMAGES = "/api/v6/images/"
NOBODY = UUID(int=0)
"""In whose name bodies are read whose sender no header names."""
AT_ONCE = timedelta(0)
"""For the setting sync_wait: answer without waiting."""
PREFIXES = (ENTERPRISE, REALTIME, IMAGES)
ROOT = "/api/v1/enterprise/"


def text_of(data: bytes) -> str:
    """Base64 text of an image file."""
    return base64.b64encode(data).decode()


PHOTO = text_of(picture(96, 64))
MASK = text_of(picture(96, 64, mode="L"))


def body(verb: str = "text2img", **members: Any) -> dict[str, Any]:
    """The least that an operation takes, with these members besides or instead; small, so that it is fast."""
    whole: dict[str, Any] = {"prompt": "a cat sitting on a bench", "width": 64, "height": 48}
    if verb != "text2img":
        whole["init_image"] = PHOTO
    if verb == "inpaint":
        whole["mask_image"] = MASK
    return {**whole, **members}


@dataclass(frozen=True)
class House:
    """An application on real servers, asked by one account."""

    flask: Flask
    client: FlaskClient
    settings: Settings
    database: Database
    storage: Storage
    account: Account

    def post(self, path: str, *, headers: dict[str, str] | None = None, **members: Any) -> TestResponse:
        """Send a body with the account's key in it."""
        sent = {"key": self.account.key, **members}
        return self.client.post(path, json=sent, headers=headers or {})

    def answer(self, path: str, **members: Any) -> dict[str, Any]:
        """Send a body with the account's key in it and give what comes with status 200."""
        got = self.post(path, **members)
        assert got.status_code == 200, got.text
        assert isinstance(got.json, dict)
        return got.json

    def generate(self, verb: str = "text2img", prefix: str = ENTERPRISE, **members: Any) -> dict[str, Any]:
        """Ask for images and give the answer."""
        return self.answer(prefix + verb, **body(verb, **members))

    def get(self, url: str) -> TestResponse:
        """Follow a link that an answer held."""
        assert url.startswith("http://localhost/")
        return self.client.get(url.removeprefix("http://localhost"))

    def job(self, number: int) -> rows.Look:
        """The row of the job with this id."""
        return rows.query(self.database, "SELECT * FROM jobs WHERE number = %(n)s", n=number)[0]


class Make(Protocol):
    """Makes houses with some settings changed, for as long as a test lasts."""

    def __call__(self, *, draws: bool = True, **changes: Any) -> House:
        """Give a house; `draws` says whether a worker runs in it."""
        ...


@contextmanager
def houses(settings: Settings, database: Database, storage: Storage, account: Account) -> Iterator[Make]:
    """Give a maker of houses."""
    with ExitStack() as opened:

        def make(*, draws: bool = True, **changes: Any) -> House:
            changed = settings.model_copy(update=changes)
            flask = web.create_app(changed)
            opened.callback(web.close, flask)
            if draws:
                opened.enter_context(drawing(changed, database, storage))
            return House(flask, flask.test_client(), changed, database, storage, account)

        yield make


def refused(answer: TestResponse, status: int) -> dict[str, list[str]]:
    """Check that an answer is an error in ModelsLab's shape; gives its sentences by field, "" for all."""
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json is not None
    assert answer.json["status"] == "error"
    message = answer.json["message"]
    assert isinstance(message, str)
    assert message
    if errors := answer.json.get("errors"):
        assert message == " ".join(sentence for told in errors.values() for sentence in told)
        assert isinstance(errors, dict)
        return errors
    return {"": [message]}


def image_of(data: bytes) -> Image.Image:
    """The picture in a file."""
    return Image.open(io.BytesIO(data))


def pixels(data: bytes) -> Any:
    """Its pixels, height x width x 3."""
    return np.asarray(image_of(data).convert("RGB"))


def saved(image: Image.Image) -> bytes:
    """A picture as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def noise(width: int, height: int) -> bytes:
    """A picture that no encoder makes small, the same each time."""
    values = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return saved(Image.fromarray(values))
