"""From a profile to what draws: each thing that a profile names is what the picture is drawn with."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra gpu is not installed")

import torch
from diffusers import EulerDiscreteScheduler, PNDMScheduler
from safetensors.torch import load_file, save_file

from app.domain.profiles import Scheduler
from app.domain.spec import Operation
from app.errors import ProviderRefused
from tests import checkers
from tests.engine import tiny
from tests.engine.studio import (
    DRAWINGS,
    PROFILES,
    difference,
    engine,
    hole,
    model_of,
    network_runs,
    photo,
    pictures,
    profile,
    share,
    spec,
)
from workers.providers.diffusers import Device
from workers.providers.diffusers.families import scheduler_for
from workers.providers.diffusers.loading import load

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
LORA = "pytorch_lora_weights.safetensors"


@pytest.fixture
def models(weights: Path, tmp_path: Path) -> Path:
    """A models folder of this test's own, with `sd15` in it."""
    folder = tmp_path / "models"
    shutil.copytree(weights / "sd15", folder / "sd15")
    return folder


def drawn(folder: Path, like: str = "sd15", *, wish: dict[str, Any] | None = None, **changes: Any) -> Any:
    """Give what an engine of one profile draws."""
    made = profile("drawn", **{"source": like} | PROFILES[like] | changes)
    (picture,) = pictures(engine(folder, made), share(spec("drawn", **wish or {})))
    return picture


def other(file: Path, to: Path) -> Path:
    """Write a part's weights anew, all a little different; gives where."""
    random = torch.Generator().manual_seed(5)
    weights = {
        name: weight + weight.abs().mean() * torch.randn(weight.shape, generator=random) / 4
        for name, weight in load_file(file).items()
    }
    to.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, to, metadata={"format": "pt"})
    return to


def test_a_pulled_repository_is_drawn_with_in_the_revision_that_was_asked_for(models: Path) -> None:
    shutil.copytree(models / "sd15", models / "own--er@v1.0")
    shutil.copytree(models / "sd15", models / "own--er")
    other(models / "sd15" / UNET, models / "own--er" / UNET)

    same = drawn(models, source="own/er", revision="v1.0")
    another = drawn(models, source="own/er")

    assert difference(same, drawn(models)) == 0
    assert difference(same, another) > 3


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_a_part_is_replaced_by_a_folders(weights: Path, models: Path, part: str) -> None:
    file = f"{part}/diffusion_pytorch_model.safetensors"
    whole = shutil.copytree(models / "sd15", models / "whole")
    other(models / "sd15" / file, whole / file)
    shutil.copytree(whole / part, models / "alone")
    (models / "sd15" / file).unlink()  # `darkroom models pull` does not take it either

    expected = drawn(models, source="whole")
    assert difference(expected, drawn(weights)) > 3
    for source in ("alone", "whole"):
        replaced: dict[str, Any] = {part: {"source": source}}
        assert difference(drawn(models, **replaced), expected) == 0


@pytest.mark.parametrize("offload", ["none", "model"])
def test_a_unet_is_replaced_by_a_single_file(weights: Path, tmp_path: Path, offload: str) -> None:
    whole = shutil.copytree(weights / "sdxl", tmp_path / "whole")
    base = shutil.copytree(weights / "sdxl", tmp_path / "sdxl")
    other(base / UNET, whole / UNET)
    (tmp_path / "few").mkdir()
    (base / UNET).unlink()
    shutil.copy(whole / UNET, tmp_path / "few" / "few_steps_unet.safetensors")
    unet = {"source": "few", "file": "few_steps_unet.safetensors"}

    picture = drawn(tmp_path, "lightning", unet=unet, offload=offload)

    assert difference(picture, drawn(tmp_path, "lightning", source="whole")) == 0
    assert difference(picture, drawn(weights, "lightning")) > 3


def test_adapters_are_laid_over_by_their_weights(models: Path) -> None:
    tiny.lora(models / "one" / LORA, seed=1)
    tiny.lora(models / "two" / "second.safetensors", seed=2)
    one, two = {"source": "one"}, {"source": "two", "file": "second.safetensors"}
    without = drawn(models)
    full, weaker, both = (
        drawn(models, loras=loras) for loras in ([one], [one | {"weight": 0.3}], [one, two])
    )

    for first, second in ((without, full), (without, weaker), (full, weaker), (full, both), (without, both)):
        assert difference(first, second) > 3
    assert difference(drawn(models, loras=[one | {"weight": 0}]), without) == 0
    assert difference(drawn(models, loras=[one, two | {"weight": 0}]), full) <= 1
    assert difference(drawn(models, loras=[two, one]), both) <= 1
    assert difference(drawn(models, loras=[one | {"weight": 0.5}, one | {"weight": 0.5}]), full) <= 1


def test_a_profiles_scheduler_takes_its_timesteps(weights: Path) -> None:
    taken = {}
    for spacing in ("trailing", "leading"):
        drawing = engine(weights, profile("sdxl", scheduler={"name": "euler", "timestep_spacing": spacing}))
        with network_runs(drawing, "sdxl") as runs:
            pictures(drawing, share(spec("sdxl")))
        taken[spacing] = [run.timestep for run in runs]

    assert taken == {"trailing": [999, 749, 499, 249], "leading": [751, 501, 251, 1]}


