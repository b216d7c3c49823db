"""What every provider that draws promises, see workers/providers/base.py; each runs through all of it.

What the one that transforms given images promises is in test_transforms.py.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.domain.spec import MAX_SEED, JobSpec, Operation, StoredImage
from app.errors import CancelRequested
from workers.providers.base import Attempt, Inputs, Picture, Provider
from workers.providers.sketch import Sketch

DRAWINGS = tuple(operation for operation in Operation if not operation.transforms)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A provider, and how to ask it for something small.

    Attributes:
        trained: whether it draws what it was asked for; the tiny models' weights are random.
    """

    make: Callable[[Path], Provider]
    """Takes the folder of the tiny models, which only our own engine needs."""
    model: str
    width: int = 96
    height: int = 64
    steps: int = 4
    trained: bool = True
    operations: frozenset[Operation] = field(default_factory=lambda: frozenset(DRAWINGS))


def engine(weights: Path) -> Provider:
    from tests.engine import studio  # noqa: PLC0415 - it needs the extra gpu

    return studio.engine(weights)


CANDIDATES = {"sketch": Candidate(make=lambda _: Sketch(), model="sketch")} | {
    name: Candidate(make=engine, model=name, trained=False) for name in ("sd15", "sdxl", "schnell")
}


@pytest.fixture(params=CANDIDATES, scope="module")
def candidate(request: pytest.FixtureRequest) -> Candidate:
    return CANDIDATES[request.param]


