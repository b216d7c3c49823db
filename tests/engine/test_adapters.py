"""Adapters: one that fits whole is taken, in each form that trainers write; one that does not is refused."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the extra gpu is not installed")

import torch
from safetensors.torch import load_file, save_file

from app.domain.spec import Operation
from app.errors import ModelUnavailable
from tests.engine import tiny
from tests.engine.studio import difference, engine, model_of, pictures, profile, share, spec

READER = {
    "self_attn.q_proj": (32, 32),
    "self_attn.k_proj": (32, 32),
    "self_attn.v_proj": (32, 32),
    "self_attn.out_proj": (32, 32),
    "mlp.fc1": (64, 32),
    "mlp.fc2": (32, 64),
}
"""The layers of a tiny CLIP that adapters change, with the sizes of what they give and take."""
FUSED = {"double_blocks_0_img_attn_qkv": (96, 32), "double_blocks_0_img_attn_proj": (32, 32)}
"""Layers of a tiny Flux as its makers name them; the first is three of diffusers'."""
Weights = dict[str, torch.Tensor]


def peft(layer: str, size: tuple[int, int]) -> Weights:
    """Give what adapts a layer, as PEFT names it."""
    given, taken = size
    return {f"{layer}.lora_A.weight": torch.randn(4, taken), f"{layer}.lora_B.weight": torch.randn(given, 4)}


def kohya(layer: str, size: tuple[int, int]) -> Weights:
    """Give what adapts a layer, as the scripts that most adapters come from name it."""
    given, taken = size
    layer = layer.replace(".", "_")
    return {
        f"{layer}.lora_down.weight": torch.randn(4, taken),
        f"{layer}.lora_up.weight": torch.randn(given, 4),
        f"{layer}.alpha": torch.tensor(4.0),
    }


def unets(weights: Path, name: str) -> dict[str, tuple[int, int]]:
    """Give the layers of a model's UNet that adapters change."""
    unet = model_of(engine(weights, profile(name)), name).view(Operation.TEXT_TO_IMAGE).unet
    named = ((layer, module) for layer, module in unet.named_modules() if layer.endswith(("to_q", "to_v")))
    return {layer: tuple(module.weight.shape) for layer, module in named}


def readers(prefix: str, *, deepest: int = 1) -> dict[str, tuple[int, int]]:
    """Give the layers of a text encoder, which has two blocks: 0 and 1."""
    return {
        f"{prefix}.text_model.encoder.layers.{number}.{layer}": size
        for number in (0, deepest)
        for layer, size in READER.items()
    }


def forms(weights: Path) -> Iterator[tuple[str, str, Weights]]:
    """Give adapters that fit whole: for which model, in which form, and what is in the file."""
    for model, encoders in (("sd15", {"text_encoder": "lora_te"}), ("sdxl", _TWO)):
        unet = unets(weights, model)
        yield model, "peft", _file(peft, {f"unet.{layer}": size for layer, size in unet.items()})
        yield model, "kohya", _file(kohya, {f"lora_unet_{layer}": size for layer, size in unet.items()})
        for ours, theirs in encoders.items():
            yield model, f"{ours} alone", _file(peft, readers(ours))
            both = {f"lora_unet_{layer}": size for layer, size in unet.items()} | readers(theirs)
            yield model, f"kohya with {theirs}", _file(kohya, both)
    older = {f"lora_unet_{_by_its_makers(layer)}": size for layer, size in unets(weights, "sdxl").items()}
    yield "sdxl", "kohya by the makers' names", _file(kohya, older)
    yield "schnell", "fused", _file(kohya, {f"lora_unet_{layer}": size for layer, size in FUSED.items()})


def _by_its_makers(layer: str) -> str:
    """Give how Stability's own code calls a layer of the tiny UNet, as most of SDXL's adapters do."""
    layer = layer.replace("down_blocks.1.attentions.0", "input_blocks.3.1")
    layer = layer.replace("mid_block.attentions.0", "middle_block.1")
    return re.sub(r"up_blocks\.0\.attentions\.(\d)", r"output_blocks.\1.1", layer)


_TWO = {"text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}


def _file(form: Any, layers: dict[str, tuple[int, int]]) -> Weights:
    torch.manual_seed(5)
    return {name: weight for layer, size in layers.items() for name, weight in form(layer, size).items()}


def drawn(weights: Path, model: str, folder: Path, **changes: Any) -> Any:
    made = profile(model, loras=[{"source": str(folder), "file": "a.safetensors"} | changes])
    return pictures(engine(weights, made), share(spec(model, num_inference_steps=1)))[0]


def test_an_adapter_that_fits_whole_is_taken_in_each_form_there_is(weights: Path, tmp_path: Path) -> None:
    without: dict[str, Any] = {}
    for model, form, contents in forms(weights):
        save_file(contents, tmp_path / "a.safetensors")
        if model not in without:
            without[model] = drawn(weights, model, tmp_path, weight=0)
        assert difference(drawn(weights, model, tmp_path), without[model]) > 0, (model, form)


def refusal(weights: Path, model: str, folder: Path, contents: Weights) -> str:
    save_file(contents, folder / "a.safetensors")
    with pytest.raises(ModelUnavailable, match=r"a\.safetensors") as caught:
        drawn(weights, model, folder)
    return caught.value.message


@pytest.mark.parametrize("form", [peft, kohya])
def test_an_adapter_whose_text_encoder_is_deeper_than_the_models_is_refused(
    weights: Path, tmp_path: Path, form: Any
) -> None:
    prefixes = {peft: ("unet.", "text_encoder"), kohya: ("lora_unet_", "lora_te")}
    unet, reader = prefixes[form]
    layers = {f"{unet}{layer}": size for layer, size in unets(weights, "sd15").items()}
    deeper = readers(reader, deepest=9)

    text = refusal(weights, "sd15", tmp_path, _file(form, layers | deeper))

    count = len(layers) + len(deeper)
    assert f"{len(READER)} of this adapter's {count} layers fit nothing in the model" in text


@pytest.mark.parametrize("fitting", [1, -1])
def test_an_adapter_of_which_a_part_fits_nothing_is_refused(
    weights: Path, tmp_path: Path, fitting: int
) -> None:
    whole = load_file(tiny.lora(tmp_path / "whole.safetensors", seed=1))
    layers = sorted({name.rpartition(".lora_")[0] for name in whole})
    kept = set(layers[:fitting])
    part = {
        name if name.rpartition(".lora_")[0] in kept else name.replace("_blocks", "_blokcs"): weight
        for name, weight in whole.items()
    }

    text = refusal(weights, "sd15", tmp_path, part)

    assert f"{len(layers) - len(kept)} of this adapter's {len(layers)} layers" in text


def test_an_adapter_for_more_blocks_than_the_model_has_is_refused_though_its_layers_are_fused(
    weights: Path, tmp_path: Path
) -> None:
    layers = {f"lora_unet_{layer}": size for layer, size in FUSED.items()}
    more = {layer.replace("blocks_0", "blocks_7"): size for layer, size in layers.items()}

    text = refusal(weights, "schnell", tmp_path, _file(kohya, layers | more))

    assert "4 of this adapter's 8 layers fit nothing in the model" in text
