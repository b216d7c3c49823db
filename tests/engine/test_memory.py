"""Which models stay in memory, and what is done when it runs out: smaller calls of the same pictures."""

import shutil
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the extra gpu is not installed")

import torch
from diffusers import UNet2DConditionModel
from torch.nn.modules.module import register_module_module_registration_hook

from app.domain.spec import JobSpec, Operation
from app.errors import GpuOutOfMemory, ModelUnavailable
from tests.engine.studio import (
    difference,
    engine,
    levels,
    model_of,
    pictures,
    profile,
    share,
    spec,
    together,
)
from workers.providers.diffusers import Diffusers

pytestmark = pytest.mark.usefixtures("few_objects")

WIDE = 192
"""Pixels of a side that the tiny VAE, tiled, works at in several pieces; 16 latents is one."""
HEADERS = 200_000
"""Bytes by which the files of three tiny models are larger than what is in them, and a few more."""
OUT_OF_MEMORY: dict[str, Callable[[], Exception]] = {
    "a GPU's": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cuBLAS's": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
    "the CPU's": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate"
    ),
    "Python's": MemoryError,
}


@dataclass
class Shortage:
    """Has a model run out of memory, by hooks on its own modules; writes down what was tried.

    Attributes:
        rows: how many its UNet has memory for.
        latents: of which width its VAE can decode.
        after: so many runs of the UNet go well whatever their rows; PNDM makes 5 for 4 steps.
        tries: what was tried: rows of a step, or width of what was decoded, and whether there was memory.
        outlived: whether a failed call's tensors were still there at the next.
    """

    rows: int = 99
    latents: int = 99
    after: int = 0
    error: Callable[[], Exception] = OUT_OF_MEMORY["a GPU's"]
    tries: list[tuple[str, int, bool]] = field(default_factory=list)
    outlived: list[bool] = field(default_factory=list)
    _last: "weakref.ref[torch.Tensor] | None" = None

    @contextmanager
    def of(self, drawing: Diffusers, name: str) -> Iterator["Shortage"]:
        """Have it run short until the context ends."""
        pipe = model_of(drawing, name).view(Operation.TEXT_TO_IMAGE)
        hooks = [
            pipe.unet.register_forward_pre_hook(self._step),
            pipe.vae.decoder.register_forward_pre_hook(self._decode),
        ]
        try:
            yield self
        finally:
            for hook in hooks:
                hook.remove()

    def told(self, *kinds: str) -> list[tuple[str, int, bool]]:
        """Give the tries of these kinds; what went well as before is left out."""
        tries = [one for one in self.tries if one[0] in kinds]
        return [
            one for one, before in zip(tries, [None, *tries], strict=False) if one != before or not one[2]
        ]

    def _step(self, _unet: Any, args: tuple[Any, ...]) -> None:
        if self._last is not None:
            self.outlived.append(self._last() is not None)
            self._last = None
        self._try("step", len(args[0]), self.after > 0 or len(args[0]) <= self.rows)
        self.after -= 1

    def _decode(self, _decoder: Any, args: tuple[Any, ...]) -> None:
        self._try("decode", args[0].shape[-1], args[0].shape[-1] <= self.latents)

    def _try(self, what: str, size: int, fits: bool) -> None:  # noqa: FBT001 - told by its place
        self.tries.append((what, size, fits))
        if not fits:
            large = torch.zeros(1_000_000)
            ring: list[Any] = [large]
            ring.append(ring)  # only a search for garbage finds it, as with much of the libraries' own
            self._last = weakref.ref(large)
            raise self.error()


def unguided(model: str = "sd15", **changes: Any) -> JobSpec:
    """Give a wish whose network sees each image once per step."""
    return spec(model, guidance_scale=1.0, **changes)


def touch(drawing: Diffusers, *names: str) -> None:
    """Draw with models, one after the other."""
    for name in names:
        pictures(drawing, share(spec(name, num_inference_steps=1)))


def sizes(weights: Path, *names: str) -> int:
    """Give how many bytes these models take together."""
    return sum(model_of(engine(weights), name).bytes for name in names)


def test_the_model_that_was_used_longest_ago_makes_room(weights: Path) -> None:
    drawing = engine(weights, budget=sizes(weights, "sd15", "sdxl", "schnell") + HEADERS)
    touch(drawing, "sd15", "sdxl", "schnell")
    assert drawing.warm_models() == ["schnell", "sdxl", "sd15"]

    touch(drawing, "sd15")
    assert drawing.warm_models() == ["sd15", "schnell", "sdxl"]

    dropped = weakref.ref(model_of(drawing, "schnell"))
    touch(drawing, "sdxl", "sd15", "dev")
    assert drawing.warm_models() == ["dev", "sd15", "sdxl"]
    assert dropped() is None