@pytest.fixture(scope="module")
def folder(candidate: Candidate, request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue("weights") if candidate.make is engine else Path()


@pytest.fixture(scope="module")
def provider(candidate: Candidate, folder: Path) -> Provider:
    return candidate.make(folder)


class Notebook:
    """An honest runner's side of an attempt: it writes down what it hears, and may end at the n-th check."""

    def __init__(self, model: str, *, ends_at_check: int | None = None) -> None:
        self.model = model
        self.checks = 0
        self.ends_at_check = ends_at_check
        self.progress: list[float] = []
        self.checks_at_progress: list[int] = []

    def attempt(self) -> Attempt:
        return Attempt(check=self._check, progress=self._note, model=self.model)

    def _check(self) -> None:
        self.checks += 1
        if self.checks == self.ends_at_check:
            raise CancelRequested

    def _note(self, share: float) -> None:
        self.progress.append(share)
        self.checks_at_progress.append(self.checks)


STORED = {"key": "inputs/x", "sha256": "0" * 64, "width": 96, "height": 64}


def spec_for(
    candidate: Candidate, operation: Operation = Operation.TEXT_TO_IMAGE, **changes: object
) -> JobSpec:
    if operation not in candidate.operations:
        pytest.skip(f"this provider does not offer {operation}")
    given = StoredImage.model_validate(STORED)
    fields = {
        "operation": operation,
        "model": candidate.model,
        "prompt": "misty mountains at dawn",
        "width": candidate.width,
        "height": candidate.height,
        "num_inference_steps": candidate.steps,
        "guidance_scale": 7.5,
        "seed": 11,
        "image": None if operation is Operation.TEXT_TO_IMAGE else given,
        "mask_image": given if operation is Operation.INPAINT else None,
    }
    return JobSpec.model_validate(fields | changes)


def photo(candidate: Candidate) -> Image.Image:
    """Give something with edges, colours and grain, as people upload it."""
    x, y = np.meshgrid(np.linspace(0, 1, candidate.width), np.linspace(0, 1, candidate.height))
    grain = np.random.default_rng(3).normal(0, 6, (candidate.height, candidate.width))
    bands = (200 * x + grain, 255 * (y > 0.5) * x + grain, 120 + 90 * np.sin(9 * y) + grain)
    return Image.fromarray(np.clip(np.stack(bands, axis=-1), 0, 255).astype(np.uint8))


def hole(candidate: Candidate) -> Image.Image:
    """Give a mask with one square hole and one single pixel apart."""
    mask = Image.new("L", (candidate.width, candidate.height), 0)
    mask.paste(
        255, (candidate.width // 4, candidate.height // 4, candidate.width // 2, candidate.height // 2)
    )
    mask.putpixel((candidate.width - 3, candidate.height - 3), 255)
    return mask


def inputs_for(candidate: Candidate, spec: JobSpec) -> Inputs:
    return Inputs(
        image=photo(candidate) if spec.image else None,
        mask_image=hole(candidate) if spec.mask_image else None,
    )


def drawn(
    candidate: Candidate, provider: Provider, spec: JobSpec, notes: Notebook | None = None
) -> list[Picture]:
    return list(
        provider.generate(spec, inputs_for(candidate, spec), (notes or Notebook(candidate.model)).attempt())
    )


def one(candidate: Candidate, provider: Provider, spec: JobSpec) -> np.ndarray:
    (picture,) = drawn(candidate, provider, spec)
    return np.asarray(picture.image.convert("RGB"), np.int16)


@pytest.mark.parametrize("operation", DRAWINGS)
def test_pictures_come_in_the_asked_number_order_seeds_size_and_mode(
    candidate: Candidate, provider: Provider, operation: Operation
) -> None:
    spec = spec_for(candidate, operation, num_images=3, seed=MAX_SEED)
    pictures = drawn(candidate, provider, spec)
    assert [picture.seed for picture in pictures] == [MAX_SEED, 0, 1]
    for picture in pictures:
        assert picture.image.size == (candidate.width, candidate.height)
        assert picture.image.mode in {"RGB", "RGBA"}
        assert all(isinstance(text, str) for item in picture.notes.items() for text in item)


@pytest.mark.parametrize("operation", DRAWINGS)
def test_the_same_wish_gives_the_same_bits(
    candidate: Candidate, provider: Provider, folder: Path, operation: Operation
) -> None:
    spec = spec_for(candidate, operation, strength=0.6)
    assert np.array_equal(one(candidate, provider, spec), one(candidate, candidate.make(folder), spec))


@pytest.mark.parametrize("operation", DRAWINGS)
def test_another_seed_gives_another_picture(
    candidate: Candidate, provider: Provider, operation: Operation
) -> None:
    several = [one(candidate, provider, spec_for(candidate, operation, seed=seed)) for seed in (1, 2, 3)]
    free = np.asarray(hole(candidate)) > 0 if operation is Operation.INPAINT else slice(None)
    for first, second in ((0, 1), (1, 2), (0, 2)):
        assert np.abs(several[first] - several[second])[free].mean() > 1


def test_another_prompt_gives_another_picture(candidate: Candidate, provider: Provider) -> None:
    several = [
        one(candidate, provider, spec_for(candidate, prompt=prompt)) for prompt in ("a red cat", "a blue sea")
    ]
    assert np.abs(several[0] - several[1]).mean() > (1 if candidate.trained else 0.2)


@pytest.mark.parametrize("operation", DRAWINGS)
def test_each_picture_of_a_batch_equals_a_single_run_with_its_seed(
    candidate: Candidate, provider: Provider, operation: Operation
) -> None:
    spec = spec_for(candidate, operation, num_images=3)
    for index, picture in enumerate(drawn(candidate, provider, spec)):
        alone = one(
            candidate, provider, spec.model_copy(update={"num_images": 1, "seed": spec.seed_of(index)})
        )
        assert np.array_equal(np.asarray(picture.image.convert("RGB")), alone)


def test_a_picture_is_yielded_before_the_next_is_begun(candidate: Candidate, provider: Provider) -> None:
    notes, spec = Notebook(candidate.model), spec_for(candidate, num_images=2)
    pictures = provider.generate(spec, Inputs(), notes.attempt())
    next(pictures)
    assert notes.progress[-1] <= 0.5
    next(pictures)
    assert notes.progress[-1] == 1


def test_strength_zero_gives_the_input_back(candidate: Candidate, provider: Provider) -> None:
    spec = spec_for(candidate, Operation.IMAGE_TO_IMAGE, strength=0.0)
    assert np.array_equal(one(candidate, provider, spec), np.asarray(photo(candidate)))


def test_more_strength_makes_more_difference(candidate: Candidate, provider: Provider) -> None:
    if not candidate.trained:
        pytest.skip("random weights make noise of any input; test_silent_traps.py looks at where it begins")
    given = np.asarray(photo(candidate), np.int16)
    differences = [
        np.abs(
            one(candidate, provider, spec_for(candidate, Operation.IMAGE_TO_IMAGE, strength=strength)) - given
        ).mean()
        for strength in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    ]
    assert all(less < more for less, more in pairwise(differences)), differences


def test_inpaint_keeps_every_pixel_outside_the_mask_and_changes_those_inside(
    candidate: Candidate, provider: Provider
) -> None:
    result = one(candidate, provider, spec_for(candidate, Operation.INPAINT))
    given, mask = np.asarray(photo(candidate), np.int16), np.asarray(hole(candidate))
    assert np.array_equal(result[mask == 0], given[mask == 0])
    assert np.abs(result[mask == 255] - given[mask == 255]).mean() > 3


@pytest.mark.parametrize("level", [0, 255])
def test_inpaint_takes_a_mask_of_one_level(candidate: Candidate, provider: Provider, level: int) -> None:
    spec = spec_for(candidate, Operation.INPAINT)
    flat = Image.new("L", (candidate.width, candidate.height), level)
    inputs = Inputs(image=photo(candidate), mask_image=flat)
    (picture,) = provider.generate(spec, inputs, Notebook(candidate.model).attempt())
    assert np.array_equal(np.asarray(picture.image.convert("RGB")), np.asarray(photo(candidate))) is (
        level == 0
    )


def test_the_inputs_are_left_as_they_were(candidate: Candidate, provider: Provider) -> None:
    spec = spec_for(candidate, Operation.INPAINT)
    inputs = inputs_for(candidate, spec)
    list(provider.generate(spec, inputs, Notebook(candidate.model).attempt()))
    assert inputs.image is not None
    assert inputs.mask_image is not None
    assert inputs.image.tobytes() == photo(candidate).tobytes()
    assert inputs.mask_image.tobytes() == hole(candidate).tobytes()


@pytest.mark.parametrize("operation", DRAWINGS)
def test_progress_never_falls_and_ends_at_one(
    candidate: Candidate, provider: Provider, operation: Operation
) -> None:
    notes = Notebook(candidate.model)
    drawn(candidate, provider, spec_for(candidate, operation, num_images=2), notes)
    assert notes.progress == sorted(notes.progress)
    assert notes.progress[0] >= 0
    assert notes.progress[-1] == 1


@pytest.mark.parametrize("steps", [1, 4, 37])
def test_an_attempt_is_checked_at_least_once_per_step(
    candidate: Candidate, provider: Provider, steps: int
) -> None:
    notes = Notebook(candidate.model)
    drawn(candidate, provider, spec_for(candidate, num_images=2, num_inference_steps=steps), notes)
    assert notes.checks >= 2 * steps


def test_an_ended_attempt_is_obeyed_at_that_very_check(candidate: Candidate, provider: Provider) -> None:
    whole, spec = Notebook(candidate.model), spec_for(candidate, num_images=2)
    drawn(candidate, provider, spec, whole)
    for ends_at_check in range(1, whole.checks + 1):
        notes = Notebook(candidate.model, ends_at_check=ends_at_check)
        with pytest.raises(CancelRequested):
            drawn(candidate, provider, spec, notes)
        assert notes.checks == ends_at_check
        assert all(checks < ends_at_check for checks in notes.checks_at_progress)


def test_an_ended_attempt_does_no_harm_to_the_next(candidate: Candidate, provider: Provider) -> None:
    spec = spec_for(candidate)
    before = one(candidate, provider, spec)
    with pytest.raises(CancelRequested):
        drawn(candidate, provider, spec, Notebook(candidate.model, ends_at_check=3))
    assert np.array_equal(one(candidate, provider, spec), before)


def test_two_threads_on_one_instance_draw_what_one_draws(candidate: Candidate, provider: Provider) -> None:
    specs = [spec_for(candidate, seed=seed, num_images=2) for seed in (1, 2)]
    serial = [[picture.image.tobytes() for picture in drawn(candidate, provider, spec)] for spec in specs]
    found: list[list[bytes]] = [[], []]
    together = threading.Barrier(2)

    def work(index: int) -> None:
        together.wait(timeout=30)
        found[index] = [picture.image.tobytes() for picture in drawn(candidate, provider, specs[index])]

    threads = [threading.Thread(target=work, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert found == serial
