"""Masks that mark by transparency: what a PNG's header tells of it, and what becomes of its pixels."""

import io

import pytest
from PIL import Image

from app import imaging
from app.errors import InvalidFields


def png(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def indexed() -> Image.Image:
    image = Image.new("P", (4, 1), 1)
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.putpixel((0, 0), 0)
    return image


@pytest.mark.parametrize(
    "data",
    [
        png(Image.new("RGBA", (4, 1))),
        png(Image.new("LA", (4, 1))),
        png(indexed(), transparency=0),
        png(Image.new("RGB", (4, 1)), transparency=(0, 0, 0)),
        png(Image.new("L", (4, 1)), transparency=0),
    ],
)
def test_a_pngs_header_tells_that_parts_can_be_transparent(data: bytes) -> None:
    assert imaging.inspect(data, field="mask").alpha


@pytest.mark.parametrize(
    "data", [png(indexed()), *(png(Image.new(mode, (4, 1))) for mode in ("RGB", "L", "1"))]
)
def test_a_pngs_header_tells_that_no_part_is_transparent(data: bytes) -> None:
    assert not imaging.inspect(data, field="mask").alpha


@pytest.mark.parametrize("cut", [8, 20, 25])
def test_a_png_cut_off_in_its_header_is_still_only_an_error_of_the_field(cut: int) -> None:
    with pytest.raises(InvalidFields, match="mask: the PNG file ends too early"):
        imaging.inspect(png(Image.new("RGBA", (4, 1)))[:cut], field="mask")


def hard(data: bytes) -> list[int]:
    mask = imaging.decode(data, field="mask", keep_alpha=True)
    return list(imaging.prepare_mask(mask, image_size=(4, 1), width=4, height=1, from_alpha=True).tobytes())


def test_only_what_is_fully_transparent_changes_whatever_its_colour() -> None:
    mask = Image.new("RGBA", (4, 1))
    for x, pixel in enumerate([(255, 255, 255, 0), (0, 0, 0, 0), (255, 255, 255, 1), (0, 0, 0, 255)]):
        mask.putpixel((x, 0), pixel)

    assert hard(png(mask)) == [255, 255, 0, 0]


def test_a_transparent_colour_marks_like_an_alpha_channel() -> None:
    grey = Image.new("L", (4, 1), 7)
    grey.putpixel((3, 0), 9)

    assert hard(png(indexed(), transparency=0)) == [255, 0, 0, 0]
    assert hard(png(grey, transparency=9)) == [0, 0, 0, 255]


def test_a_mask_without_transparency_is_an_error_of_the_mask() -> None:
    with pytest.raises(InvalidFields, match="mask: has no transparency; send a PNG whose alpha is 0"):
        hard(png(Image.new("RGB", (4, 1), "white")))


def test_a_mask_by_alpha_is_cropped_like_its_image() -> None:
    mask = Image.new("RGBA", (4, 1), "black")
    mask.putpixel((1, 0), (0, 0, 0, 0))
    decoded = imaging.decode(png(mask), field="mask", keep_alpha=True)

    made = imaging.prepare_mask(decoded, image_size=(4, 1), width=2, height=1, from_alpha=True)

    assert list(made.tobytes()) == [255, 0]
