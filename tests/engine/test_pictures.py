"""What the engine draws, one job at a time: every way to draw and every operation, on the tiny models."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.domain.spec import MAX_SEED, JobSpec, Operation
from app.errors import CancelRequested, ProviderRefused
from workers.providers.base import Picture

pytest.importorskip("torch", reason="the extra gpu is not installed")

from tests.engine.studio import (
    DRAWINGS,
    HEIGHT,
    PROFILES,
    WIDTH,
    Diary,
    difference,
    drawn_plainly,
    engine,
    hole,
    inputs,
    levels,
    network_runs,
    photo,
    pictures,
    profile,
    share,
    spec,
    together,
)
from workers.providers.diffusers import Diffusers

every_model = pytest.mark.parametrize("model", PROFILES)
every_operation = pytest.mark.parametrize("operation", DRAWINGS)
WITH_NEGATIVES = ("sd15", "sdxl")
ONE = Operation.TEXT_TO_IMAGE


@pytest.fixture(scope="module")
def narrow(weights: Path) -> Diffusers:
    """An engine that draws at most two images in one call."""
    return engine(weights, *(profile(name, max_batch=2) for name in PROFILES))


def steps_of(model: str, operation: Operation) -> int:
    """Give how many steps four asked for are: strength 0.6 leaves two of them, or three where it rounds up.

    SD 1.5's own scheduler, PNDM, runs one more than it was asked for.
    """
    changed = operation is not ONE
    if PROFILES[model]["family"] == "flux":
        return 3 if changed else 4
    return (2 if changed else 4) + (model == "sd15")


def drawn(drawing: Diffusers, asked: JobSpec, diary: Diary | None = None) -> list[Picture]:
    """Give a job's pictures, drawn with nobody else."""
    (result,) = together(drawing, share(asked, diary))
    assert isinstance(result, list)
    return result


def only(drawing: Diffusers, model: str, operation: Operation = ONE, **changes: Any) -> np.ndarray:
    """Give the only picture of a wish."""
    (picture,) = pictures(drawing, share(spec(model, operation, **changes)))
    return picture


@every_operation
@every_model
def test_a_job_gets_its_images_in_order_each_of_its_size_with_its_own_seed(
    drawing: Diffusers, model: str, operation: Operation
) -> None:
    result = drawn(drawing, spec(model, operation, num_images=3))

    assert [picture.seed for picture in result] == [11, 12, 13]
    assert {(picture.image.mode, picture.image.size) for picture in result} == {("RGB", (WIDTH, HEIGHT))}
    first, second, third = levels(result)
    assert min(difference(first, second), difference(second, third), difference(third, first)) > 100


def test_seeds_go_on_at_zero_after_the_largest(drawing: Diffusers) -> None:
    result = drawn(drawing, spec("sd15", seed=MAX_SEED, num_images=2))

    assert [picture.seed for picture in result] == [MAX_SEED, 0]
    assert difference(levels(result)[1], only(drawing, "sd15", seed=0)) <= 1


@every_model
def test_a_picture_says_which_engine_drew_it_and_by_which_profile(drawing: Diffusers, model: str) -> None:
    (picture,) = drawn(drawing, spec(model, num_inference_steps=3))

    steps = "4" if model == "lightning" else "3"
    guidance = "0.0" if model in {"lightning", "schnell"} else "5.0"
    assert picture.notes == {
        "engine": "diffusers",
        "model": model,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
    }


def test_whether_the_vae_worked_in_tiles_is_noted(weights: Path) -> None:
    drawing = engine(weights, profile("sd15", vae_tiling_above=WIDTH * HEIGHT))
    plain, large = Diary("sd15"), Diary("sd15")
    together(drawing, share(spec("sd15"), plain))
    together(drawing, share(spec("sd15", width=WIDTH + 8), large))

    assert "vae_tiled" not in plain.notes
    assert large.notes["vae_tiled"] is True


@every_operation
@every_model
def test_the_same_wish_gets_the_same_bits_from_another_engine(
    drawing: Diffusers, narrow: Diffusers, model: str, operation: Operation
) -> None:
    again = [only(where, model, operation) for where in (drawing, drawing, narrow)]

    assert difference(again[0], again[1]) == 0
    assert difference(again[0], again[2]) == 0


@every_operation
@every_model
def test_another_seed_and_another_prompt_are_another_picture(
    drawing: Diffusers, model: str, operation: Operation
) -> None:
    picture = only(drawing, model, operation)

    assert difference(picture, only(drawing, model, operation, seed=99)) > 100
    assert difference(picture, only(drawing, model, operation, prompt="a red car")) > 3