def test_models_go_until_the_next_one_fits_and_no_further(weights: Path) -> None:
    drawing = engine(weights, budget=sizes(weights, "schnell", "sd15", "sdxl") - 1)
    touch(drawing, "schnell", "sd15", "sdxl")
    assert drawing.warm_models() == ["sdxl", "sd15"]

    drawing = engine(weights, budget=sizes(weights, "sdxl"))
    touch(drawing, "schnell", "sd15", "sdxl")
    assert drawing.warm_models() == ["sdxl"]


def test_a_pinned_model_stays(weights: Path) -> None:
    profiles = (profile("sd15", pinned=True), profile("sdxl"), profile("schnell"))
    drawing = engine(weights, *profiles, budget=sizes(weights, "sd15", "sdxl") + HEADERS)
    touch(drawing, "sd15", "sdxl", "schnell")
    assert drawing.warm_models() == ["schnell", "sd15"]

    touch(drawing, "sdxl")
    with Shortage(rows=1).of(drawing, "sdxl"):
        pictures(drawing, share(unguided("sdxl", num_images=2)))
    assert drawing.warm_models() == ["sdxl", "sd15"]


def test_a_model_larger_than_the_budget_is_drawn_with_alone(weights: Path) -> None:
    drawing = engine(weights, budget=1)
    touch(drawing, "sd15", "sdxl")

    assert drawing.warm_models() == ["sdxl"]


def test_a_dropped_model_is_loaded_anew_and_draws_the_same(weights: Path) -> None:
    drawing = engine(weights, budget=1)
    (before,) = pictures(drawing, share(spec("sd15")))
    touch(drawing, "sdxl")
    (after,) = pictures(drawing, share(spec("sd15")))

    assert difference(before, after) == 0


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
def test_where_memory_runs_out_the_same_pictures_come_of_smaller_calls(weights: Path, kind: str) -> None:
    drawing, asked = engine(weights), unguided(num_images=5)
    whole = pictures(drawing, share(asked))
    with Shortage(rows=2, error=OUT_OF_MEMORY[kind]).of(drawing, "sd15") as short:
        halved = pictures(drawing, share(asked))

    assert short.told("step") == [("step", 5, False), ("step", 2, True), ("step", 1, True)]
    assert all(difference(one, other) <= 1 for one, other in zip(whole, halved, strict=True))


def test_other_models_go_before_a_call_is_halved_and_the_vae_is_tiled_last(weights: Path) -> None:
    drawing, asked = engine(weights), unguided(num_images=4, width=WIDE, height=WIDE)
    touch(drawing, "sdxl", "schnell")
    with Shortage(rows=2, latents=16).of(drawing, "sd15") as short:
        found = pictures(drawing, share(asked))

    assert drawing.warm_models() == ["sd15"]
    told = short.told("step", "decode")
    assert told[:9] == [
        ("step", 4, False),  # sdxl and schnell go
        ("step", 4, False),
        ("step", 2, True),
        ("decode", 24, False),
        ("step", 1, True),
        ("decode", 24, False),
        ("step", 1, True),
        ("decode", 16, True),
        ("decode", 12, True),
    ]
    assert all(fits for _, _, fits in told[9:])  # learned for the other three
    tiled = engine(weights, profile("sd15", vae_tiling_above=1))
    assert all(
        difference(one, other) <= 1 for one, other in zip(found, pictures(tiled, share(asked)), strict=True)
    )


def test_what_fits_is_remembered_for_this_model_operation_and_size_alone(weights: Path) -> None:
    drawing, asked = engine(weights), unguided(num_images=8)
    assert drawing.room(asked, "sd15") == 8
    with Shortage(rows=3).of(drawing, "sd15") as short:
        pictures(drawing, share(asked))
        assert drawing.room(asked, "sd15") == 2
        short.tries.clear()
        pictures(drawing, share(asked))

    assert short.told("step") == [("step", 2, True)]
    assert drawing.room(unguided(width=64), "sd15") == 8
    assert drawing.room(unguided(operation=Operation.IMAGE_TO_IMAGE), "sd15") == 8
    assert drawing.room(asked, "sdxl") == 8
    with Shortage(rows=1).of(drawing, "sd15"):
        pictures(drawing, share(asked))
    assert drawing.room(asked, "sd15") == 1


def test_where_nothing_helps_the_job_fails_and_the_engine_does_not(weights: Path) -> None:
    drawing, asked = engine(weights), unguided(num_images=2)
    touch(drawing, "sdxl")
    with Shortage(rows=0).of(drawing, "sd15") as short:
        (result,) = together(drawing, share(asked))
        with pytest.raises(GpuOutOfMemory):
            next(drawing.generate(asked, share(asked).inputs, share(asked).attempt))
        touch(drawing, "sdxl")

    assert isinstance(result, GpuOutOfMemory)
    # Whole, without sdxl, halved, tiled; the second job knows all that.
    assert [size for _, size, _ in short.tries] == [2, 2, 1, 1, 1]
    assert len(pictures(drawing, share(asked))) == 2


