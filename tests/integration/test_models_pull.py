"""`darkroom models pull` against a hub on loopback: what it shows, what it takes, and after a kill."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.domain.profiles import Profile
from app.settings import environment_of_child
from app.weights.needs import needs
from tests.servers.hub import FakeHub, Shelved, opened
from tests.waiting import eventually

pytest.importorskip("huggingface_hub", reason="the GPU engine is not installed; make gpu")

DARKROOM = [sys.executable, "-c", "from app.cli import main; main()"]
BASE, LIGHT = "acme/base", "acme/light"
MEGABYTE = 1 << 20
STALL = 22 * MEGABYTE
"""The client writes what it got 10 MB at a time."""


def weights(size: int, *, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 - contents, not secrets


LARGE = weights(26 * MEGABYTE, seed=1)
WANTED = {
    "model_index.json": b"{}",
    "scheduler/scheduler_config.json": b"{}",
    "text_encoder/config.json": b"{}",
    "text_encoder/model.fp16.safetensors": weights(900, seed=2),
    "text_encoder_2/config.json": b"{}",
    "text_encoder_2/model.safetensors.index.fp16.json": b"{}",
    "text_encoder_2/model.fp16-00001-of-00002.safetensors": weights(800, seed=3),
    "text_encoder_2/model.fp16-00002-of-00002.safetensors": weights(700, seed=4),
    "tokenizer/vocab.json": b"{}",
    "tokenizer/merges.txt": b"a b",
    "tokenizer_2/tokenizer.json": b"{}",
    "unet/config.json": b"{}",
    "vae/config.json": b"{}",
    # There is no variant of these.
    "vae/diffusion_pytorch_model.safetensors": weights(600, seed=5),
}
OF_THE_UNET = {"unet/diffusion_pytorch_model.fp16.safetensors": LARGE}
UNWANTED = {
    "README.md": b"---",
    "sd_xl_base_1.0.safetensors": b"all in one",
    "text_encoder/model.safetensors": b"of full precision",
    "text_encoder/flax_model.msgpack": b"flax",
    "text_encoder/openvino_model.bin": b"openvino",
    "unet/diffusion_pytorch_model.safetensors": b"of full precision",
    "unet/diffusion_pytorch_model.non_ema.safetensors": b"for training",
    "vae/diffusion_pytorch_model.bin": b"pickle",
    "vae_1_0/config.json": b"{}",
}
LIGHTNING = {"light_4step.safetensors": weights(500, seed=6), "light_8step.safetensors": b"another"}


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with opened() as made:
        yield made


def fill(hub: FakeHub) -> None:
    hub.repositories[BASE] = Shelved(files={**WANTED, **OF_THE_UNET, **UNWANTED})
    hub.repositories[LIGHT] = Shelved(files=LIGHTNING, licence=None)
    hub.repositories["acme/locked"] = Shelved(files=WANTED, gated=True)
    hub.repositories["acme/pickled"] = Shelved(files={"model_index.json": b"{}", **UNWANTED})


@pytest.fixture
def home(tmp_path: Path, hub: FakeHub) -> Path:
    """A place whose settings name the hub and a catalogue of five profiles."""
    fill(hub)
    hub.asked.clear()
    hub.stall_after = None
    hub.stalled.clear()
    sources = {"base": BASE, "locked": "acme/locked", "pickled": "acme/pickled", "gone": "acme/gone"}
    profiles: list[dict[str, Any]] = [
        {"name": name, "family": "sdxl", "source": source, "variant": "fp16", "licence": "Acme's own"}
        for name, source in sources.items()
    ]
    unet = {"source": LIGHT, "file": "light_4step.safetensors"}
    profiles.append({**profiles[0], "name": "light", "unet": unet, "gigabytes": 0.1})
    catalogue = {"models": [model(profile["name"]) for profile in profiles], "profiles": profiles}
    (tmp_path / "models.yaml").write_text(yaml.safe_dump(catalogue))
    return tmp_path


def model(name: object) -> dict[str, object]:
    return {
        "id": name,
        "name": name,
        "created_at": "2026-11-25T00:00:00Z",
        "operations": ["text_to_image"],
        "width": 64,
        "height": 64,
        "size": {"min": 64, "max": 64, "multiple": 8, "max_pixels": 4096},
        "max_images": 1,
        "defaults": {"num_inference_steps": 2, "guidance_scale": 0, "strength": 1},
        "targets": [{"provider": "diffusers", "model": name, "queue": "gpu.0"}],
    }


def start(*words: str, home: Path, hub: FakeHub, **changes: str) -> subprocess.Popen[str]:
    environment = {
        name: value
        for name, value in environment_of_child(
            **{
                "DARKROOM_MODELS_FILE": str(home / "models.yaml"),
                "DARKROOM_MODELS_FOLDER": str(home / "weights"),
                "DARKROOM_HUB_ENDPOINT": hub.url,
                "HF_HOME": str(home / "hf"),
                **changes,
            }
        ).items()
        if name not in {"HF_HUB_OFFLINE", "HF_TOKEN"}
    }
    return subprocess.Popen(
        [*DARKROOM, "models", *words, "--state", str(home / "state")],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str], *, answer: str = "") -> tuple[int, str]:
    """The exit status of a command and all that it said."""
    out, err = process.communicate(answer, timeout=60)
    return process.returncode, out + err


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".cache" not in path.parts and path.name != "darkroom.json"
    }


def test_licence_and_size_are_shown_first_and_a_no_downloads_nothing(home: Path, hub: FakeHub) -> None:
    status, told = said(start("pull", "light", home=home, hub=hub), answer="n\n")

    assert status == 1, told
    assert "Acme's own" in told
    assert "its page says openrail++" in told
    assert "its page names no licence" in told
    assert hub.repositories[BASE].commit in told
    assert "are free" in told
    assert "Download" in told
    assert hub.asked == []
    assert not (home / "weights").exists()


def test_a_pull_that_was_killed_is_finished_by_the_next(home: Path, hub: FakeHub) -> None:
    hub.stall_after = STALL
    killed = start("pull", "base", "--yes", home=home, hub=hub)
    folder = home / "weights" / "acme--base"
    eventually(hub.stalled.is_set, within=30)
    eventually(lambda: largest(folder, ".incomplete") > 0, within=30)
    killed.kill()
    killed.communicate()
    _, listed = said(start("list", home=home, hub=hub))
    (line,) = (line for line in listed.splitlines() if line.split()[:1] == ["base"])
    assert "no weights: darkroom models pull base" in line

    hub.stall_after = None
    hub.asked.clear()
    status, told = said(start("pull", "base", "--yes", home=home, hub=hub))

    assert status == 0, told
    assert files_in(folder) == {**WANTED, **OF_THE_UNET}
    record = json.loads((folder / "darkroom.json").read_text())
    assert (record["repository"], record["commit"]) == (BASE, hub.repositories[BASE].commit)
    assert record["licence"] == "openrail++"
    assert "All weights of base are there" in told


def largest(folder: Path, suffix: str) -> int:
    return max((path.stat().st_size for path in folder.rglob(f"*{suffix}")), default=0)


def test_a_part_that_is_replaced_is_not_downloaded_and_a_second_pull_takes_nothing(
    home: Path, hub: FakeHub
) -> None:
    assert said(start("pull", "light", "--yes", home=home, hub=hub))[0] == 0
    assert files_in(home / "weights" / "acme--base") == WANTED
    one = "light_4step.safetensors"
    assert files_in(home / "weights" / "acme--light") == {one: LIGHTNING[one]}

    hub.asked.clear()
    status, told = said(start("pull", "light", home=home, hub=hub))

    assert status == 0, told
    assert "of them here already" in told
    assert hub.asked == []


def test_a_folder_stays_at_the_commit_that_was_pulled(home: Path, hub: FakeHub) -> None:
    assert said(start("pull", "light", "--yes", home=home, hub=hub))[0] == 0
    pulled = hub.repositories[BASE]
    hub.repositories[BASE] = Shelved(files=pulled.files, commit="d" * 40)
    try:
        status, told = said(start("pull", "base", "--yes", home=home, hub=hub))
    finally:
        hub.repositories[BASE] = pulled

    assert status == 1
    assert f"has no revision '{pulled.commit}'" in told


@pytest.mark.parametrize(
    ("name", "changes", "why"),
    [
        ("locked", {}, "DARKROOM_HUB_TOKEN"),
        ("gone", {}, "There is no repository acme/gone"),
        ("pickled", {}, "acme/pickled has no unet/*.json"),
        ("base", {"DARKROOM_HUB_ENDPOINT": "http://127.0.0.1:9"}, "cannot be reached"),
        ("nobody", {}, "There is no model 'nobody' to pull; there are base, "),
        ("openai", {}, "set DARKROOM_UPSTREAM_KEYS=openai=KEY"),
    ],
)
def test_what_cannot_be_pulled_is_said_in_one_sentence(
    home: Path, hub: FakeHub, name: str, changes: dict[str, str], why: str
) -> None:
    status, told = said(start("pull", name, "--yes", home=home, hub=hub, **changes))

    assert status == 1
    assert why in told
    assert "Traceback" not in told


def test_a_locked_repository_opens_with_a_token(home: Path, hub: FakeHub) -> None:
    hub.repositories["acme/locked"].files = {**WANTED, "unet/diffusion_pytorch_model.safetensors": b"small"}

    status, told = said(
        start("pull", "locked", "--yes", home=home, hub=hub, DARKROOM_HUB_TOKEN="hf_let-me-in")
    )

    assert status == 0, told
    assert "hf_let-me-in" not in told


def test_a_disk_that_is_too_small_is_seen_before_anything_is_downloaded(home: Path, hub: FakeHub) -> None:
    class Giant(bytes):
        def __len__(self) -> int:
            return 10**18

    files = {**WANTED, "unet/diffusion_pytorch_model.safetensors": Giant()}
    hub.repositories["acme/locked"] = Shelved(files=files)

    status, told = said(start("pull", "locked", "--yes", home=home, hub=hub))

    assert status == 1
    assert "1000000000.0 GB are to come" in told
    assert hub.asked == []


def test_a_folder_of_the_operators_own_is_used_as_it_is(tmp_path: Path) -> None:
    own = tmp_path / "mine" / "model"
    for name, data in {**WANTED, "unet/diffusion_pytorch_model.safetensors": b"w"}.items():
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).write_bytes(data)
    profile = Profile.model_validate(
        {"name": "mine", "family": "sdxl", "source": "mine/model", "variant": "fp16"}
    )

    (need,) = needs(profile, tmp_path)

    assert need.folder == own
    assert not need.can_be_pulled
    assert need.missing() == []
    (own / "text_encoder_2/model.fp16-00002-of-00002.safetensors").unlink()
    shutil.rmtree(own / "vae")
    assert need.missing() == [
        "vae/*.json",
        "vae/*.safetensors",
        "text_encoder_2/model.fp16-00002-of-00002.safetensors",
    ]
