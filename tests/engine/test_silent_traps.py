"""What diffusers does without a word when it is called in the obvious way, each with a test that notices.

The traps are those of gpu.md. One cannot be reached: an image with alpha is taken for latents, but the inputs
of a drawing are RGB by the time a provider sees them.
"""

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.domain.spec import JobSpec
from app.errors import ModelUnavailable, ProviderRefused
from workers.providers.base import Attempt

pytest.importorskip("torch", reason="the extra gpu is not installed")

import torch
from safetensors.torch import load_file, save_file

from tests.engine import tiny
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

ONE, CHANGED, FILLED = DRAWINGS
every_model = pytest.mark.parametrize("model", PROFILES)
flux = pytest.mark.parametrize("model", ["schnell", "dev"])
stable = pytest.mark.parametrize("model", ["sd15", "sdxl"])
ROUNDING = 1
"""Levels of 255 by which a row of a call may differ from a call of its own, in float32."""


def only(drawing: Diffusers, asked: JobSpec, diary: Diary | None = None) -> np.ndarray:
    """Give the only picture of a wish."""
    (picture,) = pictures(drawing, share(asked, diary))
    return picture


def copied(weights: Path, name: str, to: Path) -> Path:
    """Give a models folder with a copy of one tiny model, whose files may be changed."""
    shutil.copytree(weights / name, to / name)
    return to


def rewritten(file: Path, key: str, change: Callable[[Any], object]) -> None:
    """Change the weights in a file whose name ends so."""
    state = load_file(file)
    (name,) = (name for name in state if name.endswith(key))
    change(state[name])
    save_file(state, file)


@every_model
def test_one_generator_for_all_images_would_make_each_depend_on_those_before_it(
    drawing: Diffusers, model: str
) -> None:
    job = pictures(drawing, share(spec(model, num_images=3)))

    for index, picture in enumerate(job):
        assert difference(picture, only(drawing, spec(model, seed=11 + index))) <= ROUNDING


@flux
def test_flux_asked_for_several_images_per_prompt_would_change_only_the_first_as_if_alone(
    drawing: Diffusers, model: str
) -> None:
    job = pictures(drawing, share(spec(model, CHANGED, num_images=3)))

    for index, picture in enumerate(job):
        assert difference(picture, only(drawing, spec(model, CHANGED, seed=11 + index))) <= ROUNDING


def test_sdxl_takes_an_empty_negative_prompt_for_something_else_than_none(
    drawing: Diffusers, weights: Path
) -> None:
    wish = spec("sdxl", negative_prompt="")
    none, empty = (drawn_plainly(weights, wish, negative_prompt=negative) for negative in (None, ""))
    assert difference(none, empty) > 10

    alone = only(drawing, wish)
    beside_others = together(drawing, share(spec("sdxl", negative_prompt="fog")), share(wish))[1]

    assert difference(alone, none) == 0
    assert difference(levels(beside_others)[0], none) <= ROUNDING


@pytest.mark.parametrize("operation", [CHANGED, FILLED])
@flux
def test_flux_would_make_1024_pixels_of_any_image(drawing: Diffusers, model: str, operation: Any) -> None:
    assert only(drawing, spec(model, operation)).shape == (HEIGHT, WIDTH, 3)


@flux
def test_flux_would_draw_96_by_48_pixels_for_100_by_60(drawing: Diffusers, model: str) -> None:
    with pytest.raises(ProviderRefused, match="multiples of 16"):
        together(drawing, share(spec(model, width=100, height=60)))


@pytest.mark.parametrize("operation", [CHANGED, FILLED])
@every_model
def test_a_strength_of_less_than_one_step_would_break_sdxl_and_make_flux_start_from_elsewhere(
    drawing: Diffusers, model: str, operation: Any
) -> None:
    diary = Diary(model)
    little = only(drawing, spec(model, operation, strength=0.01), diary)

    assert difference(little, only(drawing, spec(model, operation, strength=0.25))) == 0
    assert diary.steps[-1][1] == (2 if model == "sd15" else 1)  # PNDM runs one more
    assert "strength 0.01 is less than one of 4 steps; 0.25 was used in its place" in diary.warnings


