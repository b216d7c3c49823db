import json
import random
import struct
import time
import zlib
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from app import imaging
from app.domain.spec import ImageFormat
from app.errors import InvalidFields, UnsupportedMedia


def grain(width: int, height: int, mode: str = "RGB", *, seed: int = 0) -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, bands), np.uint8)
    return Image.fromarray(noise.squeeze(2) if bands == 1 else noise, mode=None)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def ihdr(width: int, height: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def refusal(data: bytes, *, max_pixels: int = imaging.MAX_PIXELS) -> str:
    with pytest.raises(InvalidFields) as caught:
        imaging.inspect(data, field="image", max_pixels=max_pixels)
    (problem,) = caught.value.problems
    assert problem.field == "image"
    return problem.message


# The door


@pytest.mark.parametrize("kind", imaging.FORMATS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(1, 1), (37, 11), (300, 2)])
def test_the_header_of_every_format_is_read_as_pillow_reads_it(
    kind: str, mode: str, size: tuple[int, int]
) -> None:
    data = saved(grain(*size, mode), kind)
    assert imaging.inspect(data, field="image") == imaging.Header(format=kind, width=size[0], height=size[1])


def test_all_three_kinds_of_webp_and_progressive_jpegs_are_read() -> None:
    see_through = grain(9, 5, "RGBA")
    for data in (
        saved(see_through, "WEBP", lossless=True),
        saved(see_through, "WEBP", quality=50),
        saved(see_through, "WEBP", quality=50, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
        saved(grain(9, 5), "JPEG", progressive=True),
        saved(grain(9, 5), "JPEG", comment=b"\xff\xd9 no end yet"),
        saved(grain(9, 5), "JPEG") + b"PK\x03\x04 a tail",
    ):
        header = imaging.inspect(data, field="image")
        assert (header.width, header.height) == (9, 5)


def test_a_text_file_named_png_is_the_wrong_kind_of_file() -> None:
    for data in (b"", b"hello, I am a picture", b"GIF89a", b"\x89PNG", b"<svg/>"):
        with pytest.raises(UnsupportedMedia, match=r"mask: is not an image .* PNG, JPEG or WEBP"):
            imaging.inspect(data, field="mask")


def test_a_dialect_may_accept_fewer_formats() -> None:
    with pytest.raises(UnsupportedMedia, match="image: is a WEBP file; send a PNG or JPEG file"):
        imaging.inspect(saved(grain(2, 2), "WEBP"), field="image", accepted=("PNG", "JPEG"))


def test_a_decompression_bomb_is_refused_at_once() -> None:
    rows = zlib.compress(bytes(9400 * 3 + 1) * 100)
    bomb = png_of(ihdr(9400, 9400), chunk(b"IDAT", rows), chunk(b"IEND", b""))
    began = time.perf_counter()
    assert "resize it so that no side is over 8192" in refusal(bomb)
    assert time.perf_counter() - began < 0.05


def test_too_many_pixels_are_refused_with_the_limit() -> None:
    data = saved(Image.new("RGB", (50, 41)), "PNG")
    assert "50 x 41 is 2,050 pixels, at most 2,049" in refusal(data, max_pixels=2049)
    assert imaging.inspect(data, field="image", max_pixels=2050).width == 50


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused(kind: str) -> None:
    data = saved(grain(4, 4), kind, save_all=True, append_images=[grain(4, 4, seed=1)])
    assert "is animated" in refusal(data)


@pytest.mark.parametrize("kind", imaging.FORMATS)
def test_a_file_cut_anywhere_is_refused(kind: str) -> None:
    data = saved(grain(20, 20), kind)
    for length in range(12, len(data) - 1, 7):
        refusal(data[:length])


def test_a_flipped_bit_in_a_png_is_noticed_without_decoding() -> None:
    data = bytearray(saved(grain(20, 20), "PNG"))
    data[len(data) // 2] ^= 1
    assert "'IDAT' chunk has a wrong checksum" in refusal(bytes(data))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (png_of(chunk(b"IDAT", b""), ihdr(1, 1)), "does not begin with an IHDR"),
        (png_of(ihdr(1, 1), chunk(b"IEND", b"")), "holds no pixels"),
        (png_of(ihdr(0, 1), chunk(b"IDAT", b""), chunk(b"IEND", b"")), "0 x 1 pixels is empty"),
        (png_of(ihdr(1, 1), chunk(b"tEXt", b"a\0b") * imaging.header.MAX_PARTS), "more than 65,536 chunks"),
        (b"\xff\xd8\xff\xe0\0\x02" + b"\xff\xe1\0\x02" * imaging.header.MAX_PARTS, "65,536 segments"),
        (b"\xff\xd8\xff\xda\0\x02\xff\xd9", "does not say its size"),
        (b"\xff\xd8\xff\xd0\xff\xd9", "holds no pixels"),
        (b"RIFF\x0c\0\0\0WEBPICCP\0\0\0\0", "holds no pixels"),
    ],
)
def test_odd_files_are_refused_with_a_reason(data: bytes, reason: str) -> None:
    assert reason in refusal(data)


