"""Several jobs in one call: each must get what it would have got alone, but for rounding (gpu.md 2.1)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.domain.effective import batch_key
from app.domain.spec import Operation
from workers.providers.base import Share

pytest.importorskip("torch", reason="the extra gpu is not installed")

import torch

from tests.engine.studio import (
    DRAWINGS,
    PROFILES,
    Diary,
    difference,
    engine,
    hole,
    inputs,
    levels,
    model_of,
    network_runs,
    photo,
    pictures,
    profile,
    share,
    spec,
    together,
)
from workers.providers.diffusers import Diffusers
from workers.providers.diffusers.calls import Row, Shape, draw

every_model = pytest.mark.parametrize("model", PROFILES)
every_operation = pytest.mark.parametrize("operation", DRAWINGS)
ONE, CHANGED, FILLED = DRAWINGS
ROUNDING = 1
"""Levels of 255 by which a row of a call may differ from a call of its own, in float32."""


@pytest.fixture(scope="module")
def narrow(weights: Path) -> Diffusers:
    """An engine that draws at most four images in one call."""
    return engine(weights, *(profile(name, max_batch=4) for name in PROFILES))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Calculate in one thread: several share out a call's numbers as they come, in the middle of a row, and
    then one pixel in ten thousand is one level off."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def strangers(model: str, operation: Operation, **changes: Any) -> list[Share]:
    """Give jobs of one shape that have nothing else in common."""
    told: list[dict[str, Any]] = [
        {"prompt": "misty mountains at dawn", "seed": 11},
        {"prompt": "a red car", "negative_prompt": "fog and rain", "seed": 2**63 - 1},
        {"prompt": "x" * 400, "negative_prompt": "y" * 400, "seed": 0},
        {"prompt": "näher heran, 近く", "negative_prompt": "", "seed": 12},
    ]
    return [
        share(spec(model, operation, **each | changes), seed=number, left=8 * number)
        for number, each in enumerate(told, start=1)
    ]


def first(one: Any) -> np.ndarray:
    """Give the first picture of a job's result."""
    return levels(one)[0]


@every_operation
@every_model
def test_strangers_in_one_call_get_what_each_would_have_got_alone(
    drawing: Diffusers, model: str, operation: Operation
) -> None:
    jobs = strangers(model, operation)

    with network_runs(drawing, model) as runs:
        result = together(drawing, *jobs)

    rows = 8 if model in ("sd15", "sdxl") else 4  # guided, each row runs twice
    assert {run.rows for run in runs} == {rows}
    for job, drawn in zip(jobs, result, strict=True):
        (alone,) = pictures(drawing, job)
        assert difference(first(drawn), alone) <= ROUNDING


@pytest.mark.usefixtures("one_thread")
@every_operation
@every_model
def test_in_calls_of_one_size_a_row_depends_neither_on_its_mates_nor_on_its_place(
    drawing: Diffusers, model: str, operation: Operation
) -> None:
    one, two, three, four = strangers(model, operation)

    here = first(together(drawing, one, two, three)[0])
    there = first(together(drawing, four, three, one)[2])

    assert difference(here, there) == 0


@every_model
def test_jobs_of_several_images_mix_with_jobs_of_one(drawing: Diffusers, model: str) -> None:
    wishes = [
        spec(model, CHANGED, seed=seed, num_images=count, prompt=f"number {seed}")
        for seed, count in ((5, 3), (9, 1), (13, 2))
    ]
    jobs = [share(wish, seed=wish.seed) for wish in wishes]

    result = together(drawing, *jobs)

    for job, drawn in zip(jobs, result, strict=True):
        seeds = [job.spec.seed_of(index) for index in range(job.spec.num_images)]
        assert isinstance(drawn, list)
        assert [picture.seed for picture in drawn] == seeds
        for seed, picture in zip(seeds, levels(drawn), strict=True):
            wish = job.spec.model_copy(update={"seed": seed, "num_images": 1})
            (alone,) = pictures(drawing, share(wish, seed=job.spec.seed))
            assert difference(picture, alone) <= ROUNDING


def test_more_images_than_have_room_go_in_several_calls_in_order(
    drawing: Diffusers, narrow: Diffusers
) -> None:
    counts = (3, 2, 1, 4)
    diaries = [Diary("schnell") for _ in counts]
    wishes = [spec("schnell", CHANGED, seed=10 * n, num_images=n) for n in counts]

    with network_runs(narrow, "schnell") as runs:
        result = together(narrow, *(share(*pair) for pair in zip(wishes, diaries, strict=True)))

    steps = len(runs) // 3
    assert [run.rows for run in runs] == [4] * steps + [4] * steps + [2] * steps
    sizes = [diary.notes["batch_sizes"] for diary in diaries]
    assert sizes == [[4, 4, 4], [4, 4], [4], [4, 4, 2, 2]]
    for wish, drawn in zip(wishes, result, strict=True):
        (expected,) = together(drawing, share(wish))
        for one, other in zip(levels(drawn), levels(expected), strict=True):
            assert difference(one, other) <= ROUNDING


def test_a_job_is_told_in_each_call_how_far_it_is_itself(narrow: Diffusers) -> None:
    diaries = [Diary("sdxl") for _ in range(3)]
    wishes = [spec("sdxl", num_images=count) for count in (3, 2, 1)]

    together(narrow, *(share(*pair) for pair in zip(wishes, diaries, strict=True)))

    assert diaries[0].steps == [(3, 12), (6, 12), (9, 12), (12, 12)]
    assert diaries[1].steps == [(done, 8) for done in range(1, 9)]  # one image in each of the two calls
    assert diaries[2].steps == [(done, 4) for done in range(1, 5)]
    assert [diary.progress[-1] for diary in diaries] == [1.0, 1.0, 1.0]


