"""Backgrounds that can be removed, how clean the cut is, and those of which nobody claims it."""

import random
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from app import imaging
from app.domain.transform import RemoveBackground
from app.errors import InvalidFields
from app.imaging.edges import grown
from app.imaging.regions import Mask, runs_of
from app.imaging.transform import transformed
from tests.transforms import grain, product


def cut(image: Image.Image) -> Image.Image:
    return transformed(image, RemoveBackground())


def refusal(image: Image.Image) -> str:
    with pytest.raises(InvalidFields) as caught:
        cut(image)
    (problem,) = caught.value.problems
    assert problem.field == "image"
    return problem.message


def alpha(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGBA"
    return np.asarray(image.getchannel("A"))


def noisy(image: Image.Image, sigma: float) -> Image.Image:
    noise = np.random.default_rng(1).normal(0, sigma, (image.height, image.width, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def as_jpeg(image: Image.Image) -> Image.Image:
    file = BytesIO()
    image.save(file, "JPEG", quality=75)
    return imaging.decode(file.getvalue(), field="image")


def shape() -> np.ndarray:
    """Where the mug of `product` is: its alpha, had it been drawn on nothing."""
    black, white = (np.asarray(product(ground=ground), np.float32) for ground in ("#000", "#fff"))
    covered: np.ndarray = 1 - (white - black).mean(axis=-1) / 255
    return covered


def hole() -> Mask:
    """Where the handle of `product` encloses background, and a little around."""
    plain = runs_of(shape() < 0.5)
    return grown(plain.mask(~plain.at_the_border()), 2)


# What is left


@pytest.mark.parametrize("ground", ["#fafafa", "#ffffff", "#000000", "#30d060", "#c8b4a0"])
def test_the_subject_is_kept_and_the_background_is_gone(ground: str) -> None:
    found = alpha(cut(product(ground=ground))) / 255
    expected = np.where(hole(), 1, shape())
    assert found[~grown(expected < 0.99, 3)].min() == 1
    assert found[~grown(expected > 0.01, 1)].max() == 0


def test_a_smooth_edge_becomes_smooth_alpha() -> None:
    found = alpha(cut(product())) / 255
    mixed = (shape() > 0.1) & (shape() < 0.9) & ~hole()
    assert mixed.sum() > 200
    assert np.abs(found - shape())[mixed].mean() < 0.08


@pytest.mark.parametrize("ground", ["#ffffff", "#00ff00"])
def test_no_rim_of_the_old_background_shows_on_a_new_one(ground: str) -> None:
    new = Image.new("RGB", (320, 240), "#401020")
    result = cut(product(ground=ground))
    new.paste(result, mask=result.getchannel("A"))
    expected = np.asarray(product(ground="#401020"), np.int16)
    rim = (shape() > 0.02) & (shape() < 0.98) & ~hole()
    assert np.abs(np.asarray(new, np.int16) - expected)[rim].mean() < 12


def test_nothing_of_the_background_is_left_under_the_transparency() -> None:
    pixels = np.asarray(cut(product(ground="#30d060")))
    assert pixels[pixels[..., 3] == 0].max() == 0


def test_the_inside_of_the_subject_keeps_its_pixels() -> None:
    image = product()
    result = cut(image).convert("RGB")
    box = (110, 60, 200, 100)
    assert result.crop(box).tobytes() == image.crop(box).tobytes()


@pytest.mark.parametrize("sigma", [2, 4, 8])
def test_camera_noise_and_jpeg_are_removed_with_the_background(sigma: float) -> None:
    found = alpha(cut(as_jpeg(noisy(product(ground="#e6e6e6"), sigma))))
    assert (found[:, :60] > 0).mean() < 0.001
    assert found[60:180, 110:200].min() == 255


def test_a_pale_thing_on_a_clean_white_ground_is_kept() -> None:
    image = Image.new("RGB", (100, 80), "white")
    image.paste((240, 240, 240), (30, 20, 70, 60))
    assert alpha(cut(image))[40, 50] == 255
    assert alpha(cut(image))[5, 5] == 0


def test_faint_crumbs_beside_the_subject_are_noise_and_anything_more_is_not() -> None:
    image = Image.new("RGB", (120, 80), "white")
    image.paste("navy", (40, 20, 80, 60))
    image.paste((226, 226, 226), (83, 30, 86, 33))
    image.paste((226, 226, 226), (90, 50, 110, 70))
    image.paste((190, 190, 190), (83, 40, 86, 43))
    image.paste((226, 226, 226), (55, 35, 59, 39))
    found = alpha(cut(image))
    assert found[31, 84] == 0, "small, faint, in the open"
    assert found[60, 100] == 255, "faint, but large"
    assert found[41, 84] > 0, "small, but strong"
    assert found[37, 57] == 255, "small and faint, but inside the subject"


def test_two_colours_that_meet_at_the_edge_are_no_mixture_with_the_background() -> None:
    image = Image.new("RGB", (120, 80), "white")
    image.paste("navy", (40, 20, 80, 60))
    image.paste((255, 210, 0), (40, 36, 80, 44))
    assert alpha(cut(image))[20:60, 40:80].min() == 255


def test_a_subject_may_touch_one_side() -> None:
    image = Image.new("RGB", (100, 80), "white")
    image.paste("navy", (20, 20, 80, 80))
    found = alpha(cut(image))
    assert found[79, 50] == 255
    assert found[79, 5] == found[0, 50] == 0


def test_what_the_subject_encloses_is_kept() -> None:
    image = Image.new("RGB", (100, 80), "white")
    image.paste("navy", (20, 20, 80, 60))
    image.paste("white", (40, 30, 60, 50))
    assert alpha(cut(image))[40, 50] == 255


def test_a_wire_of_one_pixel_is_kept() -> None:
    image = Image.new("RGB", (100, 80), "white")
    image.paste("navy", (50, 10, 51, 70))
    assert alpha(cut(image))[40, 49:52].tolist() == [0, 255, 0]


def test_transparent_parts_of_the_subject_stay_transparent() -> None:
    image = Image.new("RGBA", (100, 80), "white")
    image.paste("navy", (20, 20, 80, 60))
    image.paste((0, 0, 128, 100), (40, 30, 60, 50))
    assert alpha(cut(image))[40, 50] == 100


def test_a_background_that_is_transparent_already_is_left_alone() -> None:
    image = Image.new("RGBA", (100, 80), (1, 2, 3, 0))
    image.paste(grain(60, 40), (20, 20))
    result = cut(image)
    assert result.tobytes() == image.tobytes()
    assert result is not image


def test_the_cut_of_a_cut_is_the_same() -> None:
    once = cut(product())
    assert cut(once).tobytes() == once.tobytes()


# What is refused


def test_a_scene_is_refused_and_told_what_would_do() -> None:
    x, y = np.meshgrid(np.linspace(0, 1, 160), np.linspace(0, 1, 120))
    scene = np.stack([200 * x, 120 + 90 * np.sin(9 * y), 255 * (y > 0.5) * x], axis=-1)
    message = refusal(Image.fromarray(scene.astype(np.uint8)))
    assert "not one flat colour" in message
    assert "send a picture taken before a plain, evenly lit wall" in message


def shaded(depth: float) -> Image.Image:
    """The mug on a wall that gets darker towards the corners, by so many levels in them."""
    x, y = np.meshgrid(np.linspace(-1, 1, 320), np.linspace(-1, 1, 240))
    light = 1 - depth / 250 * (x * x + y * y) / 2
    return Image.fromarray((np.asarray(product()) * light[..., np.newaxis]).astype(np.uint8))


@pytest.mark.parametrize("depth", [80, 120, 200])
def test_a_wall_in_uneven_light_is_refused(depth: float) -> None:
    assert "even" in refusal(shaded(depth))


def test_a_glow_whose_rim_is_flat_is_refused_because_it_has_no_edge() -> None:
    x, y = np.meshgrid(np.linspace(-1, 1, 320), np.linspace(-1, 1, 240))
    glow = 60 + 150 * (1 - np.clip(np.hypot(x, y), 0, 1)) ** 2
    image = Image.fromarray(np.repeat(glow[..., np.newaxis], 3, axis=2).astype(np.uint8))
    assert "shades off" in refusal(image)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (60, 40)])
def test_a_plain_sheet_has_no_subject(size: tuple[int, int]) -> None:
    assert "nothing stands out" in refusal(Image.new("RGB", size, "red"))


def test_a_thin_frame_around_a_picture_is_no_background() -> None:
    image = Image.new("RGB", (200, 160), "white")
    image.paste(grain(196, 156).filter(ImageFilter.GaussianBlur(3)), (2, 2))
    assert "hardly anything" in refusal(image)


def test_a_picture_too_finely_patterned_is_refused_before_it_costs_memory() -> None:
    image = Image.new("RGB", (300, 200), "white")
    stripes = np.zeros((198, 298, 3), np.uint8)
    stripes[:, ::2] = 255
    image.paste(Image.fromarray(stripes), (1, 1))
    assert "too finely patterned" in refusal(image)


# Regions


def flooded(mask: Mask) -> Mask:
    """The slow and plain way: a pixel of the border, its neighbours, theirs, and so on."""
    height, width = mask.shape
    border = {
        (y, x) for y in range(height) for x in range(width) if y in {0, height - 1} or x in {0, width - 1}
    }
    todo, reached = list(border), np.zeros_like(mask)
    while todo:
        y, x = todo.pop()
        if 0 <= y < height and 0 <= x < width and mask[y, x] and not reached[y, x]:
            reached[y, x] = True
            todo += [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
    return reached


@settings(deadline=None)
@given(
    width=st.integers(1, 30), height=st.integers(1, 30), share=st.floats(0, 1), seed=st.integers(0, 10_000)
)
def test_regions_at_the_border_are_those_that_filling_reaches(
    width: int, height: int, share: float, seed: int
) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    runs = runs_of(mask)
    assert np.array_equal(runs.mask(np.ones(len(runs.starts), np.bool_)), mask)
    assert np.array_equal(runs.mask(runs.at_the_border()), flooded(mask))


def test_a_region_meets_another_mask_as_a_whole() -> None:
    mask = np.array([[1, 1, 0, 1], [0, 1, 0, 0], [1, 0, 0, 1]], np.bool_)
    other = np.array([[0, 0, 1, 0], [0, 1, 1, 0], [0, 1, 0, 1]], np.bool_)
    assert runs_of(mask).meeting(other).tolist() == [True, False, True, False, True]


def test_growing_reaches_diagonals_and_stays_inside_the_picture() -> None:
    mask = np.zeros((5, 6), np.bool_)
    mask[0, 1] = True
    assert np.argwhere(grown(mask, 1)).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert grown(mask, 5).all()


def test_the_size_of_a_region_is_its_pixels() -> None:
    mask = np.array([[1, 1, 0, 1], [0, 1, 0, 0], [1, 0, 0, 1], [1, 1, 1, 1]], np.bool_)
    runs = runs_of(mask)
    assert runs.sizes().tolist() == [3, 1, 3, 6, 6, 6]


def test_a_maze_is_filled_to_its_end() -> None:
    dice = random.Random(4)  # noqa: S311 - a reproducible maze, no secret
    mask = np.zeros((101, 101), np.bool_)
    todo = [(1, 1)]
    mask[1, 1] = mask[0, 1] = True
    while todo:
        y, x = todo[-1]
        steps = [(0, 2), (0, -2), (2, 0), (-2, 0)]
        dice.shuffle(steps)
        for down, across in steps:
            if 0 < y + down < 100 and 0 < x + across < 100 and not mask[y + down, x + across]:
                mask[y + down // 2, x + across // 2] = mask[y + down, x + across] = True
                todo.append((y + down, x + across))
                break
        else:
            todo.pop()
    runs = runs_of(mask)
    assert np.array_equal(runs.mask(runs.at_the_border()), mask)
    closed = mask.copy()
    closed[0, 1] = False
    runs = runs_of(closed)
    assert not runs.mask(runs.at_the_border()).any()
