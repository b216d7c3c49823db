"""The device: who has it, and that nothing is drawn after it broke."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import structlog

pytest.importorskip("torch", reason="the extra gpu is not installed")

import torch
from diffusers import UNet2DConditionModel
from torch.nn.modules.module import (
    register_module_forward_pre_hook,
    register_module_module_registration_hook,
)

from app.errors import CancelRequested, DeviceBroken, ModelUnavailable, ProviderRefused, SetupError
from tests.engine.studio import (
    Diary,
    difference,
    engine,
    model_of,
    network_runs,
    pictures,
    profile,
    share,
    spec,
    together,
)
from workers.providers.base import Attempt
from workers.providers.diffusers import Device, Diffusers

PATIENCE = 30
"""Seconds after which a test gives up waiting for another thread."""
ASSERTED = (
    "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported at some "
    "other API call, so the stacktrace below might be incorrect."
)
FAULTS: dict[str, Callable[[], Exception]] = {
    "of its own class": lambda: torch.AcceleratorError(
        "CUDA error: an illegal memory access was encountered"
    ),
    "by its words": lambda: RuntimeError(ASSERTED),
}


@pytest.fixture(scope="module", autouse=True)
def _unrendered() -> Iterator[None]:
    """Keep tracebacks from being rendered: where nobody has set up logging, it takes seconds for each."""
    with structlog.testing.capture_logs():
        yield


@contextmanager
def failing(network: Any, error: Callable[[], Exception]) -> Iterator[None]:
    """Have each run of a network fail."""

    def fail(_network: Any, _args: tuple[Any, ...]) -> None:
        raise error()

    hook = network.register_forward_pre_hook(fail)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def failing_to_load(error: Callable[[], Exception]) -> Iterator[None]:
    """Have each UNet fail while it is made."""

    def fail(module: Any, name: str, _layer: Any) -> None:
        if isinstance(module, UNet2DConditionModel) and name == "conv_in":
            raise error()

    hook = register_module_module_registration_hook(fail)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def all_networks() -> Iterator[list[int]]:
    """Write down the rows of each run of any UNet."""
    runs: list[int] = []

    def note(module: Any, args: tuple[Any, ...]) -> None:
        if isinstance(module, UNet2DConditionModel):
            runs.append(len(args[0]))

    hook = register_module_forward_pre_hook(note)
    try:
        yield runs
    finally:
        hook.remove()


def broken(drawing: Diffusers, model: str = "sd15") -> str:
    """Give why an engine says that its device is broken, when asked in each way there is."""
    one = share(spec(model))
    with pytest.raises(DeviceBroken) as caught:
        together(drawing, one, share(spec(model, seed=5)))
    with pytest.raises(DeviceBroken):
        next(drawing.generate(one.spec, one.inputs, one.attempt))
    with pytest.raises(DeviceBroken):
        drawing.warm(model)
    return caught.value.message


@pytest.mark.parametrize("kind", FAULTS)
def test_after_a_fault_of_the_device_nothing_is_drawn_any_more(weights: Path, kind: str) -> None:
    told: list[str] = []
    drawing = engine(weights, on_broken=told.append)
    pictures(drawing, share(spec("sdxl")))
    network = model_of(drawing, "sd15").view(spec("sd15").operation).unet
    with failing(network, FAULTS[kind]):
        assert "CUDA error" in broken(drawing)

    assert len(told) == 1
    assert str(FAULTS[kind]()) in told[0]
    with network_runs(drawing, "sd15") as runs, network_runs(drawing, "sdxl") as others:
        assert "earlier call" in broken(drawing)
        assert "earlier call" in broken(drawing, "sdxl")
    assert (runs, others) == ([], [])
    assert len(told) == 1


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("warm", [True, False])
def test_a_fault_while_loading_is_one_of_the_device_not_of_the_model(
    weights: Path,
    kind: str,
    warm: bool,  # noqa: FBT001 - a parameter
) -> None:
    told: list[str] = []
    drawing = engine(weights, on_broken=told.append)
    with failing_to_load(FAULTS[kind]), pytest.raises(DeviceBroken, match="CUDA error"):
        drawing.warm("sd15") if warm else together(drawing, share(spec("sd15")))

    assert len(told) == 1
    assert drawing.warm_models() == []
    with pytest.raises(DeviceBroken, match="earlier call"):
        together(drawing, share(spec("schnell")))


def test_a_fault_while_warming_up_is_one_of_the_device(weights: Path) -> None:
    told: list[str] = []
    drawing = engine(weights, on_broken=told.append)
    network = model_of(drawing, "sd15").view(spec("sd15").operation).unet
    with failing(network, FAULTS["of its own class"]), pytest.raises(DeviceBroken):
        drawing.warm("sd15")

    assert len(told) == 1


def test_the_turn_is_free_after_a_fault(weights: Path) -> None:
    drawing = engine(weights)
    network = model_of(drawing, "sd15").view(spec("sd15").operation).unet
    with failing(network, FAULTS["by its words"]):
        broken(drawing)

    for _ in range(2):
        with pytest.raises(DeviceBroken) as caught, drawing.turn(Diary("sd15").attempt()):
            pytest.fail("nothing is drawn on a broken device")
        assert not caught.value.charged


def test_a_device_that_cannot_be_entered_is_broken(weights: Path) -> None:
    told: list[str] = []
    drawing = engine(weights, on_broken=told.append)
    device: Any = drawing._device

    def enter() -> None:
        raise torch.AcceleratorError("CUDA error: CUDA-capable device(s) is/are busy or unavailable")

    device.enter = enter
    with pytest.raises(DeviceBroken, match="busy or unavailable"):
        together(drawing, share(spec("sd15")))

    assert len(told) == 1
    with pytest.raises(DeviceBroken, match="earlier call"):
        together(drawing, share(spec("sd15")))


def test_an_error_of_a_models_own_breaks_nothing(weights: Path) -> None:
    now = [0.0]
    drawing = engine(weights, on_broken=pytest.fail, clock=lambda: now[0])
    network = model_of(drawing, "sd15").view(spec("sd15").operation).unet
    halves = RuntimeError("expected scalar type Float but found Half")
    with failing(network, lambda: halves), pytest.raises(RuntimeError, match="scalar type"):
        together(drawing, share(spec("sd15")))
    sizes = RuntimeError("size mismatch")
    with failing_to_load(lambda: sizes), pytest.raises(ModelUnavailable, match="size mismatch"):
        together(drawing, share(spec("sdxl")))

    now[0] = 60
    assert len(pictures(drawing, share(spec("sd15")))) == 1
    assert len(pictures(drawing, share(spec("sdxl")))) == 1


def test_a_gpu_without_a_number_is_the_first_one() -> None:
    device = Device.__new__(Device)
    with suppress(SetupError):  # where there is none at all, which is seen after it was named
        Device.__init__(device, "cuda", reserve=0, budget=None)

    assert str(device.place) == "cuda:0"


def test_a_gpu_that_is_not_there_is_named_with_its_setting() -> None:
    with pytest.raises(SetupError, match=r"DARKROOM_GPU_DEVICE is cuda:99, .* sees \d+ GPUs"):
        Device("cuda:99", reserve=0, budget=None)


def test_auto_is_the_first_gpu_or_else_the_cpu() -> None:
    device = Device("auto", reserve=0, budget=None)

    assert str(device.place) == ("cuda:0" if torch.cuda.is_available() else "cpu")
    assert device.is_cuda == torch.cuda.is_available()


def test_a_cpus_models_have_half_of_the_memory_unless_it_is_said() -> None:
    half = Device("cpu", reserve=10**15, budget=None)

    assert 10**8 < half.budget < 10**15
    assert half.used() is None
    assert Device("cpu", reserve=0, budget=123).budget == 123


def started(do: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Do something in a thread; gives it, and a list that gets what it gave or raised."""
    ended: list[object] = []

    def run() -> None:
        try:
            ended.append(do())
        except BaseException as error:
            ended.append(error)
            if not isinstance(error, Exception):
                raise

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, ended