def test_each_job_is_told_the_size_of_the_calls_that_drew_it(narrow: Diffusers) -> None:
    diaries = [Diary("sd15") for _ in range(4)]
    jobs = [
        share(spec("sd15", num_images=count), diary)
        for count, diary in zip((1, 2, 2, 1), diaries, strict=True)
    ]

    together(narrow, *jobs)
    together(narrow, share(spec("sd15"), alone := Diary("sd15")))

    assert [diary.notes["batch_sizes"] for diary in diaries] == [[4], [4, 4], [4, 2], [2]]
    assert alone.notes["batch_sizes"] == [1]


@pytest.mark.usefixtures("one_thread")
@every_model
def test_a_call_padded_with_copies_to_the_size_that_was_told_repeats_a_picture_to_the_bit(
    drawing: Diffusers, model: str
) -> None:
    diary = Diary(model)
    one, two, three, _ = strangers(model, CHANGED)
    job = share(one.spec, diary, seed=1)

    drawn = first(together(drawing, two, job, three)[1])

    assert diary.notes["batch_sizes"] == [3]
    assert difference(drawn, first(together(drawing, *[job] * 3)[0])) == 0


@pytest.mark.parametrize(
    "changes",
    [{"width": 64}, {"num_inference_steps": 5}, {"guidance_scale": 6.0}, {"strength": 0.8}],
    ids=lambda changes: next(iter(changes)),
)
def test_jobs_of_two_shapes_are_never_drawn_in_one_call(drawing: Diffusers, changes: dict[str, Any]) -> None:
    one, other = spec("dev", CHANGED), spec("dev", CHANGED, **changes)

    assert batch_key(one, profile("dev")) != batch_key(other, profile("dev"))
    with pytest.raises(ValueError, match="several shapes"):
        together(drawing, share(one), share(other))


def test_two_operations_are_never_drawn_in_one_call(drawing: Diffusers) -> None:
    with pytest.raises(ValueError, match="several shapes"):
        together(drawing, share(spec("sd15", strength=1.0)), share(spec("sd15", CHANGED, strength=1.0)))


@pytest.mark.parametrize(
    ("model", "one", "other"),
    [
        ("sd15", {"guidance_scale": 0.0}, {"guidance_scale": 1.0, "negative_prompt": "fog"}),
        ("lightning", {"guidance_scale": 7.5}, {"guidance_scale": 0.0, "num_inference_steps": 30}),
        ("schnell", {"guidance_scale": 3.5}, {"guidance_scale": 0.0, "negative_prompt": "fog"}),
        ("sdxl", {"strength": 0.01}, {"strength": 0.25}),
    ],
)
def test_jobs_that_differ_only_in_what_has_no_effect_share_a_call(
    drawing: Diffusers, model: str, one: dict[str, Any], other: dict[str, Any]
) -> None:
    wishes = [spec(model, CHANGED, **{"strength": 0.5} | changes) for changes in (one, other)]

    result = together(drawing, *(share(wish) for wish in wishes))

    assert len({batch_key(wish, profile(model)) for wish in wishes}) == 1
    assert difference(first(result[0]), first(result[1])) <= ROUNDING


@every_model
def test_a_job_that_needs_no_model_does_not_hold_up_its_mates(drawing: Diffusers, model: str) -> None:
    still, moved = spec(model, CHANGED, strength=0), spec(model, CHANGED)

    result = together(drawing, share(still), share(moved))

    assert difference(first(result[0]), np.asarray(photo(), np.int16)) == 0
    assert difference(first(result[1]), pictures(drawing, share(moved))[0]) == 0


def test_sdxl_mixes_no_negative_prompt_an_empty_one_and_a_long_one(drawing: Diffusers) -> None:
    model = model_of(drawing, "sdxl")
    shape = Shape.of(spec("sdxl"), profile("sdxl"))
    rows = [
        Row(wording=("misty mountains at dawn", negative), seed=11)
        for negative in (None, "", "fog and rain", "y" * 400)
    ]

    mixed = [np.asarray(picture, np.int16) for picture in draw(model, shape, rows)]

    for row, picture in zip(rows, mixed, strict=True):
        (alone,) = draw(model, shape, [row])
        assert difference(picture, np.asarray(alone, np.int16)) <= ROUNDING
    others = [difference(mixed[0], picture) for picture in mixed[1:]]
    assert min(others) > 10  # that there is none is not the same as that it is empty


def test_each_row_keeps_its_own_pixels_outside_of_its_own_mask(drawing: Diffusers) -> None:
    for model in PROFILES:
        for number, drawn in enumerate(together(drawing, *strangers(model, FILLED)), start=1):
            kept = np.asarray(hole(8 * number)) == 0
            assert difference(first(drawn)[kept], np.asarray(photo(number), np.int16)[kept]) == 0


def test_what_goes_in_is_left_as_it_was(drawing: Diffusers) -> None:
    asked = spec("sd15", FILLED)
    given = inputs(asked)
    assert given.image is not None
    assert given.mask_image is not None
    before = given.image.tobytes(), given.mask_image.tobytes()

    together(drawing, Share(spec=asked, inputs=given, attempt=Diary("sd15").attempt()))

    assert (given.image.tobytes(), given.mask_image.tobytes()) == before