def test_a_job_whose_pictures_were_there_before_memory_ran_out_keeps_them(weights: Path) -> None:
    drawing = engine(weights, profile("sd15", max_batch=2))
    expected = pictures(drawing, share(unguided(num_images=2)))
    shares = [share(unguided(num_images=count)) for count in (2, 3, 1)]
    with Shortage(rows=0, after=5).of(drawing, "sd15"):
        first, *others = together(drawing, *shares)

    assert all(difference(one, other) == 0 for one, other in zip(levels(first), expected, strict=True))
    assert [type(other) for other in others] == [GpuOutOfMemory, GpuOutOfMemory]


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
def test_what_a_failed_call_held_is_gone_when_the_next_begins(weights: Path, kind: str) -> None:
    drawing = engine(weights)
    with Shortage(rows=1, error=OUT_OF_MEMORY[kind]).of(drawing, "sd15") as short:
        pictures(drawing, share(unguided(num_images=4)))

    assert short.outlived == [False, False]


def test_an_error_that_is_not_of_memory_is_passed_on_and_teaches_nothing(weights: Path) -> None:
    drawing, asked = engine(weights), unguided(num_images=4)
    touch(drawing, "sdxl")
    shapes = RuntimeError("mat1 and mat2 shapes cannot be multiplied (77x32 and 64x32)")
    with Shortage(rows=0, error=lambda: shapes).of(drawing, "sd15"), pytest.raises(RuntimeError) as caught:
        together(drawing, share(asked))

    assert caught.value is shapes
    assert drawing.room(asked, "sd15") == 8
    assert drawing.warm_models() == ["sd15", "sdxl"]
    assert len(pictures(drawing, share(asked))) == 4


@contextmanager
def no_room_for_a_unet(
    drawing: Diffusers, *, beside: int, error: Callable[[], Exception] = OUT_OF_MEMORY["a GPU's"]
) -> Iterator[list[int]]:
    """Have memory run out while a UNet is loaded beside more than so many models; writes down how many."""
    tries: list[int] = []
    unfinished: list[weakref.ref[Any]] = []

    def hook(module: Any, name: str, _layer: Any) -> None:
        if isinstance(module, UNet2DConditionModel) and name == "conv_in":
            assert not [one for one in unfinished if one() is not None]  # what was loaded in vain is gone
            tries.append(len(drawing.warm_models()))
            if tries[-1] > beside:
                unfinished.append(weakref.ref(module))
                raise error()

    registered = register_module_module_registration_hook(hook)
    try:
        yield tries
    finally:
        registered.remove()


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
def test_where_a_model_does_not_fit_beside_others_they_go(weights: Path, kind: str) -> None:
    drawing = engine(weights)
    touch(drawing, "schnell", "dev")
    with no_room_for_a_unet(drawing, beside=0, error=OUT_OF_MEMORY[kind]) as tries:
        touch(drawing, "sd15")

    assert tries == [2, 0]
    assert drawing.warm_models() == ["sd15"]


@pytest.mark.parametrize("others", [(), ("schnell",), ("dev",)])
def test_a_model_that_does_not_fit_alone_is_unavailable(weights: Path, others: tuple[str, ...]) -> None:
    drawing = engine(weights, profile("sd15"), profile("schnell"), profile("dev", pinned=True))
    touch(drawing, *others)
    with no_room_for_a_unet(drawing, beside=-1) as tries:
        with pytest.raises(ModelUnavailable, match="profile sd15 does not fit into the memory of cpu"):
            touch(drawing, "sd15")
        touch(drawing, "schnell")

    assert tries == {(): [0], ("schnell",): [1, 0], ("dev",): [1]}[others]
    touch(drawing, "sd15")
    assert drawing.warm_models()[:2] == ["sd15", "schnell"]


def test_a_model_that_cannot_draw_once_is_not_warm_though_it_is_loaded(weights: Path) -> None:
    drawing = engine(weights)
    with Shortage(rows=0).of(drawing, "sd15"), pytest.raises(GpuOutOfMemory):
        drawing.warm("sd15")

    drawing.warm("sd15")
    assert drawing.warm_models() == ["sd15"]


def test_what_was_loaded_of_a_broken_model_is_gone_though_its_error_is_kept(
    weights: Path, tmp_path: Path
) -> None:
    shutil.copytree(weights / "sd15", tmp_path / "sd15")
    (tmp_path / "sd15/tokenizer/tokenizer.json").unlink()  # what is looked at last
    loaded: list[weakref.ref[Any]] = []

    def hook(module: Any, name: str, _layer: Any) -> None:
        if isinstance(module, UNet2DConditionModel) and name == "conv_in":
            loaded.append(weakref.ref(module))

    registered = register_module_module_registration_hook(hook)
    try:
        with pytest.raises(ModelUnavailable) as caught:
            touch(engine(tmp_path), "sd15")
    finally:
        registered.remove()

    assert "tokenizer" in caught.value.message
    assert [one() for one in loaded] == [None]