@pytest.mark.parametrize("filler", [b"\0", b"\xff", b"\xff\0", b"\xff\xd0"])
def test_megabytes_of_jpeg_junk_cost_no_time(filler: bytes) -> None:
    data = b"\xff\xd8\xff" + filler * (4_000_000 // len(filler))
    began = time.perf_counter()
    refusal(data)
    assert time.perf_counter() - began < 0.2


# Pillow warns of odd EXIF and APNG parts on its way to an error or a picture; both ways are fine here.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", imaging.FORMATS)
def test_mutated_files_give_a_picture_or_our_error(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    original = saved(grain(24, 16), kind, exif=exif.tobytes())
    dice = random.Random(f"fuzz {kind}")  # noqa: S311 - reproducible mutations, no secrets
    for _ in range(300):
        data = bytearray(original)
        for _ in range(dice.choice((1, 1, 3, 20))):
            data[dice.randrange(len(data))] = dice.randrange(256)
        if dice.random() < 0.3:
            del data[dice.randrange(len(data)) :]
        with suppress(InvalidFields, UnsupportedMedia):
            assert imaging.decode(mended(bytes(data)), field="image").mode == "RGB"


def mended(data: bytes) -> bytes:
    """Give PNG chunks right checksums again, so that the damage reaches Pillow."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    parts, position = [data[:8]], 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        parts.append(chunk(data[position + 4 : position + 8], data[position + 8 : position + 8 + length]))
        position += 12 + length
    return b"".join(parts)


def test_a_second_size_cannot_be_smuggled_past_the_door() -> None:
    pixels = chunk(b"IDAT", zlib.compress(bytes(4)))
    smuggled = png_of(ihdr(1, 1), ihdr(5000, 5000), pixels, chunk(b"IEND", b""))
    with pytest.raises(InvalidFields, match="image: the PNG file is corrupt"):
        imaging.decode(smuggled, field="image")


# Decoding


def test_transparent_parts_become_white() -> None:
    image = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    image.putpixel((1, 0), (10, 20, 30, 255))
    flat = imaging.decode(saved(image, "PNG"), field="image")
    assert [flat.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (10, 20, 30)]


def test_every_mode_that_a_file_can_have_becomes_rgb() -> None:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = Image.new(mode, (3, 2))
        assert imaging.decode(saved(image, "PNG"), field="image").mode == "RGB"
    assert imaging.decode(saved(Image.new("CMYK", (3, 2)), "JPEG"), field="image").mode == "RGB"


def test_sixteen_bit_greys_keep_their_brightness() -> None:
    image = Image.fromarray(np.full((2, 2), 0x8000, np.uint16))
    assert imaging.decode(saved(image, "PNG"), field="image").getpixel((0, 0)) == (128, 128, 128)


def test_a_photo_taken_upright_is_decoded_upright_and_its_metadata_is_gone() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "Camera"
    data = saved(grain(6, 4), "JPEG", exif=exif.tobytes(), comment=b"secret", icc_profile=b"profile")
    assert imaging.inspect(data, field="image").width == 6
    upright = imaging.decode(data, field="image")
    assert upright.size == (4, 6)
    assert not upright.info
    assert not upright.getexif()


def test_text_of_a_png_does_not_survive_decoding() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", "somebody else's")
    assert not imaging.decode(saved(grain(2, 2), "PNG", pnginfo=info), field="image").info


# Preparing


def test_the_middle_of_the_picture_is_cut_to_the_exact_size() -> None:
    image = Image.new("RGB", (300, 100), "red")
    image.paste("blue", (100, 0, 200, 100))
    prepared = imaging.prepare_image(image, width=40, height=40)
    assert prepared.size == (40, 40)
    for x in (2, 37):
        red, _, blue = np.asarray(prepared)[20, x]
        assert red < 5
        assert blue > 250


def test_a_mask_is_hard_and_lies_on_its_image_whatever_its_size() -> None:
    image = Image.new("RGB", (90, 60), "black")
    image.paste("white", (50, 10, 80, 40))
    prepared = np.asarray(imaging.prepare_image(image, width=48, height=64).convert("L")) >= 128
    for size in ((90, 60), (180, 120), (45, 30), (60, 60)):
        mask = imaging.prepare_mask(
            image.resize(size, Image.Resampling.NEAREST), image_size=image.size, width=48, height=64
        )
        assert (mask.mode, mask.size) == ("L", (48, 64))
        assert set(np.unique(np.asarray(mask))) <= {0, 255}
        assert np.mean((np.asarray(mask) == 255) != prepared) < 0.03


def test_grey_128_is_changed_and_127_is_kept() -> None:
    mask = Image.new("RGB", (2, 1), (127, 127, 127))
    mask.putpixel((1, 0), (128, 128, 128))
    hard = imaging.prepare_mask(mask, image_size=(2, 1), width=2, height=1)
    assert [hard.getpixel((x, 0)) for x in (0, 1)] == [0, 255]


def test_composite_keeps_the_originals_pixels_where_the_mask_is_black() -> None:
    result, original = grain(30, 20, seed=1), grain(30, 20, seed=2)
    mask = Image.fromarray(np.where(np.asarray(grain(30, 20, "L")) > 127, 255, 0).astype(np.uint8))
    put = np.asarray(imaging.composite(result, original, mask))
    kept = np.asarray(mask) == 0
    assert np.array_equal(put[kept], np.asarray(original)[kept])
    assert np.array_equal(put[~kept], np.asarray(result)[~kept])


def test_composite_of_different_sizes_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="does not lie on"):
        imaging.composite(grain(3, 3), grain(4, 3), grain(4, 3, "L"))


# Encoding


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 67),
    height=st.integers(1, 67),
    mode=st.sampled_from(["L", "RGB", "RGBA"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_png_gives_back_every_bit(width: int, height: int, mode: str, seed: int) -> None:
    image = grain(width, height, mode, seed=seed)
    data = imaging.encode(image, ImageFormat.PNG, metadata={"seed": str(seed)})
    with Image.open(BytesIO(data)) as opened:
        opened.load()
        assert (opened.mode, opened.size) == (mode, (width, height))
        assert opened.tobytes() == image.tobytes()
    assert imaging.inspect(data, field="image").width == width


def test_a_png_carries_its_metadata_in_any_language() -> None:
    metadata = {"prompt": "a cat\non a hill", "negative_prompt": "日本語 🐈", "operation": "é", "empty": ""}
    with Image.open(BytesIO(imaging.encode(grain(3, 3), ImageFormat.PNG, metadata=metadata))) as opened:
        opened.load()
        assert {key: str(opened.info[key]) for key in metadata} == metadata


@pytest.mark.parametrize("keyword", ["", " a", "a ", "a  b", "a\0b", "a\nb", "日本", "x" * 80, "\xa0"])
def test_keywords_that_png_forbids_are_a_mistake(keyword: str) -> None:
    with pytest.raises(ValueError, match="PNG keyword"):
        imaging.encode(grain(1, 1), ImageFormat.PNG, metadata={keyword: "x"})


def test_a_nul_or_half_a_character_in_a_prompt_does_not_break_the_file() -> None:
    for output_format in ImageFormat:
        data = imaging.encode(grain(2, 2), output_format, metadata={"prompt": "a\0b\ud800"})
        assert imaging.decode(data, field="image").size == (2, 2)


def test_a_jpeg_looks_like_its_picture_and_carries_its_metadata() -> None:
    image = Image.new("RGB", (32, 32), (200, 40, 90))
    data = imaging.encode(image, ImageFormat.JPEG, metadata={"prompt": "日本語", "seed": "7"})
    with Image.open(BytesIO(data)) as opened:
        assert opened.format == "JPEG"
        assert json.loads(opened.info["comment"]) == {"prompt": "日本語", "seed": "7"}
        assert np.abs(np.asarray(opened, np.int16) - np.asarray(image, np.int16)).max() <= 3


def test_metadata_too_long_for_a_jpeg_comment_is_cut() -> None:
    metadata = {"prompt": "🐈" * 10_000, "negative_prompt": "é" * 20_000, "seed": "7"}
    data = imaging.encode(grain(2, 2), ImageFormat.JPEG, metadata=metadata)
    with Image.open(BytesIO(data)) as opened:
        carried = json.loads(opened.info["comment"])
    assert carried["prompt"] == "🐈" * 10_000
    assert carried["negative_prompt"] == "é" * 10_000 + "…"
    assert carried["seed"] == "7"


def test_a_transparent_picture_becomes_a_jpeg_on_white() -> None:
    data = imaging.encode(Image.new("RGBA", (8, 8)), ImageFormat.JPEG, metadata={})
    assert imaging.decode(data, field="image").getpixel((4, 4)) == (255, 255, 255)


def test_other_modes_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="mode CMYK"):
        imaging.encode(Image.new("CMYK", (1, 1)), ImageFormat.PNG, metadata={})
