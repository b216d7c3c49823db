"""What `pillow` promises of transformations, see workers/providers/base.py."""

import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from app.domain.formats import ImageFormat
from app.domain.spec import MAX_SEED, JobSpec, Operation
from app.domain.transform import (
    Crop,
    Import,
    Mark,
    RemoveBackground,
    Resize,
    Rotate,
    Transform,
    Watermark,
    result_size,
)
from app.errors import CancelRequested, ProviderRefused
from tests.rows import make_spec
from tests.transforms import ONE_OF_EACH, any_transform, grain, product, spec_of
from workers import providers
from workers.providers.base import Attempt, Inputs, Picture, Provider


@pytest.fixture(scope="module")
def provider() -> Provider:
    return providers.load("pillow")


class Notebook:
    """An honest runner's side of an attempt, which may end it at the n-th check."""

    def __init__(self, *, ends_at_check: int | None = None) -> None:
        self.checks = 0
        self.progress: list[float] = []
        self.steps: list[tuple[int, int]] = []
        self._ends_at_check = ends_at_check

    def attempt(self) -> Attempt:
        return Attempt(
            check=self._check,
            progress=self.progress.append,
            step=lambda step, steps: self.steps.append((step, steps)),
        )

    def _check(self) -> None:
        self.checks += 1
        if self.checks == self._ends_at_check:
            raise CancelRequested


def inputs_for(spec: JobSpec, *, mode: str = "RGB") -> Inputs:
    image = product((64, 48)) if spec.operation is Operation.REMOVE_BACKGROUND else grain(64, 48, mode)
    marks = tuple(grain(9 + index, 7, "RGBA", seed=index) for index in range(len(spec.watermarks)))
    return Inputs(image=image, watermarks=marks)


def made(provider: Provider, spec: JobSpec, inputs: Inputs | None = None) -> Picture:
    (picture,) = provider.generate(spec, inputs or inputs_for(spec), Notebook().attempt())
    return picture


def refusal(provider: Provider, spec: JobSpec, inputs: Inputs | None = None) -> str:
    with pytest.raises(ProviderRefused) as caught:
        made(provider, spec, inputs)
    return caught.value.public_message


@pytest.mark.parametrize("transform", ONE_OF_EACH)
@pytest.mark.parametrize("output_format", ImageFormat)
def test_one_picture_comes_in_the_promised_size_with_the_specs_seed(
    provider: Provider, transform: Transform, output_format: ImageFormat
) -> None:
    spec = spec_of(transform, output_format=output_format, seed=MAX_SEED)
    picture = made(provider, spec)
    assert picture.image.size == result_size(transform, 64, 48)
    assert picture.image.mode in {"RGB", "RGBA"}
    assert picture.seed == MAX_SEED
    assert picture.notes == {"engine": "pillow"}


@settings(max_examples=60, deadline=None)
@given(data=st.data(), mode=st.sampled_from(["RGB", "RGBA"]))
def test_the_same_wish_gives_the_same_bits_and_leaves_its_inputs_alone(
    data: st.DataObject, mode: str
) -> None:
    spec = spec_of(data.draw(any_transform(64, 48)))
    inputs = inputs_for(spec, mode=mode)
    assert inputs.image is not None
    before = [each.tobytes() for each in (inputs.image, *inputs.watermarks)]
    first, second = (made(providers.load("pillow"), spec, inputs) for _ in range(2))
    assert first.image.tobytes() == second.image.tobytes()
    assert [each.tobytes() for each in (inputs.image, *inputs.watermarks)] == before


@pytest.mark.parametrize("transform", ONE_OF_EACH)
def test_an_attempt_is_checked_and_its_end_obeyed(provider: Provider, transform: Transform) -> None:
    spec = spec_of(transform)
    whole = Notebook()
    assert len(list(provider.generate(spec, inputs_for(spec), whole.attempt()))) == 1
    assert whole.checks >= 2
    assert whole.progress[-1] == 1
    assert whole.steps == [(1, 1)]
    for ends_at_check in range(1, whole.checks + 1):
        notes = Notebook(ends_at_check=ends_at_check)
        with pytest.raises(CancelRequested):
            list(provider.generate(spec, inputs_for(spec), notes.attempt()))
        assert notes.checks == ends_at_check
        assert notes.progress == []


def test_two_threads_on_one_instance_make_what_one_makes(provider: Provider) -> None:
    specs = [spec_of(transform) for transform in ONE_OF_EACH]
    serial = [made(provider, spec).image.tobytes() for spec in specs]
    found: list[list[bytes]] = [[], []]
    together = threading.Barrier(2)

    def work(index: int) -> None:
        together.wait(timeout=30)
        found[index] = [made(provider, spec).image.tobytes() for spec in specs]

    threads = [threading.Thread(target=work, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert found == [serial, serial]


def test_the_letterbox_nobody_gave_a_colour_suits_the_format_it_goes_into(provider: Provider) -> None:
    resize = Resize(width=100, height=48, fit="contain")
    for output_format, expected in (
        (ImageFormat.PNG, (0, 0, 0, 0)),
        (ImageFormat.WEBP, (0, 0, 0, 0)),
        (ImageFormat.JPEG, (0, 0, 0)),
    ):
        picture = made(provider, spec_of(resize, output_format=output_format))
        assert picture.image.getpixel((0, 0)) == expected


# Refusals


def test_a_drawing_is_refused(provider: Provider) -> None:
    assert "does not do text_to_image" in refusal(provider, make_spec(), Inputs())


def test_a_missing_image_or_watermark_is_refused(provider: Provider) -> None:
    assert "pillow changes a given image" in refusal(provider, spec_of(Import()), Inputs())
    spec = spec_of(Watermark(watermarks=(Mark(image=0),)))
    assert refusal(provider, spec, Inputs(image=grain(64, 48))) == "a watermark is missing"


# What the door lets through when a file's header says something else than its pixels.
ODD_CASES: tuple[tuple[Transform, dict[str, Any], str], ...] = (
    (Crop(x1=0, y1=0, x2=65, y2=10), {}, "x2: must be at most 64, the image's width, not 65"),
    (Resize(width=9000), {}, "width: would make the image 9,000 x 6,750"),
    (Rotate(angle=5, background_color="#0000"), {"output_format": "jpeg"}, "background_color: must be"),
    (Watermark(watermarks=(Mark(image=0, left=64),)), {}, "watermarks.0.left: must be below 64"),
    (Watermark(watermarks=(Mark(image=0, width=9000, height=9000),)), {}, "watermarks.0.width: would"),
)


@pytest.mark.parametrize(("transform", "changes", "sentence"), ODD_CASES)
def test_what_the_pixels_do_not_allow_is_refused_with_the_remedy(
    provider: Provider, transform: Transform, changes: dict[str, Any], sentence: str
) -> None:
    assert sentence in refusal(provider, spec_of(transform, **changes))


def test_a_background_that_cannot_be_removed_is_refused_rather_than_claimed(provider: Provider) -> None:
    spec = spec_of(RemoveBackground())
    assert "the background is not one flat colour" in refusal(provider, spec, Inputs(image=grain(64, 48)))
    assert "nothing stands out" in refusal(provider, spec, Inputs(image=Image.new("RGB", (64, 48))))
