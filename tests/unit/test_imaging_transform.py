"""What transforms do to pixels."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from app.domain.transform import (
    Blur,
    Convert,
    Crop,
    Import,
    Mark,
    Mirror,
    Modulate,
    Resize,
    Rotate,
    Transform,
    Watermark,
    result_size,
)
from app.imaging.transform import transformed
from tests.transforms import COLOURS, LONGEST, ONE_OF_EACH, POSITIONS, any_transform, grain

SIDES = st.integers(1, LONGEST)
MODES = st.sampled_from(["RGB", "RGBA"])
MARK = grain(9, 7, "RGBA", seed=5)


def at(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    pixel = image.getpixel((x, y))
    assert isinstance(pixel, tuple)
    return tuple(int(level) for level in pixel)


def near(one: tuple[int, ...], other: tuple[int, ...], by: int = 2) -> bool:
    return len(one) == len(other) and all(abs(a - b) <= by for a, b in zip(one, other, strict=True))


def quarters(width: int = 40, height: int = 40) -> Image.Image:
    """Red, green, blue and white, from the upper left one clockwise."""
    image = Image.new("RGB", (width, height), "#ff0000")
    image.paste("#00ff00", (width // 2, 0, width, height // 2))
    image.paste("#0000ff", (width // 2, height // 2, width, height))
    image.paste("#ffffff", (0, height // 2, width // 2, height))
    return image


# All of them


@settings(max_examples=300, deadline=None)
@given(data=st.data(), width=SIDES, height=SIDES, mode=MODES)
def test_the_result_has_the_size_that_was_promised(
    data: st.DataObject, width: int, height: int, mode: str
) -> None:
    transform = data.draw(any_transform(width, height))
    image = grain(width, height, mode)
    before = image.tobytes()
    result = transformed(image, transform, watermarks=[MARK])
    assert result.size == result_size(transform, width, height)
    assert result.mode in {mode, "RGBA"}
    assert result is not image
    assert image.tobytes() == before


@pytest.mark.parametrize("transform", ONE_OF_EACH)
def test_other_modes_are_a_mistake(transform: Transform) -> None:
    with pytest.raises(ValueError, match="mode L is neither RGB nor RGBA"):
        transformed(Image.new("L", (64, 48)), transform)


@settings(deadline=None)
@given(
    transform=st.sampled_from(
        [
            Resize(),
            Resize(width=30),
            Rotate(angle=0),
            Rotate(angle=-720),
            Import(),
            Convert(format="webp"),
            Modulate(),
            Modulate(hue=-360),
            Crop(x1=0, y1=0, x2=30, y2=20),
        ]
    ),
    mode=MODES,
)
def test_what_changes_nothing_changes_nothing(transform: Transform, mode: str) -> None:
    image = grain(30, 20, mode)
    result = transformed(image, transform)
    assert result.mode == mode
    assert result.tobytes() == image.tobytes()


# Mirrors and turns


@settings(deadline=None)
@given(width=SIDES, height=SIDES, mode=MODES, way=st.sampled_from(["horizontal", "vertical", "both"]))
def test_a_mirror_of_a_mirror_is_the_picture(width: int, height: int, mode: str, way: Any) -> None:
    image, mirror = grain(width, height, mode), Mirror(mode=way)
    assert transformed(transformed(image, mirror), mirror).tobytes() == image.tobytes()


def test_horizontal_exchanges_left_and_right() -> None:
    image = quarters()
    horizontal, vertical, both = (
        transformed(image, Mirror(mode=mode)) for mode in ("horizontal", "vertical", "both")
    )
    assert at(horizontal, 0, 0) == at(image, 39, 0)
    assert at(vertical, 0, 0) == at(image, 0, 39)
    assert at(both, 0, 0) == at(image, 39, 39)


@settings(deadline=None)
@given(width=SIDES, height=SIDES, mode=MODES, turns=st.sampled_from([-1, 1]), radians=st.booleans())
def test_four_quarter_turns_are_the_picture(
    width: int,
    height: int,
    mode: str,
    turns: int,
    radians: bool,  # noqa: FBT001 - drawn by name
) -> None:
    image = result = grain(width, height, mode)
    turn = Rotate(angle=turns * math.pi / 2, unit="radians") if radians else Rotate(angle=turns * 90)
    for _ in range(4):
        turned = transformed(result, turn)
        assert turned.size == (result.height, result.width)
        result = turned
    assert result.tobytes() == image.tobytes()


@settings(deadline=None)
@given(width=SIDES, height=SIDES, mode=MODES)
def test_two_quarter_turns_are_a_half_one(width: int, height: int, mode: str) -> None:
    image = grain(width, height, mode)
    twice = transformed(transformed(image, Rotate(angle=90)), Rotate(angle=90))
    assert twice.tobytes() == transformed(image, Rotate(angle=180)).tobytes()


@pytest.mark.parametrize("angle", [90, 89.5])
def test_a_positive_angle_turns_clockwise(angle: float) -> None:
    turned = transformed(quarters(), Rotate(angle=angle))
    assert at(turned, 10, 10) == (255, 255, 255)
    assert at(turned, 30, 10) == (255, 0, 0)


def test_a_turned_picture_lies_on_its_ground_with_smooth_edges_and_without_ringing() -> None:
    grey = Image.new("RGB", (60, 40), (120, 120, 120))
    turned = np.asarray(transformed(grey, Rotate(angle=30, background_color="#202020")))
    assert tuple(turned[0, 0]) == (32, 32, 32)
    assert tuple(turned[turned.shape[0] // 2, turned.shape[1] // 2]) == (120, 120, 120)
    assert turned.min() == 32
    assert turned.max() == 120
    mixed = (turned[..., 0] > 40) & (turned[..., 0] < 112)
    assert 60 < mixed.sum() < 400
    covered = (turned[..., 0].astype(float) - 32) / 88
    assert covered.sum() == pytest.approx(60 * 40, rel=0.01)


def test_a_turn_there_and_back_shows_the_picture_in_the_middle() -> None:
    image = quarters(80, 60)
    there = transformed(image, Rotate(angle=20))
    back = transformed(there, Rotate(angle=-20))
    left, top = (back.width - 80) // 2, (back.height - 60) // 2
    middle = np.asarray(back.crop((left + 5, top + 5, left + 75, top + 55)), np.int16)
    whole = np.asarray(image.crop((5, 5, 75, 55)), np.int16)
    assert np.abs(middle - whole).mean() < 8


def test_transparent_parts_stay_transparent_on_a_turned_pictures_ground() -> None:
    image = Image.new("RGBA", (60, 60), (10, 20, 30, 0))
    turned = transformed(image, Rotate(angle=45, background_color="red"))
    assert turned.mode == "RGBA"
    assert at(turned, 0, 0) == (255, 0, 0, 255)
    assert at(turned, turned.width // 2, turned.height // 2)[3] == 0


def test_a_transparent_ground_gives_an_opaque_picture_an_alpha_channel() -> None:
    turned = transformed(quarters(), Rotate(angle=45, background_color="transparent"))
    assert at(turned, 0, 0)[3] == 0
    assert at(turned, turned.width // 2 + 8, turned.height // 2)[3] == 255


def test_the_edges_of_a_picture_on_transparent_ground_keep_its_colour() -> None:
    image = Image.new("RGB", (60, 40), (200, 120, 40))
    pixels = np.asarray(transformed(image, Rotate(angle=30, background_color="transparent")), np.int16)
    edge = pixels[(pixels[..., 3] > 20) & (pixels[..., 3] < 235)]
    assert len(edge) > 60
    assert np.abs(edge[:, :3] - (200, 120, 40)).max() <= 6


# Sizes


def test_fill_stretches() -> None:
    resized = transformed(quarters(), Resize(width=60, height=20))
    assert at(resized, 5, 5) == (255, 0, 0)
    assert at(resized, 55, 15) == (0, 0, 255)


def test_one_side_alone_keeps_the_proportions() -> None:
    assert transformed(quarters(40, 20), Resize(width=20)).size == (20, 10)
    assert transformed(quarters(40, 20), Resize(height=40)).size == (80, 40)


@pytest.mark.parametrize("position", POSITIONS)
def test_contain_shows_all_of_it_on_a_letterbox_at_the_position(position: Any) -> None:
    for size, given_size in (((60, 20), (20, 20)), ((20, 60), (20, 20))):
        wide = size[0] > size[1]
        resize = Resize(
            width=size[0], height=size[1], fit="contain", position=position, letterbox_color="#102030"
        )
        result = transformed(quarters(*given_size), resize)
        assert result.mode == "RGB"
        sides = position.split("-")
        first, last = ("left", "right") if wide else ("top", "bottom")
        start = 0 if first in sides else 40 if last in sides else 20
        place = (start, 0) if wide else (0, start)
        inner = result.crop((*place, place[0] + 20, place[1] + 20))
        assert inner.tobytes() == quarters(20, 20).tobytes()
        outside = result.copy()
        outside.paste((16, 32, 48), (*place, place[0] + 20, place[1] + 20))
        assert outside.getcolors() == [(1200, (16, 32, 48))]


@pytest.mark.parametrize("position", POSITIONS)
def test_cover_keeps_the_part_at_the_position(position: Any) -> None:
    result = transformed(quarters(), Resize(width=40, height=20, fit="cover", position=position))
    top = (255, 0, 0), (0, 255, 0)
    bottom = (255, 255, 255), (0, 0, 255)
    expected = {
        "top": (*top, *top),
        "bottom": (*bottom, *bottom),
    }.get(next((side for side in position.split("-") if side in {"top", "bottom"}), ""), (*top, *bottom))
    assert tuple(at(result, *place) for place in ((5, 2), (35, 2), (5, 17), (35, 17))) == expected


def test_a_letterbox_without_a_colour_is_transparent_where_that_can_be_kept_and_black_elsewhere() -> None:
    resize = Resize(width=60, height=20, fit="contain")
    clear = transformed(quarters(), resize)
    assert (clear.mode, at(clear, 0, 0)) == ("RGBA", (0, 0, 0, 0))
    black = transformed(quarters(), resize, keeps_alpha=False)
    assert (black.mode, at(black, 0, 0)) == ("RGB", (0, 0, 0))


@pytest.mark.parametrize("colour", COLOURS)
def test_every_colour_of_a_letterbox_arrives(colour: str) -> None:
    result = transformed(quarters(), Resize(width=60, height=20, fit="contain", letterbox_color=colour))
    expected = {"red": (255, 0, 0), "#0f0": (0, 255, 0), "#12345678": (18, 52, 86, 120)}
    assert at(result, 0, 0) == expected.get(colour, (0, 0, 0, 0))


def test_the_letterbox_does_not_show_through_transparent_parts() -> None:
    image = Image.new("RGBA", (20, 20))
    result = transformed(image, Resize(width=60, height=20, fit="contain", letterbox_color="red"))
    assert at(result, 0, 0) == (255, 0, 0, 255)
    assert at(result, 30, 10)[3] == 0


@pytest.mark.parametrize(
    "transform",
    [Resize(width=31, height=17), Rotate(angle=33, background_color="transparent"), Blur(sigma=3)],
)
def test_the_colour_of_transparent_pixels_never_bleeds_into_visible_ones(transform: Transform) -> None:
    image = Image.new("RGBA", (40, 40), (0, 255, 0, 0))
    image.paste((200, 0, 0, 255), (10, 10, 30, 30))
    pixels = np.asarray(transformed(image, transform))
    visible = pixels[pixels[..., 3] > 20]
    assert len(visible)
    assert visible[:, 1].max() <= 12


def test_shrinking_averages_instead_of_picking_pixels() -> None:
    checks = Image.fromarray(np.indices((64, 64)).sum(axis=0).astype(np.uint8) % 2 * 255).convert("RGB")
    small = np.asarray(transformed(checks, Resize(width=8, height=8)))
    assert small.min() > 110
    assert small.max() < 145


# Blur


@given(sigma=st.floats(1, 1000), mode=MODES)
@settings(max_examples=40, deadline=None)
def test_a_blur_leaves_a_plain_picture_alone(sigma: float, mode: str) -> None:
    colour = (200, 100, 50, 255)[: len(mode)]
    result = transformed(Image.new(mode, (30, 20), colour), Blur(sigma=sigma))
    assert result.getcolors() == [(600, colour)]


def test_sigma_is_the_width_of_the_gaussian() -> None:
    line = Image.new("RGB", (201, 9))
    line.paste("white", (100, 0, 101, 9))
    for sigma in (3, 10):
        spread = np.asarray(transformed(line, Blur(sigma=sigma)))[4, :, 0].astype(float)
        offsets = np.arange(201) - 100
        assert math.sqrt((spread * offsets**2).sum() / spread.sum()) == pytest.approx(sigma, rel=0.25)


# Light and colours


def modulated(colour: tuple[int, int, int], **asked: Any) -> tuple[int, ...]:
    return at(transformed(Image.new("RGB", (1, 1), colour), Modulate(**asked)), 0, 0)


@settings(deadline=None)
@given(width=SIDES, height=SIDES, mode=MODES, seed=st.integers(0, 99))
def test_modulating_by_nothing_is_the_identity(width: int, height: int, mode: str, seed: int) -> None:
    image = grain(width, height, mode, seed=seed)
    assert transformed(image, Modulate()).tobytes() == image.tobytes()


@pytest.mark.parametrize(
    ("asked", "given_colour", "expected"),
    [
        ({"brightness": 50}, (100, 50, 10), (150, 75, 15)),
        ({"brightness": -100}, (100, 50, 10), (0, 0, 0)),
        ({"brightness": 100}, (200, 50, 10), (255, 100, 20)),
        ({"contrast": -100}, (200, 50, 10), (128, 128, 128)),
        ({"contrast": 100}, (150, 100, 128), (172, 72, 128)),
        ({"saturation": -100}, (255, 0, 0), (54, 54, 54)),
        ({"saturation": -100}, (0, 255, 0), (182, 182, 182)),
        ({"saturation": 100}, (130, 120, 125), (138, 118, 128)),
        ({"exposure": 50}, (100, 100, 100), (137, 137, 137)),
        ({"exposure": -100}, (255, 255, 255), (137, 137, 137)),
        ({"exposure": 100}, (137, 137, 137), (255, 255, 255)),
        ({"lightness": 20}, (100, 50, 230), (151, 101, 255)),
        ({"lightness": -100}, (100, 50, 230), (0, 0, 0)),
        ({"hue": 77}, (90, 90, 90), (90, 90, 90)),
        ({"hue": 360}, (10, 20, 30), (10, 20, 30)),
    ],
)
def test_each_dial_does_what_it_says(
    asked: dict[str, Any], given_colour: tuple[int, int, int], expected: tuple[int, int, int]
) -> None:
    assert near(modulated(given_colour, **asked), expected), modulated(given_colour, **asked)


def test_hue_moves_red_to_green_to_blue_and_keeps_how_bright_it_looks() -> None:
    muted = (150, 110, 110)
    for hue, strongest in ((120, 1), (240, 2), (-120, 2), (480, 1)):
        colour = modulated(muted, hue=hue)
        assert int(np.argmax(colour)) == strongest
        luma = [0.2126 * red + 0.7152 * green + 0.0722 * blue for red, green, blue in (muted, colour)]
        assert luma[0] == pytest.approx(luma[1], abs=1.5)


def test_exposure_and_brightness_do_not_clip_between_them() -> None:
    assert modulated((200, 200, 200), exposure=60, brightness=-50) != modulated(
        (255, 255, 255), brightness=-50
    )


@settings(deadline=None)
@given(asked=st.builds(Modulate, brightness=st.floats(-100, 100), hue=st.integers(0, 360)))
def test_modulating_leaves_alpha_alone(asked: Modulate) -> None:
    image = grain(20, 10, "RGBA")
    result = transformed(image, asked)
    assert result.getchannel("A").tobytes() == image.getchannel("A").tobytes()


# Watermarks


def watermarked(image: Image.Image, *marks: Mark, given_marks: list[Image.Image]) -> Image.Image:
    return transformed(image, Watermark(watermarks=marks), watermarks=given_marks)


def test_a_watermark_lies_where_it_was_put_and_nowhere_else() -> None:
    image, mark = Image.new("RGB", (50, 40)), Image.new("RGB", (10, 6), "red")
    result = watermarked(image, Mark(image=0, left=12, top=8), given_marks=[mark])
    assert result.mode == "RGB"
    assert ImageChops.difference(result, image).getbbox() == (12, 8, 22, 14)


def test_a_watermark_is_stretched_to_the_size_that_is_named_alone_or_both() -> None:
    image, mark = Image.new("RGB", (50, 40)), Image.new("RGB", (10, 6), "red")
    for asked, box in (
        ({"width": 20}, (0, 0, 20, 6)),
        ({"height": 3}, (0, 0, 10, 3)),
        ({"width": 2, "height": 30}, (0, 0, 2, 30)),
    ):
        result = watermarked(image, Mark(image=0, **asked), given_marks=[mark])
        assert ImageChops.difference(result, image).getbbox() == box


def test_what_hangs_over_the_edge_is_cut() -> None:
    image, mark = Image.new("RGB", (50, 40)), quarters(20, 20)
    result = watermarked(image, Mark(image=0, left=-10, top=-10), given_marks=[mark])
    assert at(result, 0, 0) == at(result, 9, 9) == (0, 0, 255)
    assert at(result, 10, 9) == (0, 0, 0)
    result = watermarked(image, Mark(image=0, left=40, top=30), given_marks=[mark])
    assert at(result, 49, 39) == (255, 0, 0)


@given(
    left=st.integers(-60, 49),
    top=st.integers(-60, 39),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    mode=st.sampled_from(["no_repeat", "repeat", "repeat_x", "repeat_y"]),
)
@settings(max_examples=150, deadline=None)
def test_tiles_go_on_from_the_mark_in_both_directions(
    left: int, top: int, size: tuple[int, int], mode: Any
) -> None:
    image, mark = grain(50, 40), grain(*size, seed=3)
    mark_of = Mark(image=0, left=left, top=top, repetition_mode=mode)
    result = np.asarray(watermarked(image, mark_of, given_marks=[mark]))
    original, tile = np.asarray(image), np.asarray(mark)
    for y in range(0, 40, 3):
        for x in range(0, 50, 3):
            column, row = x - left, y - top
            on_x = mode in {"repeat", "repeat_x"} or 0 <= column < size[0]
            on_y = mode in {"repeat", "repeat_y"} or 0 <= row < size[1]
            expected = tile[row % size[1], column % size[0]] if on_x and on_y else original[y, x]
            assert tuple(result[y, x]) == tuple(expected)


def test_a_half_transparent_watermark_lets_the_picture_through() -> None:
    image, mark = Image.new("RGB", (4, 4), (0, 0, 200)), Image.new("RGBA", (4, 4), (200, 0, 0, 128))
    result = watermarked(image, Mark(image=0), given_marks=[mark])
    assert near(at(result, 1, 1), (100, 0, 100))


def test_later_watermarks_lie_on_top_and_one_can_be_used_twice() -> None:
    red, blue = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    marks = Mark(image=0), Mark(image=1, left=2), Mark(image=0, left=3)
    result = watermarked(Image.new("RGB", (10, 4)), *marks, given_marks=[red, blue])
    assert [at(result, x, 0)[0] for x in (0, 1, 2, 3, 6, 7)] == [255, 255, 0, 255, 255, 0]


def test_a_watermark_makes_transparent_parts_visible_and_keeps_the_others_transparent() -> None:
    result = watermarked(
        Image.new("RGBA", (10, 10)), Mark(image=0), given_marks=[Image.new("RGB", (3, 3), "red")]
    )
    assert (at(result, 2, 2), at(result, 3, 3)) == ((255, 0, 0, 255), (0, 0, 0, 0))


def test_a_missing_watermark_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="watermark 1 of 1 is missing"):
        watermarked(grain(5, 5), Mark(image=1), given_marks=[MARK])
