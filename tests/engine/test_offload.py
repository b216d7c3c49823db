"""Models that wait in main memory: none stays on the device, and they have a budget of their own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the extra gpu is not installed")

import torch

from app.domain.spec import Operation
from app.errors import CancelRequested, DarkroomError, GpuOutOfMemory
from tests.engine.studio import Diary, engine, model_of, pictures, profile, share, spec, together
from workers.providers.diffusers import Diffusers

pytestmark = pytest.mark.usefixtures("few_objects")

NETWORKS = {"sdxl": "unet", "schnell": "transformer"}


@dataclass
class Place:
    """The device, as a model's parts come and go.

    On a CPU it is main memory by another name: `cpu:0` is what draws, `cpu` is where they wait.
    """

    now: set[str] = field(default_factory=set)
    ever: set[str] = field(default_factory=set)

    def watch(self, part: str, module: Any) -> None:
        """Follow where a part is sent to from now on."""
        place, kind = self, type(module)

        def send(module: Any, *given: Any, **named: Any) -> Any:
            where = torch.device(named["device"] if "device" in named else given[0])
            (place.now.discard if where.index is None else place.now.add)(part)
            place.ever |= place.now
            return kind.to(module, *given, **named)

        # By its class, as accelerate takes away what a module itself was given when it renews its hooks.
        module.__class__ = type(kind.__name__, (kind,), {"to": send})


def device_of(drawing: Diffusers, name: str) -> Place:
    """Give the device as a model's network and VAE use it from now on."""
    place, pipe = Place(), model_of(drawing, name).view(Operation.TEXT_TO_IMAGE)
    for part in (NETWORKS[name], "vae"):
        place.watch(part, getattr(pipe, part))
    return place


@contextmanager
def failing(drawing: Diffusers, name: str, error: Exception) -> Iterator[None]:
    """Have each run of a model's network fail at its end."""

    def fail(*_: Any) -> None:
        raise error

    pipe = model_of(drawing, name).view(Operation.TEXT_TO_IMAGE)
    hook = getattr(pipe, NETWORKS[name]).register_forward_hook(fail)
    try:
        yield
    finally:
        hook.remove()


every_operation = pytest.mark.parametrize("operation", [Operation.TEXT_TO_IMAGE, Operation.IMAGE_TO_IMAGE])
every_model = pytest.mark.parametrize("name", NETWORKS)


def waiting(weights: Path, name: str) -> Diffusers:
    return engine(weights, profile(name, offload="model"))


@every_model
@every_operation
def test_after_a_call_no_part_is_on_the_device(weights: Path, name: str, operation: Operation) -> None:
    drawing = waiting(weights, name)
    device = device_of(drawing, name)
    pictures(drawing, share(spec(name, operation)))

    assert device.ever == {NETWORKS[name], "vae"}
    assert device.now == set()


@every_model
@every_operation
def test_after_a_cancelled_call_no_part_is_on_the_device(
    weights: Path, name: str, operation: Operation
) -> None:
    drawing = waiting(weights, name)
    device = device_of(drawing, name)
    (result,) = together(drawing, share(spec(name, operation), Diary(name, ends_at=3)))

    assert isinstance(result, CancelRequested)
    assert NETWORKS[name] in device.ever
    assert device.now == set()


@every_model
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_after_a_call_that_failed_no_part_is_on_the_device(
    weights: Path, name: str, error: RuntimeError
) -> None:
    drawing = waiting(weights, name)
    device = device_of(drawing, name)
    with failing(drawing, name, error):
        found = outcome(lambda: together(drawing, share(spec(name)))[0])

    assert isinstance(found, GpuOutOfMemory) or found is error
    assert device.ever == {NETWORKS[name]}
    assert device.now == set()
    assert len(pictures(drawing, share(spec(name)))) == 1


def outcome(do: Callable[[], object]) -> object:
    """Give what something gives or raises."""
    try:
        return do()
    except (DarkroomError, RuntimeError) as error:
        return error


def touch(drawing: Diffusers, *names: str) -> None:
    """Draw with models, one after the other."""
    for name in names:
        pictures(drawing, share(spec(name, num_inference_steps=1)))


def mixed(weights: Path, *offloaded: str, **changes: Any) -> Diffusers:
    """Give an engine in which these models wait in main memory, and the others do not."""
    names = ("sd15", "sdxl", "schnell", "dev")
    made = [profile(name, offload="model" if name in offloaded else "none") for name in names]
    return engine(weights, *made, **changes)


def test_what_waits_in_main_memory_takes_none_of_the_devices(weights: Path) -> None:
    room = model_of(engine(weights), "sd15").bytes
    drawing = mixed(weights, "sdxl", "schnell", "dev", budget=room)
    touch(drawing, "sd15", "sdxl", "schnell", "dev")

    assert drawing.warm_models() == ["dev", "schnell", "sdxl", "sd15"]
    assert [model_of(drawing, name).bytes for name in ("sdxl", "schnell", "dev")] == [0, 0, 0]
    assert model_of(drawing, "sdxl").main_bytes == model_of(engine(weights), "sdxl").bytes


def test_main_memory_holds_as_many_as_it_has_room_for(weights: Path) -> None:
    sizes = {name: model_of(engine(weights), name).bytes for name in ("sdxl", "schnell", "dev")}
    headers = 200_000  # files are a little larger than what is in them
    drawing = mixed(weights, "sdxl", "schnell", "dev", main_budget=sizes["sdxl"] + sizes["schnell"] + headers)
    touch(drawing, "sd15", "sdxl", "schnell")
    assert drawing.warm_models() == ["schnell", "sdxl", "sd15"]

    touch(drawing, "dev")
    # sd15 was used longest ago, but is on the device, where there is room.
    assert drawing.warm_models() == ["dev", "schnell", "sd15"]


def test_a_model_on_the_device_makes_no_room_by_dropping_those_that_wait(weights: Path) -> None:
    drawing = mixed(weights, "sdxl", budget=1)
    touch(drawing, "sdxl", "sd15", "schnell")

    assert drawing.warm_models() == ["schnell", "sdxl"]


def test_where_the_device_runs_out_of_memory_those_that_wait_beside_it_stay(weights: Path) -> None:
    drawing = mixed(weights, "schnell", "dev")
    touch(drawing, "sd15", "schnell", "dev", "sdxl")
    with failing(drawing, "sdxl", torch.OutOfMemoryError("CUDA out of memory.")):
        (result,) = together(drawing, share(spec("sdxl")))

    assert isinstance(result, GpuOutOfMemory)
    assert drawing.warm_models() == ["sdxl", "dev", "schnell"]
