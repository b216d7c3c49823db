"""What may be asked of a transform, what comes of it, and what is refused, with the remedy."""

import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import ImageColor
from pydantic import TypeAdapter, ValidationError

from app.domain.colours import is_opaque, rgba
from app.domain.formats import ImageFormat
from app.domain.spec import JobSpec, Operation
from app.domain.transform import (
    MAX_RESULT_PIXELS,
    MAX_RESULT_SIDE,
    Blur,
    Convert,
    Crop,
    Import,
    Mark,
    Modulate,
    RemoveBackground,
    Resize,
    Rotate,
    Transform,
    Watermark,
    problems_with,
    result_format,
    result_size,
)
from tests.transforms import ONE_OF_EACH, any_transform, spec_of

JPEG, PNG, WEBP = ImageFormat.JPEG, ImageFormat.PNG, ImageFormat.WEBP
ANY: TypeAdapter[Transform] = TypeAdapter(Transform)


def found(transform: Transform, width: int = 640, height: int = 480, **more: Any) -> dict[str, str]:
    source = more.pop("source", PNG)
    problems = problems_with(transform, width, height, source, **more)
    return {problem.field: problem.message for problem in problems}


# Colours


def test_every_css_name_is_the_colour_that_pillow_knows_by_it() -> None:
    for name in ImageColor.colormap:
        assert rgba(name) == (*ImageColor.getrgb(name)[:3], 255)


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ("#f80", (255, 136, 0, 255)),
        ("#f808", (255, 136, 0, 136)),
        ("#FF8800", (255, 136, 0, 255)),
        ("#ff880000", (255, 136, 0, 0)),
        (" Transparent ", (0, 0, 0, 0)),
    ],
)
def test_hexadecimal_colours_are_read_short_and_long(
    colour: str, expected: tuple[int, int, int, int]
) -> None:
    assert rgba(colour) == expected
    assert is_opaque(colour) is (expected[3] == 255)


@pytest.mark.parametrize("colour", ["", "#12", "#12345", "#ggg", "rgb(1,2,3)", "#1234567", "٣٣٣"])
def test_what_is_no_colour_is_refused_with_what_would_be_one(colour: str) -> None:
    with pytest.raises(ValidationError, match="must be a CSS colour name, #rgb"):
        Resize(letterbox_color=colour)


def test_a_misspelt_colour_is_told_the_nearest_name() -> None:
    with pytest.raises(ValidationError, match="did you mean green"):
        Rotate(angle=1, background_color="gren")


# What may be asked


@pytest.mark.parametrize(
    "asked",
    [
        {"operation": "resize", "width": 0},
        {"operation": "resize", "height": 10_001},
        {"operation": "resize", "fit": "inside"},
        {"operation": "resize", "position": "top_left"},
        {"operation": "crop", "x1": 0, "y1": 0, "x2": 1},
        {"operation": "crop", "x1": 0.5, "y1": 0, "x2": 1, "y2": 1},
        {"operation": "crop", "x1": -1, "y1": 0, "x2": 1, "y2": 1},
        {"operation": "rotate"},
        {"operation": "rotate", "angle": math.nan},
        {"operation": "rotate", "angle": math.inf},
        {"operation": "rotate", "angle": 1, "unit": "turns"},
        {"operation": "mirror"},
        {"operation": "mirror", "mode": "diagonal"},
        {"operation": "convert", "format": "gif"},
        {"operation": "convert", "format": "png", "quality": 0},
        {"operation": "convert", "format": "png", "quality": 101},
        {"operation": "blur", "sigma": 0.9},
        {"operation": "blur", "sigma": 1000.1},
        {"operation": "modulate", "brightness": 100.5},
        {"operation": "modulate", "exposure": -101},
        {"operation": "modulate", "hue": 120.5},
        {"operation": "watermark", "watermarks": []},
        {"operation": "watermark", "watermarks": [{"image": 0}] * 6},
        {"operation": "watermark", "watermarks": [{"image": 5}]},
        {"operation": "import", "width": 3},
        {"operation": "upscale"},
    ],
)
def test_what_is_out_of_bounds_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ANY.validate_python(asked)


