"""Files that are missing, torn or another model's: the operator reads which, and all else is drawn."""

import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the extra gpu is not installed")

import torch
from safetensors.torch import load_file, save_file

from app.domain.profiles import Profile
from app.errors import ModelUnavailable
from tests.engine import tiny
from tests.engine.studio import (
    PROFILES,
    engine,
    pictures,
    profile,
    share,
    spec,
)
from workers.providers.diffusers import Device, Diffusers

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
LORA = "pytorch_lora_weights.safetensors"

asked: list[tuple[str, Any]] = []
"""What Python was asked of the network, by name and address."""


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.getaddrinfo":
        asked.append((event, arguments[0]))
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        asked.append((event, arguments[1][0]))


sys.addaudithook(_listen)  # it stays until the process ends; there is no way to take one out


@pytest.fixture
def models(weights: Path, tmp_path: Path) -> Path:
    """A models folder of this test's own, with `sd15` in it."""
    folder = tmp_path / "models"
    shutil.copytree(weights / "sd15", folder / "sd15")
    return folder


@pytest.fixture(scope="module")
def known() -> dict[str, Profile]:
    """The profiles of the engine that all the broken ones are given to."""
    return {"sdxl": profile("sdxl")}


@pytest.fixture(scope="module")
def patient(weights: Path, known: dict[str, Profile]) -> Diffusers:
    """One engine for all broken models, so that each must leave it as it was."""
    device = Device("cpu", reserve=0, budget=None)
    return Diffusers(profiles=known, folder=weights, device=device, on_broken=pytest.fail)


@pytest.fixture
def refusal(patient: Diffusers, known: dict[str, Profile], models: Path) -> Callable[..., str]:
    """Give why a profile cannot be loaded, seen that the engine draws with another one all the same."""

    def ask(like: str = "sd15", **changes: Any) -> str:
        known["broken"] = profile("broken", **PROFILES[like] | {"source": str(models / like)} | changes)
        with pytest.raises(ModelUnavailable, match="profile broken cannot be loaded") as caught:
            pictures(patient, share(spec("broken", num_inference_steps=1)))
        assert len(pictures(patient, share(spec("sdxl", num_inference_steps=1)))) == 1
        assert patient.warm_models() == ["sdxl"]
        return caught.value.message.replace(str(models), "")

    return ask


def rewrite(file: Path, **changed: Any) -> None:
    """Put other weights into a file; None leaves one out."""
    weights = {**load_file(file), **changed}
    save_file({n: w for n, w in weights.items() if w is not None}, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("like", "gone", "named"),
    [
        ("sd15", ".", "there is no folder"),
        ("sd15", "model_index.json", "model_index.json"),
        ("sd15", UNET, "lacks unet/*.safetensors"),
        ("sd15", VAE, "lacks vae/*.safetensors"),
        ("sd15", TEXT, "lacks text_encoder/*.safetensors"),
        ("sd15", "unet/config.json", "lacks unet/*.json"),
        ("sd15", "vae/config.json", "lacks vae/*.json"),
        ("sd15", "text_encoder/config.json", "lacks text_encoder/*.json"),
        ("sd15", "unet", "lacks unet/*.json, unet/*.safetensors"),
        ("sd15", "vae", "lacks vae/*.json, vae/*.safetensors"),
        ("sd15", "text_encoder", "lacks text_encoder/*.json, text_encoder/*.safetensors"),
        ("sd15", "tokenizer", "lacks tokenizer/*.json"),
        ("sd15", "scheduler", "lacks scheduler/*.json"),
        ("sdxl", "tokenizer_2", "lacks tokenizer_2/*.json"),
        ("sdxl", "text_encoder_2", "lacks text_encoder_2/*.json, text_encoder_2/*.safetensors"),
        ("schnell", "tokenizer", "lacks tokenizer/*.json"),
        ("schnell", "tokenizer_2", "lacks tokenizer_2/*.json"),
        ("schnell", "text_encoder_2/model.safetensors", "lacks text_encoder_2/*.safetensors"),
        ("schnell", "transformer/diffusion_pytorch_model.safetensors", "lacks transformer/*.safetensors"),
    ],
)
def test_what_is_missing_is_named(
    weights: Path, models: Path, refusal: Callable[..., str], like: str, gone: str, named: str
) -> None:
    folder = shutil.copytree(weights / like, models / like, dirs_exist_ok=True)
    path = folder / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()

    text = refusal(like)

    assert named in text


