"""What is shown in place of an image that may not be, and the mark of test keys."""

import random
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from app import imaging
from app.domain.spec import CensorKind
from tests.transforms import grain, product

KINDS: tuple[CensorKind, ...] = get_args(CensorKind)
SIDES = st.one_of(st.integers(1, 40), st.integers(1, 300))


def page(seed: int) -> Image.Image:
    """Give a page of letters that fill it evenly."""
    dice = random.Random(seed)  # noqa: S311 - reproducible letters, no secret
    image = Image.new("RGB", (400, 300), "white")
    draw = ImageDraw.Draw(image)
    for top in range(0, 300, 20):
        line = "".join(dice.choices("ABCDEFGHKLMNOPRSTUVWXZ", k=40))
        draw.text((2, top), line, fill="black", font_size=20)
    return image


def difference(one: Image.Image, other: Image.Image) -> np.ndarray:
    first, second = (np.asarray(image.convert("RGB"), np.int16) for image in (one, other))
    apart: np.ndarray = np.abs(first - second).max(axis=-1)
    return apart


# Censored


@settings(max_examples=80, deadline=None)
@given(width=SIDES, height=SIDES, mode=st.sampled_from(["RGB", "RGBA"]), kind=st.sampled_from(KINDS))
def test_every_stand_in_has_the_pictures_size_and_no_alpha(
    width: int, height: int, mode: str, kind: CensorKind
) -> None:
    image = grain(width, height, mode)
    before = image.tobytes()
    result = imaging.censored(image, kind)
    assert (result.mode, result.size) == ("RGB", (width, height))
    assert image.tobytes() == before


def test_black_is_black() -> None:
    assert imaging.censored(product(), "black").getcolors() == [(320 * 240, (0, 0, 0))]


@pytest.mark.parametrize("kind", ["black", "sensitive_content_text"])
def test_a_blank_stand_in_is_the_same_for_every_picture(kind: CensorKind) -> None:
    one, other = (imaging.censored(grain(200, 150, seed=seed), kind) for seed in (1, 2))
    assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("kind", ["blur", "pixelate"])
def test_nothing_finer_than_an_eighth_of_the_picture_is_left(kind: CensorKind) -> None:
    for width, height in ((320, 240), (90, 400), (1024, 1024)):
        fine = Image.fromarray(
            np.repeat(np.repeat(np.asarray(grain(width // 10, height // 10)), 10, axis=0), 10, axis=1)
        )
        left = np.asarray(imaging.censored(fine, kind).convert("L"), np.float32)
        waves = np.abs(np.fft.fft2(left - left.mean()))
        rows, columns = (np.abs(np.fft.fftfreq(length)) * max(left.shape) for length in left.shape)
        coarse = (rows[:, np.newaxis] <= 8) & (columns <= 8)
        assert (waves[coarse] ** 2).sum() / (waves**2).sum() > (0.9 if kind == "blur" else 0.7)


def test_pixelated_blocks_are_plain() -> None:
    result = imaging.censored(grain(320, 240), "pixelate")
    colours = result.getcolors()
    assert colours is not None
    assert len(colours) <= 8 * 6


@pytest.mark.parametrize("kind", ["blur", "pixelate"])
def test_a_page_of_text_cannot_be_told_from_another(kind: CensorKind) -> None:
    pages = [page(seed) for seed in (1, 2)]
    assert difference(*pages).mean() > 40
    assert difference(*(imaging.censored(each, kind) for each in pages)).mean() < 12


@pytest.mark.parametrize("kind", KINDS)
def test_the_outline_of_a_transparent_picture_and_its_hidden_colours_are_gone(kind: CensorKind) -> None:
    hidden = Image.new("RGBA", (80, 60), (255, 0, 0, 0))
    shown = imaging.censored(hidden, kind)
    colours = shown.getcolors()
    assert colours is not None
    assert (255, 0, 0) not in {colour for _, colour in colours}


@pytest.mark.parametrize("size", [(640, 480), (120, 400), (400, 60), (64, 64)])
def test_the_words_fit_and_are_large_enough_to_read(size: tuple[int, int]) -> None:
    sheet = imaging.censored(Image.new("RGB", size), "sensitive_content_text")
    ink = Image.fromarray(((np.asarray(sheet.convert("L")) > 100) * 255).astype(np.uint8)).getbbox()
    assert ink is not None
    assert ink[0] > 0
    assert ink[1] > 0
    assert ink[2] < size[0]
    assert ink[3] < size[1]
    assert (ink[2] - ink[0]) / size[0] > 0.6 or (ink[3] - ink[1]) / size[1] > 0.6
    assert abs(ink[0] - (size[0] - ink[2])) <= max(4, size[0] // 20)


def test_a_picture_too_small_for_words_gets_a_blank_sheet() -> None:
    assert imaging.censored(grain(12, 9), "sensitive_content_text").getcolors() == [(108, (24, 24, 28))]


# Stamped


@settings(max_examples=120, deadline=None)
@given(width=SIDES, height=SIDES, mode=st.sampled_from(["RGB", "RGBA"]), seed=st.integers(0, 9))
def test_a_stamp_shows_on_every_picture_and_keeps_its_size_and_mode(
    width: int, height: int, mode: str, seed: int
) -> None:
    image = grain(width, height, mode, seed=seed)
    before = image.tobytes()
    result = imaging.stamped(image)
    assert (result.mode, result.size) == (image.mode, image.size)
    assert result.tobytes() != before
    assert image.tobytes() == before


@pytest.mark.parametrize("colour", ["black", "white", "#808080", "red"])
@pytest.mark.parametrize("size", [(1, 1), (3, 200), (24, 24), (320, 240), (90, 500), (1024, 1024)])
def test_a_stamp_can_be_seen_on_any_plain_colour_in_every_half(colour: str, size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, colour)
    changed = difference(imaging.stamped(image), image) > 40
    assert changed.mean() > 0.03
    if min(size) >= 24:
        rows, columns = size[1] // 2, size[0] // 2
        for half in (changed[:rows], changed[rows:], changed[:, :columns], changed[:, columns:]):
            assert half.any()


def test_a_stamped_picture_is_still_recognisable() -> None:
    image = product((640, 480))
    changed = difference(imaging.stamped(image), image)
    assert (changed == 0).mean() > 0.5
    assert changed.max() < 160


def test_a_stamp_shows_on_transparent_parts_too() -> None:
    for size in ((5, 5), (200, 100)):
        alpha = np.asarray(imaging.stamped(Image.new("RGBA", size)).getchannel("A"))
        assert alpha.max() >= 100
        assert (alpha == 0).any()