def test_the_defaults_are_the_contracts() -> None:
    assert ANY.validate_python({"operation": "resize"}) == Resize(
        width=None, height=None, fit="fill", position="center", letterbox_color=None
    )
    assert Rotate(angle=5).background_color == "#000000"
    assert Rotate(angle=5).unit == "degrees"
    assert Blur().sigma == 20
    assert Mark(image=0).repetition_mode == "no_repeat"
    assert (Mark(image=0).left, Mark(image=0).top) == (0, 0)
    assert set(Modulate().model_dump(exclude={"operation"}).values()) == {0}


def test_jpg_is_jpeg() -> None:
    assert Convert(format="jpg") == Convert(format="jpeg")


@settings(deadline=None)
@given(transform=any_transform(64, 48))
def test_a_transform_survives_the_row_it_is_stored_in(transform: Transform) -> None:
    assert ANY.validate_json(ANY.dump_json(transform)) == transform


# Angles


@pytest.mark.parametrize(
    ("angle", "unit", "degrees"),
    [
        (0, "degrees", 0),
        (-90, "degrees", 270),
        (450, "degrees", 90),
        (360_000_000_000, "degrees", 0),
        (30, "degrees", 30),
        (-30, "degrees", 330),
        (89.9, "degrees", 89.9),
        (math.pi / 2, "radians", 90),
        (3.1416, "radians", 180),
        (-1.5707963, "radians", 270),
        (2 * math.pi, "radians", 0),
        (-1e-12, "degrees", 0),
        (359.9999, "degrees", 0),
    ],
)
def test_an_angle_is_a_turn_below_360_degrees(angle: float, unit: Any, degrees: float) -> None:
    assert Rotate(angle=angle, unit=unit).degrees == pytest.approx(degrees, abs=1e-9)


@settings(deadline=None)
@given(angle=st.floats(allow_nan=False, allow_infinity=False), unit=st.sampled_from(["degrees", "radians"]))
@example(angle=1.7e308, unit="radians")
def test_any_finite_angle_is_a_turn(angle: float, unit: Any) -> None:
    rotate = Rotate(angle=angle, unit=unit)
    assert 0 <= rotate.degrees < 360
    assert rotate.quarters in {None, 0, 1, 2, 3}
    width, height = result_size(rotate, 30, 20)
    assert min(width, height) >= 20
    assert max(width, height) <= 37


# Sizes and formats


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (Resize(), (640, 480)),
        (Resize(width=320), (320, 240)),
        (Resize(height=241), (321, 241)),
        (Resize(width=1), (1, 1)),
        (Resize(width=100, height=7, fit="contain"), (100, 7)),
        (Crop(x1=10, y1=20, x2=30, y2=480), (20, 460)),
        (Rotate(angle=90), (480, 640)),
        (Rotate(angle=180), (640, 480)),
        (Rotate(angle=-math.pi / 2, unit="radians"), (480, 640)),
        (Rotate(angle=45), (792, 792)),
        (Rotate(angle=30), (795, 736)),
        (Rotate(angle=40), (799, 780)),
        (Rotate(angle=-140), (799, 780)),
        (RemoveBackground(), (640, 480)),
        (Blur(), (640, 480)),
    ],
)
def test_the_size_of_a_result_is_known_beforehand(transform: Transform, expected: tuple[int, int]) -> None:
    assert result_size(transform, 640, 480) == expected


def test_a_result_keeps_its_format_unless_the_transform_says_another() -> None:
    for source in ImageFormat:
        assert result_format(Blur(), source) is source
        assert result_format(RemoveBackground(), source) is PNG
        assert result_format(Convert(format="jpg"), source) is JPEG


# Problems that only the image can tell


@pytest.mark.parametrize("transform", ONE_OF_EACH)
def test_an_ordinary_wish_has_no_problem(transform: Transform) -> None:
    for source in ImageFormat:
        assert found(transform, source=source, watermarks=[(10, 10)]) == {}