@every_model
def test_one_step_at_half_strength_would_break_stable_diffusion(drawing: Diffusers, model: str) -> None:
    half = spec(model, CHANGED, num_inference_steps=1, strength=0.1)
    whole = spec(model, CHANGED, num_inference_steps=1, strength=1.0 if model != "lightning" else 0.25)

    assert difference(only(drawing, half), only(drawing, whole)) == 0


@pytest.mark.parametrize("operation", [CHANGED, FILLED])
@every_model
def test_strength_zero_would_break_sdxl_and_flux_and_change_sd15_a_little(
    drawing: Diffusers, model: str, operation: Any
) -> None:
    with network_runs(drawing, model) as runs:
        same = only(drawing, spec(model, operation, strength=0))

    assert difference(same, np.asarray(photo(), np.int16)) == 0
    assert runs == []


def test_a_distilled_model_asked_for_other_steps_would_draw_them(drawing: Diffusers) -> None:
    diary = Diary("lightning")
    asked = only(drawing, spec("lightning", num_inference_steps=30), diary)

    assert difference(asked, only(drawing, spec("lightning", num_inference_steps=4))) == 0
    assert diary.steps[-1] == (4, 4)
    assert "num_inference_steps 30 has no effect: the model was made for exactly 4" in diary.warnings


@stable
def test_guidance_up_to_one_is_off_without_a_word_and_costs_nothing(drawing: Diffusers, model: str) -> None:
    with network_runs(drawing, model) as runs:
        off = [only(drawing, spec(model, guidance_scale=scale)) for scale in (0.0, 0.5, 1.0)]
        assert {run.rows for run in runs} == {1}
        runs.clear()
        on = only(drawing, spec(model, guidance_scale=7.5))
        assert {run.rows for run in runs} == {2}

    assert [difference(off[0], other) for other in off[1:]] == [0, 0]
    assert difference(off[0], on) > 3


def test_flux_reads_its_guidance_only_where_it_was_made_for_it(drawing: Diffusers) -> None:
    effects = {}
    for model in ("schnell", "dev"):
        with network_runs(drawing, model) as runs:
            low, high = (only(drawing, spec(model, guidance_scale=scale)) for scale in (2.0, 9.0))
        effects[model] = difference(low, high)
        assert {run.rows for run in runs} == {1}

    assert effects["schnell"] == 0
    assert effects["dev"] > 3


@pytest.mark.parametrize("model", ["schnell", "dev", "lightning"])
def test_a_negative_prompt_that_the_model_would_ignore_is_warned_about(
    drawing: Diffusers, model: str
) -> None:
    diary = Diary(model)
    with network_runs(drawing, model) as runs:
        only(drawing, spec(model, negative_prompt="fog and rain"), diary)

    assert "negative_prompt has no effect: the model reads none" in diary.warnings
    assert {run.rows for run in runs} == {1}


@pytest.mark.parametrize(
    ("model", "limit"), [("sd15", 77), ("sdxl", 77), ("lightning", 77), ("schnell", 256), ("dev", 512)]
)
def test_a_prompt_would_be_cut_without_a_word(drawing: Diffusers, model: str, limit: int) -> None:
    # A letter is a token, a start or a space in front of it another, and the end of the text one.
    fits, cut, short = Diary(model), Diary(model), Diary(model)
    whole = only(drawing, spec(model, prompt="a" * (limit - 3) + "b"), fits)
    other = only(drawing, spec(model, prompt="a" * (limit - 3) + "c"), short)
    one, another = (only(drawing, spec(model, prompt="a" * (limit - 2) + end * 9), cut) for end in ("b", "c"))

    assert difference(whole, other) > 0  # the last letter that fits is read
    assert difference(one, another) == 0  # and nothing after it
    sentence = f"prompt was cut at {limit} tokens, as that is all the model reads"
    assert sentence in cut.warnings
    assert sentence not in fits.warnings + short.warnings