def test_a_scheduler_of_another_kind_gets_what_is_for_latents_where_the_file_does_not_say() -> None:
    silent = PNDMScheduler.from_config({"beta_schedule": "scaled_linear", "skip_prk_steps": True})
    assert silent.config["set_alpha_to_one"] is False
    ddim = scheduler_for(Scheduler(name="ddim"), silent)
    assert (ddim.config["set_alpha_to_one"], ddim.config["clip_sample"]) == (False, False)

    said = PNDMScheduler.from_config({"set_alpha_to_one": True})
    assert scheduler_for(Scheduler(name="ddim"), said).config["set_alpha_to_one"] is True
    euler = EulerDiscreteScheduler.from_config({"beta_schedule": "scaled_linear"})
    pndm = scheduler_for(Scheduler(name="pndm"), euler)
    assert (pndm.config["set_alpha_to_one"], pndm.config["skip_prk_steps"]) == (False, True)


def test_each_part_is_loaded_to_the_very_device_and_not_to_one_of_its_kind(weights: Path) -> None:
    device = Device("cpu:0", reserve=0, budget=None)
    pipe = load(profile("sd15"), folder=weights, device=device)

    assert {str(part.hf_device_map[""]) for part in (pipe.unet, pipe.vae)} == {"cpu:0"}


def test_a_model_made_for_inpainting_does_nothing_else(tmp_path: Path) -> None:
    tiny.inpainting(tmp_path / "nine")
    drawing = engine(tmp_path, profile("nine", family="sd15"))
    drawing.warm("nine")
    assert drawing.warm_models() == ["nine"]

    asked = spec("nine", Operation.INPAINT)
    (picture,) = pictures(drawing, share(asked))
    painted = np.asarray(hole()) > 0
    assert difference(picture[~painted], np.asarray(photo(), np.int16)[~painted]) == 0
    assert (picture != np.asarray(photo(), np.int16)).any(-1)[painted].mean() > 0.9
    for operation in (Operation.TEXT_TO_IMAGE, Operation.IMAGE_TO_IMAGE):
        with pytest.raises(ProviderRefused, match=f"nine was made for inpaint; it cannot do {operation}"):
            pictures(drawing, share(spec("nine", operation)))
    assert len(pictures(drawing, share(asked))) == 1


def test_each_scheduler_draws_in_its_own_way(weights: Path) -> None:
    names = ("euler", "euler_ancestral", "pndm", "dpmpp_2m")
    found = [drawn(weights, scheduler={"name": name}) for name in names]
    ddim = drawn(weights, scheduler={"name": "ddim"})
    velocity = drawn(weights, scheduler={"name": "ddim", "prediction_type": "v_prediction"})

    assert difference(ddim, found[0]) <= 2  # the same step of the same equation
    found.append(velocity)
    for index, picture in enumerate(found):
        assert all(difference(picture, another) > 20 for another in found[:index])


@pytest.mark.parametrize("like", ["sd15", "sdxl", "schnell"])
def test_a_variant_is_taken_where_there_is_one_of_it(weights: Path, tmp_path: Path, like: str) -> None:
    folder = shutil.copytree(weights / like, tmp_path / like)
    for file in folder.rglob("*.safetensors"):
        if file.parent.name != "vae":  # it is there in no other form
            shutil.copy(file, file.with_suffix(".fp16.safetensors"))
            other(file, file)

    assert difference(drawn(tmp_path, like, variant="fp16"), drawn(weights, like)) == 0
    assert difference(drawn(tmp_path, like), drawn(weights, like)) > 3

    for file in folder.rglob("*.fp16.safetensors"):
        file.rename(file.with_name(file.name.replace(".fp16", "")))
    assert difference(drawn(tmp_path, like, variant="fp16"), drawn(weights, like)) == 0


@pytest.mark.parametrize("like", ["sd15", "sdxl", "schnell"])
def test_bfloat16_takes_half_the_memory_and_draws_almost_the_same(weights: Path, like: str) -> None:
    drawing = engine(weights, profile(like, dtype="bfloat16"))
    (picture,) = pictures(drawing, share(spec(like)))
    half, whole = model_of(drawing, like), model_of(engine(weights, profile(like)), like)

    assert half.bytes == pytest.approx(whole.bytes / 2, rel=0.01)
    for operation in (Operation.TEXT_TO_IMAGE, Operation.INPAINT):
        for part in half.view(operation).components.values():
            assert not isinstance(part, torch.nn.Module) or part.dtype is torch.bfloat16
    assert 0 < np.abs(picture - drawn(weights, like)).mean() < 8


def test_a_safety_checker_is_left_where_it_is(models: Path) -> None:
    before = drawn(models)
    index = json.loads((models / "sd15/model_index.json").read_text())
    index |= {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessorPil"],
    }
    (models / "sd15/model_index.json").write_text(json.dumps(index))
    assert difference(drawn(models), before) == 0  # `darkroom models pull` leaves it out

    checkers.safety_checker(models / "sd15", margin=-2)
    assert difference(drawn(models), before) == 0
    asked_for = spec("sd15", Operation.INPAINT)
    drawing = engine(models, profile("sd15"))
    (picture,) = pictures(drawing, share(asked_for))
    assert picture.max() > 0
    assert model_of(drawing, "sd15").view(Operation.INPAINT).safety_checker is None


@pytest.mark.parametrize("like", ["sd15", "sdxl", "schnell"])
def test_a_model_that_is_kept_in_main_memory_draws_the_same(weights: Path, like: str) -> None:
    waits, stays = (engine(weights, profile(like, offload=offload)) for offload in ("model", "none"))

    for operation in (*DRAWINGS, *DRAWINGS):
        (one,), (other_one,) = (pictures(where, share(spec(like, operation))) for where in (waits, stays))
        assert difference(one, other_one) == 0