def finished(thread: threading.Thread, ended: list[object]) -> object:
    """Wait for what a thread gave or raised."""
    thread.join(PATIENCE)
    (result,) = ended
    return result


def test_one_thread_at_a_time_has_the_device(drawing: Diffusers) -> None:
    inside: list[int] = []
    crowds: list[int] = []
    begin = threading.Barrier(4)

    def enter(number: int) -> None:
        begin.wait(PATIENCE)
        for _ in range(200):
            with drawing.turn(Diary("sd15").attempt()):
                inside.append(number)
                crowds.append(len(inside))
                inside.remove(number)

    threads = [started(lambda number=number: enter(number)) for number in range(4)]  # type: ignore[misc]  # bound now
    assert [finished(*thread) for thread in threads] == [None] * 4
    assert crowds == [1] * 800


def test_jobs_of_several_threads_get_their_own_pictures(drawing: Diffusers) -> None:
    wishes = [spec(model, seed=seed) for seed, model in enumerate(("sd15", "sdxl", "schnell", "sd15"))]
    expected = [pictures(drawing, share(wish))[0] for wish in wishes]
    threads = [started(lambda wish=wish: pictures(drawing, share(wish))[0]) for wish in wishes]  # type: ignore[misc]  # bound now
    found: list[Any] = [finished(*thread) for thread in threads]

    assert [difference(one, other) for one, other in zip(expected, found, strict=True)] == [0] * 4