@stable
def test_a_negative_prompt_would_be_cut_without_a_word(drawing: Diffusers, model: str) -> None:
    diary = Diary(model)
    only(drawing, spec(model, negative_prompt="y" * 76), diary)

    assert diary.warnings == ["negative_prompt was cut at 77 tokens, as that is all the model reads"]


@every_model
def test_pixels_outside_of_the_mask_would_come_back_from_the_vae_a_little_changed(
    drawing: Diffusers, weights: Path, model: str
) -> None:
    kept, given = np.asarray(hole()) == 0, np.asarray(photo(), np.int16)
    wish = spec(model, FILLED)

    assert difference(drawn_plainly(weights, wish)[kept], given[kept]) > 0
    assert difference(only(drawing, wish)[kept], given[kept]) == 0


@every_model
def test_white_is_painted_anew_and_black_is_kept(drawing: Diffusers, weights: Path, model: str) -> None:
    painted, wish = np.asarray(hole()) > 0, spec(model, FILLED)
    picture, given = only(drawing, wish), np.asarray(photo(), np.int16)

    assert (picture != given).any(-1)[painted].mean() > 0.99
    assert difference(picture[painted], drawn_plainly(weights, wish)[painted]) == 0
    turned = drawn_plainly(weights, wish, mask_image=hole().point(lambda level: 255 - level))
    assert difference(picture[painted], turned[painted]) > 20


def test_lightning_would_draw_at_the_wrong_timesteps_with_the_models_own_spacing(
    drawing: Diffusers,
) -> None:
    found = {}
    for model in ("lightning", "sdxl"):
        with network_runs(drawing, model) as runs:
            only(drawing, spec(model))
        found[model] = [run.timestep for run in runs]

    assert found == {"lightning": [999, 749, 499, 249], "sdxl": [751, 501, 251, 1]}


def test_lightning_changes_an_image_at_the_last_of_its_timesteps(drawing: Diffusers) -> None:
    for operation in (CHANGED, FILLED):
        with network_runs(drawing, "lightning") as runs:
            only(drawing, spec("lightning", operation, strength=0.5))
        assert [run.timestep for run in runs] == [499, 249]


@every_model
def test_pipelines_of_one_model_would_share_a_scheduler_and_with_it_the_state_of_a_run(
    drawing: Diffusers, model: str
) -> None:
    model_, made = model_of(drawing, model), profile(model)
    calls = {}
    for operation in DRAWINGS:
        wish = spec(model, operation)
        given = inputs(wish)
        row = Row(wording=(wish.prompt, None), seed=1, image=given.image, mask_image=given.mask_image)
        calls[operation] = (Shape.of(wish, made), [row])
    (expected,) = draw(model_, *calls[ONE])

    def in_between(step: int, _steps: int) -> None:
        draw(model_, *calls[CHANGED if step % 2 else FILLED])

    (disturbed,) = draw(model_, *calls[ONE], on_step=in_between)

    assert len({id(model_.view(operation).scheduler) for operation in DRAWINGS}) == 3
    assert difference(np.asarray(expected, np.int16), np.asarray(disturbed, np.int16)) == 0


@pytest.mark.parametrize("model", ["sd15", "sdxl", "schnell"])
def test_a_second_pipeline_would_turn_the_shared_weights_into_float32(weights: Path, model: str) -> None:
    half = engine(weights, profile(model, dtype="bfloat16"))
    before = only(half, spec(model))
    for operation in (CHANGED, FILLED):
        only(half, spec(model, operation))

    loaded = model_of(half, model)
    for operation in DRAWINGS:
        parts = loaded.view(operation).components.values()
        found = {part.dtype for part in parts if isinstance(part, torch.nn.Module)}
        assert found == {torch.bfloat16}
    assert difference(only(half, spec(model)), before) == 0


