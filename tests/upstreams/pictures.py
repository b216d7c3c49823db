"""What fake upstreams draw: a gradient and a band of two colours that tell prompt, seed and index apart."""

import base64
import binascii
import functools
import hashlib
import io
import zlib
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HTML: Final = b"<!DOCTYPE html><html><head><title>Not yet</title></head><body>Come back later</body></html>"
SVG: Final = (
    b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="64" height="64">'
    b'<image href="file:///etc/hostname"/><script>alert(1)</script></svg>'
)
_BOMB_SIDE: Final = 20_000
"""Squared it is more than twice what Pillow warns of, so Pillow itself refuses it."""
_TOLERANCE: Final = 14
"""What JPEG and a resize may do to a channel of an even area."""


def colours(prompt: str, *, seed: int, index: int = 0) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Give the colours of a picture's band: left half, right half."""
    digest = hashlib.sha256(f"{prompt}\0{seed}\0{index}".encode()).digest()
    return (digest[0], digest[1], digest[2]), (digest[3], digest[4], digest[5])


def draw(prompt: str, *, seed: int, width: int, height: int, index: int = 0) -> Image.Image:
    """Draw exactly this many pixels, RGB; the same arguments give the same pixels.

    The band is the middle third of the rows; the rest is a gradient that is the same for every prompt.
    """
    pixels: NDArray[np.uint8] = np.empty((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width, dtype=np.uint8)[None, :]
    pixels[..., 1] = np.linspace(0, 255, height, dtype=np.uint8)[:, None]
    pixels[..., 2] = 128
    left, right = colours(prompt, seed=seed, index=index)
    band = pixels[height // 3 : max(height * 2 // 3, height // 3 + 1)]
    band[:, : width // 2] = left
    band[:, width // 2 :] = right
    return Image.fromarray(pixels)


def shows(image: Image.Image, prompt: str, *, seed: int, index: int = 0) -> bool:
    """Whether a picture, perhaps re-encoded or resized since, is `draw`'s of these arguments."""
    pixels = np.asarray(image.convert("RGB"), np.int16)
    height, width = pixels.shape[:2]
    rows = pixels[height * 9 // 20 : height * 9 // 20 + max(height // 10, 1)]
    found = rows[:, width // 8 : width * 3 // 8], rows[:, width * 5 // 8 : width * 7 // 8]
    return all(
        np.abs(np.median(part, axis=(0, 1)) - np.array(colour)).max() <= _TOLERANCE
        for part, colour in zip(found, colours(prompt, seed=seed, index=index), strict=True)
    )


def rework(
    image: Image.Image, drawing: Image.Image, *, strength: float = 1.0, mask: Image.Image | None = None
) -> Image.Image:
    """Blend a drawing into an image, of which it takes the size: strength 1 leaves nothing of the image.

    Only where `mask` (L, of any size) is 128 or more; every other pixel stays exactly the image's.
    """
    base = image.convert("RGB").resize(drawing.size) if image.size != drawing.size else image.convert("RGB")
    blended = Image.blend(base, drawing, min(max(strength, 0.0), 1.0))
    if mask is None:
        return blended
    sized = mask.resize(drawing.size, Image.Resampling.NEAREST) if mask.size != drawing.size else mask
    return Image.composite(blended, base, sized.point(lambda value: 255 if value >= 128 else 0))


def encode(image: Image.Image, form: str) -> bytes:
    """Encode as `png`, `jpeg` or `webp`, fast."""
    file = io.BytesIO()
    options: dict[str, int] = {"compress_level": 1} if form == "png" else {"quality": 92}
    image.save(file, form.upper(), **options)
    return file.getvalue()


@functools.lru_cache(64)
def drawn(prompt: str, *, seed: int, width: int, height: int, index: int, form: str) -> bytes:
    """Give an encoded drawing; kept, because tests ask for the same large ones again and again."""
    return encode(draw(prompt, seed=seed, width=width, height=height, index=index), form)


def decode(data: bytes) -> Image.Image:
    """Decode; ValueError when the bytes are no complete PNG, JPEG or WebP."""
    try:
        image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP"))
        image.load()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error
    return image


def from_text(text: str) -> bytes:
    """Give the bytes behind a data URI or plain base64; ValueError when it is neither."""
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise ValueError("not base64")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error


def spoil(mood: str, data: bytes, content_type: str) -> tuple[bytes, str]:
    """Give what a mood of stage `picture` makes of a picture, and its content type."""
    match mood:
        case "truncated_image":
            return data[: len(data) // 2], content_type
        case "empty_image":
            return b"", content_type
        case "slightly_wrong_size" | "absurdly_wrong_size":
            image = decode(data)
            size = (3, 2) if mood == "absurdly_wrong_size" else (image.width + 8, image.height)
            return encode(image.resize(size), content_type.removeprefix("image/")), content_type
    return {
        "html_as_image": (HTML, "text/html; charset=utf-8"),
        "html_labelled_png": (HTML, "image/png"),
        "bomb": (bomb(), "image/png"),
        "svg": (SVG, "image/svg+xml"),
        "junk_image": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "image/png"),
    }[mood]


@functools.cache
def bomb() -> bytes:
    """Give a PNG that is small as a file and 50 MB of one-bit pixels when decoded."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    packer = zlib.compressobj(6)
    row = bytes(1 + _BOMB_SIDE // 8)
    pixels = b"".join(packer.compress(row * 100) for _ in range(_BOMB_SIDE // 100)) + packer.flush()
    side = _BOMB_SIDE.to_bytes(4, "big")
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", side + side + bytes((1, 0, 0, 0, 0))),
            chunk(b"IDAT", pixels),
            chunk(b"IEND", b""),
        )
    )