@pytest.mark.parametrize("operation", DRAWINGS[1:])
@every_model
def test_another_input_image_is_another_picture(drawing: Diffusers, model: str, operation: Operation) -> None:
    asked = spec(model, operation)
    (one,), (other,) = (pictures(drawing, share(asked, seed=seed)) for seed in (3, 4))
    painted = np.asarray(hole()) > 0

    assert difference(one[painted], other[painted]) > 3


@every_operation
@pytest.mark.parametrize("model", WITH_NEGATIVES)
def test_a_negative_prompt_counts_where_there_is_guidance(
    drawing: Diffusers, model: str, operation: Operation
) -> None:
    diary = Diary(model)
    (without,) = levels(drawn(drawing, spec(model, operation)))
    (fog,) = levels(drawn(drawing, spec(model, operation, negative_prompt="fog and rain"), diary))

    assert difference(without, fog) > 3
    assert diary.warnings == []


@every_model
def test_a_negative_prompt_without_effect_is_warned_about(drawing: Diffusers, model: str) -> None:
    diary = Diary(model)
    (without,) = levels(drawn(drawing, spec(model, guidance_scale=1)))
    asked = spec(model, guidance_scale=1, negative_prompt="fog and rain")
    (fog,) = levels(drawn(drawing, asked, diary))

    assert difference(without, fog) == 0
    why = "guidance_scale is at most 1" if model in WITH_NEGATIVES else "the model reads none"
    assert f"negative_prompt has no effect: {why}" in diary.warnings


@every_operation
@every_model
def test_steps_are_told_over_all_images_of_the_job_and_progress_never_falls(
    narrow: Diffusers, model: str, operation: Operation
) -> None:
    diary = Diary(model)
    drawn(narrow, spec(model, operation, num_images=3), diary)

    steps = steps_of(model, operation)
    both = [(2 * done, 3 * steps) for done in range(1, steps + 1)]
    last = [(2 * steps + done, 3 * steps) for done in range(1, steps + 1)]
    assert diary.steps == both + last
    assert diary.progress == sorted(set(diary.progress))
    assert len(diary.progress) == len(diary.steps) + 2  # and when each call's pictures were there
    assert diary.progress[0] > 0
    assert [done for done in diary.progress if done >= 1] == [1.0]


def test_a_model_is_loaded_once_and_the_job_that_waits_for_it_is_told(weights: Path) -> None:
    fresh = engine(weights)
    first, second, other = Diary("dev"), Diary("dev"), Diary("sd15")
    for diary in (first, second, other):
        drawn(fresh, spec(diary.model), diary)

    assert first.stages == ["loading", "generating"]
    assert second.stages == ["generating"]
    assert other.stages == ["loading", "generating"]
    assert fresh.warm_models() == ["sd15", "dev"]


def test_a_profile_nobody_knows_is_refused(drawing: Diffusers) -> None:
    asked = share(spec("gone"))

    with pytest.raises(ProviderRefused, match="no profile 'gone'"):
        together(drawing, asked)
    with pytest.raises(ProviderRefused, match="no profile 'gone'"):
        next(drawing.generate(asked.spec, asked.inputs, asked.attempt))
    assert drawing.room(asked.spec, "gone") == 1


@pytest.mark.parametrize(
    ("model", "width", "height", "multiple"),
    [
        ("sd15", 100, 64, 8),
        ("sdxl", 96, 60, 8),
        ("lightning", 96, 4, 8),
        ("schnell", 104, 64, 16),
        ("dev", 96, 72, 16),
    ],
)
@every_operation
def test_a_size_the_model_cannot_draw_is_refused_and_the_multiple_named(
    drawing: Diffusers, operation: Operation, model: str, width: int, height: int, multiple: int
) -> None:
    asked = share(spec(model, operation, width=width, height=height))

    with pytest.raises(ProviderRefused, match=rf"multiples of {multiple} for {model}, not {width} and"):
        together(drawing, asked)


@pytest.mark.parametrize("model", ["sd15", "sdxl"])
def test_stable_diffusion_draws_sides_that_are_multiples_of_eight(drawing: Diffusers, model: str) -> None:
    (picture,) = drawn(drawing, spec(model, width=72, height=104))

    assert picture.image.size == (72, 104)


@pytest.mark.parametrize("operation", DRAWINGS[1:])
@every_model
def test_with_strength_zero_the_input_comes_back_and_no_model_is_loaded(
    weights: Path, model: str, operation: Operation
) -> None:
    fresh = engine(weights)
    diary = Diary(model)
    asked = share(spec(model, operation, strength=0, num_images=2), diary)

    (result,) = together(fresh, asked)

    assert isinstance(result, list)
    assert len({id(asked.inputs.image), *(id(picture.image) for picture in result)}) == 3
    assert [picture.image.tobytes() for picture in result] == [photo().tobytes()] * 2
    assert [picture.seed for picture in result] == [11, 12]
    assert (fresh.warm_models(), diary.stages, diary.steps) == ([], [], [])
    assert diary.progress == [0.5, 1.0]