@pytest.mark.parametrize(
    ("box", "field", "remedy"),
    [
        ((640, 0, 700, 10), "x1", "must be below 640, the image's width, not 640"),
        ((0, 480, 10, 481), "y1", "must be below 480, the image's height, not 480"),
        ((0, 0, 641, 10), "x2", "must be at most 640, the image's width, not 641"),
        ((0, 0, 10, 481), "y2", "must be at most 480, the image's height, not 481"),
        ((10, 0, 10, 10), "x2", "must be above x1, which is 10, not 10"),
        ((0, 20, 10, 10), "y2", "must be above y1, which is 20, not 10"),
    ],
)
def test_a_crop_outside_the_image_or_empty_is_refused(
    box: tuple[int, int, int, int], field: str, remedy: str
) -> None:
    problems = found(Crop(x1=box[0], y1=box[1], x2=box[2], y2=box[3]))
    assert problems.keys() == {field}
    assert remedy in problems[field]


def test_the_whole_image_may_be_cropped() -> None:
    assert found(Crop(x1=0, y1=0, x2=640, y2=480)) == {}


@pytest.mark.parametrize(
    ("transform", "size", "field", "remedy"),
    [
        (Resize(width=5000, height=5000), (64, 48), "width", "25,000,000 pixels, and at most 16,777,216"),
        (Resize(width=3000), (10, 100), "width", "3,000 x 30,000 pixels, and no side may be over 10,000"),
        (Resize(height=3000), (100, 10), "height", "name a smaller size"),
        (Rotate(angle=45), (4096, 4096), "angle", "resize the image first, or turn it by a multiple of 90"),
        (Rotate(angle=10), (9990, 1000), "angle", "no side may be over 10,000"),
    ],
)
def test_a_result_that_would_be_too_large_is_refused(
    transform: Transform, size: tuple[int, int], field: str, remedy: str
) -> None:
    problems = found(transform, *size)
    assert problems.keys() == {field}
    assert remedy in problems[field]


def test_the_largest_results_are_allowed() -> None:
    assert found(Resize(width=4096, height=4096)) == {}
    assert found(Resize(width=10_000, height=1677)) == {}
    assert found(Rotate(angle=90), 4096, 4096) == {}


def test_a_jpeg_gets_no_transparent_letterbox_or_ground() -> None:
    for colour in ("transparent", "#00000080"):
        resize = Resize(width=10, height=10, fit="contain", letterbox_color=colour)
        rotate = Rotate(angle=3, background_color=colour)
        assert "convert the image to png or webp first" in found(resize, source=JPEG)["letterbox_color"]
        assert "must be an opaque colour" in found(rotate, source=JPEG)["background_color"]
        for source in (PNG, WEBP):
            assert found(resize, source=source) == found(rotate, source=source) == {}


def test_a_colour_that_is_not_used_is_no_problem() -> None:
    assert found(Resize(width=10, height=10, letterbox_color="transparent"), source=JPEG) == {}
    assert found(Rotate(angle=90, background_color="transparent"), source=JPEG) == {}


def test_a_watermark_must_lie_on_the_image() -> None:
    marks = (
        Mark(image=0, left=640),
        Mark(image=0, top=480),
        Mark(image=0, left=-20),
        Mark(image=0, top=-7, height=7),
        Mark(image=0, left=639, top=479),
        Mark(image=0, left=700, repetition_mode="repeat_x"),
        Mark(image=0, left=-19, top=-9),
    )
    problems: dict[tuple[int, int], dict[str, str]] = {}
    for mark in marks:
        problems[mark.left, mark.top] = found(Watermark(watermarks=(mark,)), watermarks=[(20, 10)])
    assert "must be below 640, the image's width" in problems[640, 0]["watermarks.0.left"]
    assert "must be below 480, the image's height" in problems[0, 480]["watermarks.0.top"]
    assert "must be above -20" in problems[-20, 0]["watermarks.0.left"]
    assert "must be above -7" in problems[0, -7]["watermarks.0.top"]
    assert problems[639, 479] == problems[700, 0] == problems[-19, -9] == {}