def test_an_attempt_that_is_cancelled_while_it_waits_leaves(drawing: Diffusers) -> None:
    waits, cancelled = threading.Event(), threading.Event()

    def check() -> None:
        waits.set()
        if cancelled.is_set():
            raise CancelRequested

    def wait() -> None:
        with drawing.turn(Attempt(check=check, progress=lambda _share: None, model="sd15")):
            pytest.fail("it got the device that somebody else had")

    with drawing.turn(Diary("sd15").attempt()):
        thread = started(wait)
        assert waits.wait(PATIENCE)
        cancelled.set()
        assert isinstance(finished(*thread), CancelRequested)

    with drawing.turn(Diary("sd15").attempt()):
        pass


def test_the_turn_ends_however_it_ends(drawing: Diffusers) -> None:
    with pytest.raises(CancelRequested), drawing.turn(Diary("sd15").attempt()):
        raise CancelRequested

    with drawing.turn(Diary("sd15").attempt()):
        pass


@pytest.mark.parametrize(("name", "runs"), [("sd15", 3), ("sdxl", 2), ("lightning", 4)])
def test_warming_up_loads_a_model_and_draws_one_picture(weights: Path, name: str, runs: int) -> None:
    drawing = engine(weights)
    assert drawing.warm_models() == []
    with all_networks() as rows:
        drawing.warm(name)

    assert len(rows) == runs
    assert len(set(rows)) == 1
    assert drawing.warm_models() == [name]
    diary = Diary(name)
    together(drawing, share(spec(name), diary))
    assert diary.stages == ["generating"]


@pytest.mark.parametrize(("name", "rows"), [("sd15", 2), ("sdxl", 2), ("lightning", 1)])
def test_warming_up_guides_only_what_is_guided(weights: Path, name: str, rows: int) -> None:
    with all_networks() as runs:
        engine(weights).warm(name)

    assert set(runs) == {rows}


def test_warming_up_waits_for_the_device(weights: Path) -> None:
    drawing = engine(weights)
    with all_networks() as rows:
        with drawing.turn(Diary("sd15").attempt()):
            thread = started(lambda: drawing.warm("sd15"))
            (picture,) = drawing.draw_together([share(spec("sdxl"))])
            assert drawing.warm_models() == ["sdxl"]
            before = len(rows)
        assert finished(*thread) is None

    assert isinstance(picture, list)
    assert before == 4
    assert drawing.warm_models() == ["sd15", "sdxl"]


def test_what_is_not_in_the_catalogue_is_not_warmed_up(weights: Path) -> None:
    with pytest.raises(ProviderRefused, match="no profile 'nothing'"):
        engine(weights, profile("sd15")).warm("nothing")


def test_a_model_whose_files_are_missing_is_not_warm(tmp_path: Path, weights: Path) -> None:
    drawing = engine(tmp_path, profile("sd15"), profile("sdxl", source=str(weights / "sdxl")))
    with pytest.raises(ModelUnavailable, match="darkroom models pull"):
        drawing.warm("sd15")

    drawing.warm("sdxl")
    assert drawing.warm_models() == ["sdxl"]