@pytest.mark.parametrize("size", ["half", "header", "nothing"])
@pytest.mark.parametrize("file", [UNET, VAE, TEXT])
def test_a_torn_file_is_named(models: Path, refusal: Callable[..., str], file: str, size: str) -> None:
    path = models / "sd15" / file
    whole = path.read_bytes()
    path.write_bytes(whole[: {"half": len(whole) // 2, "header": 100, "nothing": 0}[size]])

    assert file.partition("/")[0] in refusal()


@pytest.mark.parametrize("file", [UNET, VAE, TEXT])
def test_a_weight_that_a_file_lacks_is_never_made_up(
    models: Path, refusal: Callable[..., str], file: str
) -> None:
    names = sorted(load_file(models / "sd15" / file))
    rewrite(models / "sd15" / file, **{names[len(names) // 2]: None})

    text = refusal()

    assert file.partition("/")[0] in text
    assert "lacks" in text


def test_a_weight_of_another_shape_is_refused(models: Path, refusal: Callable[..., str]) -> None:
    for file, named in ((UNET, "unet"), (VAE, "vae"), (TEXT, "text_encoder")):
        path = models / "sd15" / file
        whole = path.read_bytes()
        name = min(load_file(path))
        rewrite(path, **{name: torch.zeros(3, 5)})
        text = refusal()
        path.write_bytes(whole)
        assert named in text or name in text


@pytest.mark.parametrize(
    ("like", "guidance", "wanted"), [("dev", "none", "embedded"), ("schnell", "embedded", "none")]
)
def test_flux_weights_of_the_other_kind_are_not_drawn_with(
    weights: Path, refusal: Callable[..., str], like: str, guidance: str, wanted: str
) -> None:
    text = refusal(like, source=str(weights / like), guidance=guidance)

    assert f"its transformer wants `guidance: {wanted}`, not {guidance}" in text


@pytest.mark.parametrize(("like", "holds"), [("sd15", "sdxl"), ("sdxl", "schnell"), ("schnell", "sd15")])
def test_another_familys_files_are_not_drawn_with(
    weights: Path, refusal: Callable[..., str], like: str, holds: str
) -> None:
    text = refusal(like, source=str(weights / holds))

    assert "Pipeline, which is no " + PROFILES[like]["family"] in text


def test_a_configuration_that_is_no_json_is_refused(models: Path, refusal: Callable[..., str]) -> None:
    (models / "sd15/model_index.json").write_text("{")
    assert "JSONDecodeError" in refusal()

    (models / "sd15/model_index.json").write_text("[]")
    assert "cannot be loaded" in refusal()


def test_a_mended_model_is_drawn_by_the_engine_that_refused_it(models: Path) -> None:
    drawing = engine(models, profile("sd15"))
    whole = (models / "sd15" / UNET).read_bytes()
    (models / "sd15" / UNET).write_bytes(b"torn")
    with pytest.raises(ModelUnavailable):
        pictures(drawing, share(spec("sd15")))

    (models / "sd15" / UNET).write_bytes(whole)

    assert len(pictures(drawing, share(spec("sd15")))) == 1


def test_a_broken_model_costs_the_others_their_place_once_a_minute(weights: Path, models: Path) -> None:
    now = [0.0]
    whole = (models / "sd15" / UNET).read_bytes()
    names = sorted(load_file(models / "sd15" / UNET))
    rewrite(models / "sd15" / UNET, **{names[7]: None})
    torn = (models / "sd15" / UNET).read_bytes()
    known = profile("sdxl", source=str(weights / "sdxl")), profile("sd15")
    drawing = engine(models, *known, budget=3_000_000, clock=lambda: now[0])

    def fails() -> str:
        pictures(drawing, share(spec("sdxl", num_inference_steps=1)))
        with pytest.raises(ModelUnavailable) as caught:
            pictures(drawing, share(spec("sd15")))
        return caught.value.message

    why = fails()
    assert drawing.warm_models() == []  # it was to have the room
    for now[0] in (1, 59.9):
        assert fails() == why
        assert drawing.warm_models() == ["sdxl"]
    now[0] = 60
    fails()
    assert drawing.warm_models() == []

    now[0] = 61
    (models / "sd15" / UNET).write_bytes(torn[:-40])
    assert fails() != why  # another file, which is another try
    (models / "sd15" / UNET).write_bytes(whole)
    assert len(pictures(drawing, share(spec("sd15")))) == 1


@pytest.mark.parametrize(
    ("file", "pickle"),
    [(UNET, "unet/diffusion_pytorch_model.bin"), (TEXT, "text_encoder/pytorch_model.bin")],
)
def test_pickles_are_not_opened(
    weights: Path, models: Path, tmp_path: Path, refusal: Callable[..., str], file: str, pickle: str
) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return open, (str(tmp_path / "it-ran"), "w")

    torch.save({"x": Trap()}, models / "sd15" / pickle)
    assert len(pictures(engine(models), share(spec("sd15")))) == 1

    (models / "sd15" / file).unlink()
    assert file.partition("/")[0] in refusal()
    shutil.copytree(models / "sd15/vae", models / "alone")
    safe = models / "alone/diffusion_pytorch_model.safetensors"
    torch.save(load_file(safe), safe.with_suffix(".bin"))  # and one that could be read
    safe.unlink()
    assert "/alone" in refusal(source=str(weights / "sd15"), vae={"source": str(models / "alone")})
    assert not (tmp_path / "it-ran").exists()


def test_nothing_is_asked_of_the_network(models: Path, weights: Path, refusal: Callable[..., str]) -> None:
    with socket.socket() as line:
        line.connect_ex(("127.0.0.1", 9))
    assert ("socket.connect", "127.0.0.1") in asked  # else this test would see nothing
    asked.clear()
    (models / "sd15" / UNET).unlink()
    tiny.lora(models / "lora" / LORA, seed=1)

    refusal()
    refusal(source="somebody/something")
    refusal(vae={"source": "somebody/something"})
    refusal(
        source=str(weights / "sd15"), loras=[{"source": str(models / "lora"), "file": "other.safetensors"}]
    )
    for name in ("sd15", "sdxl", "schnell"):
        pictures(engine(weights), share(spec(name, num_inference_steps=1)))

    assert asked == []


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "somebody/something"},
        {"source": "somebody/something", "revision": "v1"},
        {"vae": {"source": "somebody/something"}},
        {"unet": {"source": "somebody/something"}},
        {"unet": {"source": "somebody/something", "file": "unet.safetensors"}},
        {"loras": [{"source": "somebody/something"}]},
    ],
    ids=str,
)
def test_a_repository_that_was_not_pulled_says_how_to(
    refusal: Callable[..., str], changes: dict[str, Any]
) -> None:
    text = refusal(**changes)

    assert "somebody--something" in text
    assert "darkroom models pull" in text


@pytest.mark.parametrize(
    ("like", "name"), [("sd15", "tokenizer"), ("schnell", "tokenizer"), ("schnell", "tokenizer_2")]
)
def test_a_tokenizer_without_its_vocabulary_is_refused(
    weights: Path, models: Path, refusal: Callable[..., str], like: str, name: str
) -> None:
    shutil.copytree(weights / like, models / like, dirs_exist_ok=True)
    (models / like / name / "tokenizer.json").unlink()

    assert f"its {name} has no vocabulary" in refusal(like)


def test_a_broken_replacement_is_named(models: Path, weights: Path, refusal: Callable[..., str]) -> None:
    whole = (models / "sd15" / UNET).read_bytes()
    alone = models / "alone"
    alone.mkdir()
    (alone / "lacking.safetensors").write_bytes(whole)
    names = sorted(load_file(alone / "lacking.safetensors"))
    rewrite(alone / "lacking.safetensors", **{names[7]: None})
    (alone / "torn.safetensors").write_bytes(whole[:5000])
    shutil.copy(weights / "sdxl" / UNET, alone / "foreign.safetensors")

    for file in ("lacking", "torn", "foreign", "absent"):
        text = refusal(unet={"source": str(alone), "file": f"{file}.safetensors"})
        assert f"/alone/{file}.safetensors" in text

    shutil.copy(models / "sd15/unet/config.json", alone)
    assert "/alone" in refusal(unet={"source": str(alone)})
    (alone / "diffusion_pytorch_model.safetensors").write_bytes(whole[:5000])
    assert "/alone" in refusal(unet={"source": str(alone)})


def test_an_adapter_that_is_missing_or_torn_or_fits_nothing_is_refused(
    weights: Path, models: Path, refusal: Callable[..., str]
) -> None:
    folder = models / "adapters"
    whole = tiny.lora(folder / "whole.safetensors", seed=1)
    (folder / "torn.safetensors").write_bytes(whole.read_bytes()[:3000])
    strange = {name.replace("to_", "from_"): weight for name, weight in load_file(whole).items()}
    save_file(strange, folder / "strange.safetensors")
    save_file({"nothing": torch.zeros(2)}, folder / "nothing.safetensors")
    flux = {name.replace("unet.", "transformer."): weight for name, weight in load_file(whole).items()}
    save_file(flux, folder / "flux.safetensors")

    for file in ("absent", "torn", "strange", "nothing", "flux"):
        assert f"{file}.safetensors" in refusal(
            loras=[{"source": str(folder), "file": f"{file}.safetensors"}]
        )
    assert LORA in refusal(loras=[{"source": str(folder)}])
    assert "whole.safetensors" in refusal(
        "sdxl",
        source=str(weights / "sdxl"),
        loras=[{"source": str(folder), "file": "whole.safetensors"}],
    )
