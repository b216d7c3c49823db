"""Pictures into files of every format and back, with what each can keep."""

from io import BytesIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter, PngImagePlugin

from app import imaging
from app.domain.formats import ImageFormat
from app.errors import InvalidFields
from tests.transforms import LONGEST, grain

SIDES = st.integers(1, LONGEST)
MODES = st.sampled_from(["RGB", "RGBA"])


def same(one: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures show the same: colours count only where something shows."""
    pictures = [image.convert("RGBA").convert("RGBa") for image in (one, other)]
    return pictures[0].size == pictures[1].size and pictures[0].tobytes() == pictures[1].tobytes()


# Formats


@settings(max_examples=60, deadline=None)
@given(
    width=SIDES,
    height=SIDES,
    mode=st.sampled_from(["L", "RGB", "RGBA"]),
    output_format=st.sampled_from(ImageFormat),
    quality=st.none() | st.integers(1, 100),
)
def test_every_format_keeps_the_size_and_what_alpha_it_can(
    width: int, height: int, mode: str, output_format: ImageFormat, quality: int | None
) -> None:
    image = grain(width, height, "RGB" if mode == "L" else mode).convert(mode)
    data = imaging.encode(image, output_format, metadata={"seed": "1"}, quality=quality)
    header = imaging.inspect(data, field="image")
    assert (header.format.lower(), header.width, header.height) == (output_format, width, height)
    decoded = imaging.decode(data, field="image", keep_alpha=True)
    assert decoded.size == (width, height)
    if mode == "RGBA" and output_format.has_alpha and image.getchannel("A").getextrema() != (255, 255):
        assert decoded.mode == "RGBA"
        assert decoded.getchannel("A").tobytes() == image.getchannel("A").tobytes()


@given(width=SIDES, height=SIDES, mode=MODES)
@settings(max_examples=40, deadline=None)
def test_a_webp_of_quality_100_keeps_every_visible_bit(width: int, height: int, mode: str) -> None:
    image = grain(width, height, mode)
    data = imaging.encode(image, ImageFormat.WEBP, metadata={}, quality=100)
    assert same(imaging.decode(data, field="image", keep_alpha=True), image)


@pytest.mark.parametrize("output_format", [ImageFormat.JPEG, ImageFormat.WEBP])
def test_less_quality_is_fewer_bytes(output_format: ImageFormat) -> None:
    image = grain(128, 128).filter(ImageFilter.GaussianBlur(2))
    sizes = [
        len(imaging.encode(image, output_format, metadata={}, quality=quality))
        for quality in (10, 50, 90, 100)
    ]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 4
    assert len(imaging.encode(image, output_format, metadata={})) == sizes[2]


def test_a_webp_carries_its_metadata_in_any_language() -> None:
    data = imaging.encode(grain(8, 8), ImageFormat.WEBP, metadata={"prompt": "日本語 🐈", "seed": "7"})
    with Image.open(BytesIO(data)) as opened:
        comment = opened.getexif().get_ifd(0x8769)[0x9286]
    assert comment.startswith(b"ASCII\0\0\0")
    assert comment[8:] == rb'{"prompt": "\u65e5\u672c\u8a9e \ud83d\udc08", "seed": "7"}'


# Decoding with alpha


def png(image: Image.Image, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def test_alpha_is_kept_when_asked_for_and_only_then() -> None:
    image = grain(6, 4, "RGBA")
    assert imaging.decode(png(image), field="image", keep_alpha=True).tobytes() == image.tobytes()
    assert imaging.decode(png(image), field="image").mode == "RGB"
    assert imaging.decode(png(grain(6, 4)), field="image", keep_alpha=True).mode == "RGB"


def test_metadata_does_not_survive_decoding_with_alpha() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", "somebody else's")
    data = png(grain(6, 4, "RGBA"), pnginfo=info, dpi=(72, 72))
    assert not imaging.decode(data, field="image", keep_alpha=True).info


@pytest.mark.parametrize("mode", ["LA", "P", "RGB", "L"])
def test_every_way_of_being_transparent_becomes_an_alpha_channel(mode: str) -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (255, 255, 255, 255))
    if mode == "LA":
        data = png(image.convert("LA"))
    else:
        flat = Image.new(mode, (2, 1), 0)
        flat.putpixel((1, 0), 255 if mode != "RGB" else (255, 255, 255))
        data = png(flat, transparency=0 if mode != "RGB" else (0, 0, 0))
    decoded = imaging.decode(data, field="image", keep_alpha=True)
    assert decoded.mode == "RGBA"
    assert [decoded.getchannel("A").getpixel((x, 0)) for x in (0, 1)] == [0, 255]
    assert not decoded.info


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_pictures_come_upright_and_the_header_says_so_beforehand(kind: str) -> None:
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        file = BytesIO()
        grain(6, 4).save(file, kind, exif=exif)
        decoded = imaging.decode(file.getvalue(), field="image", keep_alpha=True)
        assert decoded.size == ((4, 6) if orientation > 4 else (6, 4))
        assert imaging.inspect(file.getvalue(), field="image").upright_size == decoded.size
        assert not decoded.getexif()


def test_the_exif_of_a_webp_is_found_behind_chunks_of_odd_length() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = BytesIO()
    grain(6, 4).save(file, "WEBP", exif=exif)
    data = file.getvalue()
    at = data.index(b"EXIF")
    odd = data[:at] + b"odd!\x03\0\0\0abc\0" + data[at:]
    odd = odd[:4] + (len(odd) - 8).to_bytes(4, "little") + odd[8:]
    assert imaging.inspect(odd, field="image").turned
    assert imaging.decode(odd, field="image").size == (4, 6)


def test_exif_without_the_flag_of_a_webp_turns_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = BytesIO()
    grain(6, 4).save(file, "WEBP", exif=exif)
    data = bytearray(file.getvalue())
    data[20] &= ~8
    assert not imaging.inspect(bytes(data), field="image").turned
    assert imaging.decode(bytes(data), field="image").size == (6, 4)


def test_what_we_made_can_be_read_again_though_the_door_takes_less_by_default() -> None:
    data = png(Image.new("RGB", (10_000, 2)))
    assert imaging.decode(data, field="image", keep_alpha=True).size == (10_000, 2)
    assert imaging.inspect(data, field="image", max_side=10_000).width == 10_000
    with pytest.raises(InvalidFields, match="no side is over 8192"):
        imaging.inspect(data, field="image")