def test_a_watermark_stretched_beyond_all_measure_is_refused_under_its_own_name() -> None:
    marks = (Mark(image=0), Mark(image=1, width=10_000))
    problems = found(Watermark(watermarks=marks), watermarks=[(10, 10), (100, 8000)])
    assert problems.keys() == {"watermarks.1.width"}
    assert "name a smaller width and height" in problems["watermarks.1.width"]


@settings(deadline=None)
@given(transform=any_transform(64, 48), width=st.integers(1, 5000), height=st.integers(1, 3000))
def test_what_has_no_problem_stays_within_the_limits(transform: Transform, width: int, height: int) -> None:
    if not found(transform, width, height):
        across, down = result_size(transform, width, height)
        assert min(across, down) >= 1
        if (across, down) != (width, height):
            assert max(across, down) <= MAX_RESULT_SIDE
            assert across * down <= MAX_RESULT_PIXELS


# Specs


@pytest.mark.parametrize("transform", ONE_OF_EACH)
def test_a_spec_with_a_transform_survives_its_row(transform: Transform) -> None:
    spec = spec_of(transform, quality=70, test=True)
    assert spec.operation.transforms
    assert spec.prompt == ""
    assert JobSpec.model_validate_json(spec.model_dump_json(exclude_none=True)) == spec


def test_there_is_a_transform_for_each_operation_without_a_model() -> None:
    assert {transform.operation for transform in ONE_OF_EACH} == {
        operation.value for operation in Operation if operation.transforms
    }


def test_a_row_of_the_first_version_is_still_a_spec() -> None:
    row = (
        '{"spec_version": 1, "operation": "image_to_image", "model": "sketch", "prompt": "a hill", '
        '"negative_prompt": "", "width": 64, "height": 48, "num_inference_steps": 12, "guidance_scale": 7.5, '
        '"strength": 0.7, "seed": 9, "num_images": 2, "output_format": "png", "image": {"key": "inputs/x", '
        f'"sha256": "{"0" * 64}", "width": 64, "height": 48}}, "mask_image": null}}'
    )
    spec = JobSpec.model_validate_json(row)
    assert not spec.operation.transforms
    assert (spec.transform, spec.watermarks, spec.quality, spec.test) == (None, (), None, False)
    assert (spec.safety_checker, spec.safety_checker_type) == (False, "black")


@pytest.mark.parametrize(
    "changes",
    [
        {"transform": None},
        {"operation": "rotate"},
        {"operation": "text_to_image", "prompt": "a hill"},
        {"image": None},
        {"mask_image": spec_of(Import()).image},
        {"num_images": 2},
        {"watermarks": (spec_of(Import()).image,)},
        {"quality": 101},
        {"safety_checker_type": "mosaic"},
    ],
)
def test_a_spec_whose_parts_do_not_go_together_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        JobSpec.model_validate({**dict(spec_of(Import())), **changes})


def test_a_spec_needs_exactly_the_watermarks_it_lays_on() -> None:
    stored = spec_of(Import()).image
    marks = Watermark(watermarks=(Mark(image=0), Mark(image=1), Mark(image=0)))
    assert spec_of(marks).watermarks == (stored, stored)
    for number in (0, 1, 3):
        with pytest.raises(ValidationError, match="needs the watermarks it lays on"):
            spec_of(marks, watermarks=(stored,) * number)


def test_a_drawing_needs_a_prompt() -> None:
    fields = {"operation": "text_to_image", "model": "sketch", "width": 8, "height": 8, "seed": 1}
    with pytest.raises(ValidationError, match="needs a prompt"):
        JobSpec.model_validate(fields)
    assert JobSpec.model_validate(fields | {"prompt": "a hill"}).prompt == "a hill"


def test_a_conversions_quality_comes_before_the_specs() -> None:
    assert spec_of(Convert(format="jpg", quality=40), quality=70).encoding_quality == 40
    assert spec_of(Convert(format="jpg"), quality=70).encoding_quality == 70
    assert spec_of(Blur(), quality=70).encoding_quality == 70
    assert spec_of(Blur()).encoding_quality is None