def test_a_second_pipeline_would_take_t5_the_range_that_its_last_layers_need(weights: Path) -> None:
    half, untouched = (engine(weights, profile("schnell", dtype="float16")) for _ in range(2))
    encoder = model_of(half, "schnell").view(ONE).text_encoder_2

    def formats() -> dict[str, set[Any]]:
        found: dict[str, set[Any]] = {"wide": set(), "half": set()}
        for name, weight in encoder.named_parameters():
            found["wide" if name.endswith("wo.weight") else "half"].add(weight.dtype)
        return found

    assert formats() == {"wide": {torch.float32}, "half": {torch.float16}}
    for operation in (CHANGED, FILLED):
        only(half, spec("schnell", operation))

    assert formats() == {"wide": {torch.float32}, "half": {torch.float16}}
    wish = spec("schnell", prompt="words it has not read yet")
    assert difference(only(half, wish), only(untouched, wish)) == 0


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_no_number_would_come_out_black(weights: Path, tmp_path: Path, wrong: float) -> None:
    folder = copied(weights, "sd15", tmp_path)
    rewritten(
        folder / "sd15/vae/diffusion_pytorch_model.safetensors",
        "decoder.conv_out.bias",
        lambda bias: bias[0].fill_(wrong),
    )
    broken, diary = engine(folder, profile("sd15")), Diary("sd15")
    asked = share(spec("sd15", num_images=2), diary)

    (result,) = together(broken, asked)

    assert isinstance(result, ModelUnavailable)
    assert "no number in float32" in result.message
    assert max(diary.progress) < 1
    with pytest.raises(ModelUnavailable, match="no number"):
        next(broken.generate(asked.spec, asked.inputs, asked.attempt))


def test_a_row_that_is_no_number_fails_alone(drawing: Diffusers, weights: Path, tmp_path: Path) -> None:
    folder = copied(weights, "sd15", tmp_path)
    token = tiny.clip_tokenizer()("z").input_ids[1]
    rewritten(
        folder / "sd15/text_encoder/model.safetensors",
        "token_embedding.weight",
        lambda table: table[token].fill_(float("nan")),
    )
    broken = engine(folder, profile("sd15"))
    wishes = [spec("sd15", prompt=prompt) for prompt in ("a", "z", "b")]

    before, failed, after = together(broken, *(share(wish) for wish in wishes))

    assert isinstance(failed, ModelUnavailable)
    assert difference(levels(before)[0], only(drawing, wishes[0])) <= ROUNDING
    assert difference(levels(after)[0], only(drawing, wishes[2])) <= ROUNDING


def test_two_threads_in_one_pipeline_would_both_get_wrong_pictures(drawing: Diffusers) -> None:
    one, other = (spec("sd15", seed=seed, num_inference_steps=6) for seed in (1, 2))
    expected = [only(drawing, wish) for wish in (one, other)]
    drawing_now, asked = threading.Event(), threading.Semaphore(0)

    def after_each_step(_step: int, _steps: int) -> None:
        """Let the other thread go on until it asks whether it is still wanted."""
        drawing_now.set()
        assert asked.acquire(timeout=30)

    def drawn(wish: JobSpec, attempt: Attempt) -> np.ndarray:
        return levels(list(drawing.generate(wish, inputs(wish), attempt)))[0]

    def afterwards() -> np.ndarray:
        assert drawing_now.wait(timeout=30)
        return drawn(other, Attempt(check=asked.release, progress=lambda _: None, model="sd15"))

    first = Attempt(check=lambda: None, progress=lambda _: None, step=after_each_step, model="sd15")
    with ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(drawn, one, first), threads.submit(afterwards)]
        found = [future.result(timeout=60) for future in futures]

    assert [difference(*pair) for pair in zip(found, expected, strict=True)] == [0, 0]
