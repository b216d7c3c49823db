"""A client of IMG Processing's API, as tests need one: an account, one of its keys, and what it says."""

import io
from dataclasses import dataclass
from typing import Any

from flask.testing import FlaskClient
from PIL import Image
from werkzeug.datastructures import FileStorage
from werkzeug.test import TestResponse, encode_multipart

from app import auth
from app.db import Database
from app.settings import Settings
from tests.factories import picture

IMAGES = "/v1/images"
ID = r"image_[a-zA-Z0-9]{24}"
"""What the vendor's own tests hold ids against."""
SHAPE = {"id", "name", "url", "width", "height", "format", "size", "created_at"}


def key_of(database: Database, settings: Settings, account: str, *, prefix: str = auth.LIVE_PREFIX) -> str:
    """A new key for an account, which is made too when there is none of that name."""
    with database.transaction() as tx:
        new = auth.create_key(
            tx,
            account=account,
            name=prefix,
            secret_key=settings.secret_key.get_secret_value(),
            prefix=prefix,
        )
    assert new is not None
    return new.key


@dataclass(frozen=True)
class Person:
    """Somebody with a key."""

    client: FlaskClient
    key: str

    def ask(self, method: str, path: str, **sent: Any) -> TestResponse:
        headers = {"X-API-Key": self.key, **sent.pop("headers", {})}
        return self.client.open(path, method=method, headers=headers, **sent)

    def get(self, path: str) -> TestResponse:
        return self.ask("GET", path)

    def post(self, path: str, **sent: Any) -> TestResponse:
        return self.ask("POST", path, **sent)

    def send(self, data: bytes, name: str = "photo", *, filename: str = "photo.png") -> TestResponse:
        """Upload a file and give the answer, whatever it is."""
        # Encoded here, as the client leaves the temporary file of a large form to the garbage collector.
        file = FileStorage(io.BytesIO(data), filename)
        boundary, body = encode_multipart({"name": name, "image": file})
        return self.post(
            f"{IMAGES}/upload", data=body, content_type=f"multipart/form-data; boundary={boundary}"
        )

    def upload(self, data: bytes | None = None, name: str = "photo") -> Any:
        """Upload a file, a small grey picture unless told otherwise, and give the image."""
        return made(self.send(picture() if data is None else data, name))

    def change(self, image: Any, kind: str, **body: Any) -> TestResponse:
        """Ask for a change of an image and give the answer, whatever it is."""
        return self.post(f"{IMAGES}/{image['id']}/{kind}", json=body)

    def show(self, image: Any) -> TestResponse:
        return self.get(f"{IMAGES}/{image['id']}")

    def download(self, image: Any) -> Image.Image:
        """Give an image's pixels."""
        answer = self.get(f"{IMAGES}/{image['id']}/download")
        assert answer.status_code == 200, answer.text
        assert answer.content_type == f"image/{image['format']}"
        assert answer.content_length == len(answer.data) == image["size"]
        opened = Image.open(io.BytesIO(answer.data))
        assert opened.format == image["format"].upper()
        assert opened.size == (image["width"], image["height"])
        opened.load()
        return opened


def made(answer: TestResponse) -> Any:
    """Check that an answer is a new image; gives it."""
    assert answer.status_code == 201, answer.text
    assert answer.json is not None
    assert answer.json.keys() == SHAPE
    return answer.json


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Give a picture as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def quarters(width: int = 40, height: int = 20, *, mode: str = "RGB") -> Image.Image:
    """A picture of four quarters: red and lime above, blue and white below."""
    image = Image.new(mode, (width, height), "red")
    half = (width // 2, height // 2)
    image.paste("lime", (half[0], 0, width, half[1]))
    image.paste("blue", (0, half[1], half[0], height))
    image.paste("white", (*half, width, height))
    return image


def corners(image: Image.Image) -> list[str]:
    """The colours of a picture's corners in words: top left, top right, bottom left, bottom right.

    A letter for each channel that is on, as in "rb"; "" is black, and "-" a transparent corner.
    """
    right, bottom = image.width - 1, image.height - 1
    return [colour_at(image, place) for place in ((0, 0), (right, 0), (0, bottom), (right, bottom))]


def colour_at(image: Image.Image, place: tuple[int, int]) -> str:
    """The colour of one pixel in words, see `corners`."""
    pixel = image.convert("RGBA").getpixel(place)
    assert isinstance(pixel, tuple)
    if pixel[3] < 128:
        return "-"
    return "".join(letter for letter, level in zip("rgb", pixel, strict=False) if level > 127)


def problem(answer: TestResponse, status: int) -> Any:
    """Check that an answer is an error in this API's shape; gives its body."""
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    body = answer.get_json()
    assert (
        {"type", "error", "title", "status", "message"}
        <= body.keys()
        <= {
            "type",
            "error",
            "title",
            "status",
            "message",
            "errors",
        }
    )
    assert body["status"] == status
    assert body["error"] == body["title"]
    assert body["type"].startswith("https://docs.img-processing.com/errors/")
    assert body["message"]
    return body