@every_operation
@every_model
def test_a_cancelled_job_stops_at_the_very_next_step_and_the_next_call_is_unharmed(
    drawing: Diffusers, model: str, operation: Operation
) -> None:
    before = only(drawing, model, operation)
    diary = Diary(model, ends_at=2)  # the first look is before the prompt is read, the second after a step

    with network_runs(drawing, model) as runs:
        (result,) = together(drawing, share(spec(model, operation), diary))

    assert isinstance(result, CancelRequested)
    assert len(runs) == 1
    assert diary.progress == []
    assert difference(only(drawing, model, operation), before) == 0


def test_a_job_cancelled_while_it_waited_costs_no_step(drawing: Diffusers) -> None:
    with network_runs(drawing, "sdxl") as runs:
        (result,) = together(drawing, share(spec("sdxl"), Diary("sdxl", ends_at=1)))

    assert isinstance(result, CancelRequested)
    assert runs == []


@every_operation
@every_model
def test_a_cancelled_job_leaves_its_mates_what_they_would_have_been(
    drawing: Diffusers, model: str, operation: Operation
) -> None:
    wishes = [spec(model, operation, seed=seed) for seed in (1, 2, 3)]
    undisturbed = together(drawing, *(share(wish) for wish in wishes))
    diaries = [Diary(model), Diary(model, ends_at=4), Diary(model)]  # three rows, then the first step

    result = together(drawing, *(share(*pair) for pair in zip(wishes, diaries, strict=True)))

    assert isinstance(result[1], CancelRequested)
    assert difference(levels(result[0])[0], levels(undisturbed[0])[0]) == 0
    assert difference(levels(result[2])[0], levels(undisturbed[2])[0]) == 0
    steps = steps_of(model, operation)
    assert diaries[2].steps == [(done, steps) for done in range(1, steps + 1)]
    assert diaries[1].steps == []


@every_model
def test_a_call_in_which_everybody_cancelled_stops(drawing: Diffusers, model: str) -> None:
    diaries = [Diary(model, ends_at=3), Diary(model, ends_at=4)]  # two rows, then step one and step two

    with network_runs(drawing, model) as runs:
        result = together(drawing, *(share(spec(model), diary) for diary in diaries))

    assert [type(one) for one in result] == [CancelRequested, CancelRequested]
    assert len(runs) == 2
    assert [diary.checks for diary in diaries] == [3, 4]


def test_what_a_cancelled_job_still_waited_for_is_not_drawn(narrow: Diffusers) -> None:
    long, short = Diary("sd15", ends_at=4), Diary("sd15")
    wishes = share(spec("sd15", num_images=5), long), share(spec("sd15"), short)

    with network_runs(narrow, "sd15") as runs:
        result = together(narrow, *wishes)

    assert isinstance(result[0], CancelRequested)
    assert difference(levels(result[1])[0], only(narrow, "sd15")) == 0
    assert [run.rows for run in runs] == [4, 4] + [2] * 5  # guided, so each row runs twice


def test_generate_hands_over_each_picture_as_soon_as_it_is_there(drawing: Diffusers) -> None:
    asked, diary = spec("sd15", num_images=2), Diary("sd15")
    made: Iterator[Picture] = drawing.generate(asked, inputs(asked), diary.attempt())

    first = next(made)
    assert diary.progress[-1] == 0.5
    (second,) = made

    assert diary.progress[-1] == 1.0
    assert diary.steps == [(done, 10) for done in range(1, 11)]
    assert [first.seed, second.seed] == [11, 12]
    one, other = levels([first, second])
    assert difference(one, only(drawing, "sd15")) == 0
    assert difference(other, only(drawing, "sd15", seed=12)) == 0


def test_generate_passes_on_that_the_attempt_ended(drawing: Diffusers) -> None:
    asked, diary = spec("schnell", num_images=2), Diary("schnell", ends_at=7)
    made = drawing.generate(asked, inputs(asked), diary.attempt())

    assert next(made).seed == 11
    with pytest.raises(CancelRequested):
        next(made)


@every_operation
@every_model
def test_our_own_decoding_is_to_the_bit_what_the_pipeline_would_have_shown(
    drawing: Diffusers, weights: Path, model: str, operation: Operation
) -> None:
    plain = drawn_plainly(weights, spec(model, operation))
    if operation is Operation.INPAINT:
        plain = np.where((np.asarray(hole()) > 0)[..., None], plain, np.asarray(photo(), np.int16))

    assert difference(only(drawing, model, operation), plain) == 0
