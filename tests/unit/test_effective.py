"""What a model makes of a spec: parameters made to work, those without effect named, who shares a call."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from app.domain.effective import batch_key, effective
from app.domain.profiles import Profile
from app.domain.spec import JobSpec, StoredImage
from tests.rows import make_spec

GIVEN = StoredImage(key="inputs/x", sha256="0" * 64, width=32, height=24)


def profile(**changes: Any) -> Profile:
    fields: dict[str, Any] = {"name": "p", "family": "sdxl", "source": "acme/base"}
    return Profile(**{**fields, **changes})


def changed(**changes: Any) -> JobSpec:
    """A spec for image to image."""
    return make_spec(operation="image_to_image", image=GIVEN, **changes)


FLUX = profile(family="flux", guidance="embedded")
LIGHTNING = profile(guidance="none", fixed_steps=4)


def test_what_works_as_it_is_stays_and_nothing_is_said() -> None:
    spec = make_spec(num_inference_steps=30, guidance_scale=5.0, negative_prompt="fog")

    made = effective(spec, profile())

    assert (made.num_inference_steps, made.guidance_scale, made.negative_prompt) == (30, 5.0, "fog")
    assert made.warnings == ()


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0])
def test_guidance_up_to_one_is_off_and_takes_the_negative_prompt_with_it(guidance: float) -> None:
    made = effective(make_spec(guidance_scale=guidance, negative_prompt="fog"), profile())

    assert (made.guidance_scale, made.negative_prompt) == (1.0, None)
    assert made.warnings == ("negative_prompt has no effect: guidance_scale is at most 1",)


def test_flux_reads_no_negative_prompt() -> None:
    made = effective(make_spec(guidance_scale=3.5, negative_prompt="fog"), FLUX)

    assert (made.guidance_scale, made.negative_prompt) == (3.5, None)
    assert made.warnings == ("negative_prompt has no effect: the model reads none",)


def test_a_model_made_for_so_many_steps_does_them_and_has_no_guidance() -> None:
    made = effective(make_spec(num_inference_steps=30, guidance_scale=7.5), LIGHTNING)

    assert (made.num_inference_steps, made.guidance_scale) == (4, 0.0)
    assert [sentence.split()[0] for sentence in made.warnings] == ["num_inference_steps", "guidance_scale"]


@pytest.mark.parametrize("steps", [*range(1, 60), 100, 499, 500])
def test_a_strength_of_less_than_a_step_becomes_exactly_one(steps: int) -> None:
    made = effective(changed(num_inference_steps=steps, strength=math.nextafter(0, 1)), profile())

    assert int(steps * made.strength) == 1
    assert made.strength == pytest.approx(1 / steps)
    assert len(made.warnings) == 1


def test_strength_zero_needs_no_model_and_has_no_batch() -> None:
    assert effective(changed(strength=0), profile()).strength == 0
    assert batch_key(changed(strength=0), profile()) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": "another"},
        {"seed": 99},
        {"num_images": 4},
        {"negative_prompt": "fog"},
        {"output_format": "webp"},
        {"safety_checker": True},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_differs_per_row_shares_a_call(changes: dict[str, Any]) -> None:
    assert batch_key(make_spec(**changes), profile()) == batch_key(make_spec(), profile())


@pytest.mark.parametrize(
    "changes",
    [{"width": 40}, {"height": 40}, {"num_inference_steps": 3}, {"guidance_scale": 5.0}],
    ids=lambda changes: next(iter(changes)),
)
def test_what_is_the_calls_own_does_not(changes: dict[str, Any]) -> None:
    assert batch_key(make_spec(**changes), profile()) != batch_key(make_spec(), profile())


def test_parameters_without_effect_keep_nobody_apart() -> None:
    several = [make_spec(num_inference_steps=steps, guidance_scale=steps) for steps in (4, 20)]

    assert len({batch_key(spec, LIGHTNING) for spec in several}) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "acme/other"},
        {"revision": "b"},
        {"dtype": "float32"},
        {"vae": {"source": "acme/vae"}},
        {"loras": [{"source": "acme/style", "file": "a.safetensors", "weight": 0.5}]},
        {"scheduler": {"name": "euler", "timestep_spacing": "trailing"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_other_weights_are_another_call(changes: dict[str, Any]) -> None:
    assert batch_key(make_spec(), profile(**changes)) != batch_key(make_spec(), profile())


def test_a_profiles_name_and_its_place_in_memory_are_not_what_is_drawn() -> None:
    assert profile(name="q", max_batch=9, pinned=True).fingerprint == profile().fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"family": "flux", "guidance": "none", "unet": {"source": "acme/unet"}},
        {"family": "flux", "guidance": "cfg"},
        {"family": "sd15", "guidance": "embedded"},
        {"family": "sdxl", "scheduler": {"name": "flow_match_euler"}},
        {"scheduler": {"name": "pndm", "prediction_type": "sample"}},
        {"scheduler": {"name": "euler_ancestral", "prediction_type": "sample"}},
        {"unet": {"source": "acme/unet", "file": "../../etc/x.bin"}},
    ],
)
def test_a_profile_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        profile(**changes)


@pytest.mark.parametrize("name", ["euler", "ddim", "dpmpp_2m"])
def test_the_other_schedulers_take_a_model_that_predicts_the_sample(name: str) -> None:
    made = profile(scheduler={"name": name, "prediction_type": "sample"})

    assert made.scheduler is not None


@pytest.mark.parametrize("name", ["pndm", "euler_ancestral"])
def test_those_that_cannot_take_the_sample_take_all_else(name: str) -> None:
    for kind in ("epsilon", "v_prediction", None):
        assert profile(scheduler={"name": name, "prediction_type": kind}).scheduler is not None
