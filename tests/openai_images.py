"""What tests of the OpenAI dialect send and get: images, masks, and answers with images in them."""

import base64
import io

from openai.types import ImagesResponse
from PIL import Image

from app.db import Database
from tests import rows

SMALL = "64x48"


def opened(answer: ImagesResponse, index: int = 0) -> Image.Image:
    """The image of an answer that holds it in base64."""
    assert answer.data is not None
    text = answer.data[index].b64_json
    assert text is not None
    return Image.open(io.BytesIO(base64.b64decode(text, validate=True)))


def jobs(database: Database) -> int:
    return len(rows.query(database, "SELECT id FROM jobs"))


def noise(width: int = 40, height: int = 30) -> Image.Image:
    return Image.effect_noise((width, height), 60).convert("RGB")


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def mask_with_hole(width: int = 40, height: int = 30, colour: str = "black") -> Image.Image:
    """A mask that lets (10, 10) to (20, 20) be changed."""
    mask = Image.new("RGBA", (width, height), colour)
    mask.paste((255, 255, 255, 0), (10, 10, 20, 20))
    return mask
