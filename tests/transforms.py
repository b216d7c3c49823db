"""Pictures to change, and transforms of every kind that suit them."""

import numpy as np
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from app.domain.spec import JobSpec, StoredImage
from app.domain.transform import (
    Blur,
    Convert,
    Crop,
    Import,
    Mark,
    Mirror,
    Modulate,
    RemoveBackground,
    Resize,
    Rotate,
    Transform,
    Watermark,
)

LONGEST = 48
"""Pixels along a side of a small picture; transforms of one do not grow much beyond it."""
POSITIONS = (
    "center",
    "top",
    "right",
    "bottom",
    "left",
    "top-left",
    "top-right",
    "bottom-left",
    "bottom-right",
)
COLOURS = ("red", "#0f0", "#12345678", "transparent")


def grain(width: int, height: int, mode: str = "RGB", *, seed: int = 0) -> Image.Image:
    """Noise, of which every pixel can be told from the others."""
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, len(mode)), np.uint8)
    return Image.fromarray(levels)


def product(size: tuple[int, int] = (320, 240), *, ground: str = "#fafafa", scale: int = 4) -> Image.Image:
    """A blue mug with a pale label and a handle on plain ground, its edges smooth as a camera's are."""
    width, height = size[0] * scale, size[1] * scale
    image = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(image)
    handle = (width * 0.6, height * 0.35, width * 0.82, height * 0.65)
    draw.ellipse(handle, outline="#1e3c78", width=round(height * 0.05))
    draw.rounded_rectangle(
        (width * 0.3, height * 0.2, width * 0.66, height * 0.86), radius=height * 0.06, fill="#2850a0"
    )
    draw.rectangle((width * 0.3, height * 0.45, width * 0.66, height * 0.6), fill="#ebe1c8")
    return image.resize(size, Image.Resampling.LANCZOS)


def resizes() -> st.SearchStrategy[Resize]:
    side = st.none() | st.integers(1, LONGEST)
    return st.builds(
        Resize,
        width=side,
        height=side,
        fit=st.sampled_from(["fill", "contain", "cover"]),
        position=st.sampled_from(POSITIONS),
        letterbox_color=st.none() | st.sampled_from(COLOURS),
    )


@st.composite
def crops(draw: st.DrawFn, width: int, height: int) -> Crop:
    x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return Crop(x1=x1, y1=y1, x2=draw(st.integers(x1 + 1, width)), y2=draw(st.integers(y1 + 1, height)))


def rotates() -> st.SearchStrategy[Rotate]:
    return st.builds(
        Rotate,
        angle=st.floats(-800, 800) | st.sampled_from([0.0, 90.0, -90.0, 180.0, 45.0]),
        unit=st.sampled_from(["degrees", "radians"]),
        background_color=st.sampled_from(COLOURS),
    )


def modulates() -> st.SearchStrategy[Modulate]:
    percent = st.floats(-100, 100)
    return st.builds(
        Modulate,
        brightness=percent,
        contrast=percent,
        saturation=percent,
        exposure=percent,
        hue=st.integers(-720, 720),
        lightness=percent,
    )


@st.composite
def watermarks(draw: st.DrawFn, width: int, height: int) -> Watermark:
    side = st.none() | st.integers(1, 60)
    mark = st.builds(
        Mark,
        image=st.just(0),
        left=st.integers(0, width - 1),
        top=st.integers(0, height - 1),
        width=side,
        height=side,
        repetition_mode=st.sampled_from(["no_repeat", "repeat", "repeat_x", "repeat_y"]),
    )
    return Watermark(watermarks=tuple(draw(st.lists(mark, min_size=1, max_size=5))))


def any_transform(width: int, height: int) -> st.SearchStrategy[Transform]:
    """Any transform that a picture of noise of this size allows; a watermark lays picture 0 on it."""
    quality = st.none() | st.integers(1, 100)
    return st.one_of(
        resizes(),
        crops(width, height),
        rotates(),
        st.builds(Mirror, mode=st.sampled_from(["horizontal", "vertical", "both"])),
        st.builds(Convert, format=st.sampled_from(["jpeg", "jpg", "png", "webp"]), quality=quality),
        st.builds(Blur, sigma=st.floats(1, 1000)),
        modulates(),
        watermarks(width, height),
        st.builds(Import),
    )


ONE_OF_EACH: tuple[Transform, ...] = (
    Resize(width=40, height=50, fit="contain"),
    Crop(x1=1, y1=2, x2=30, y2=20),
    Rotate(angle=30),
    Mirror(mode="both"),
    Convert(format="jpg", quality=80),
    Blur(),
    Modulate(brightness=10, hue=90),
    Watermark(watermarks=(Mark(image=0, repetition_mode="repeat"),)),
    RemoveBackground(),
    Import(),
)
"""A transform of each kind, for a picture of at least 30 × 20 pixels and one watermark."""


def spec_of(transform: Transform, **changes: object) -> JobSpec:
    """A spec that asks for a transform of a picture of 64 × 48 pixels."""
    stored = StoredImage(key="inputs/x", sha256="0" * 64, width=64, height=48)
    marks = {mark.image for mark in transform.watermarks} if isinstance(transform, Watermark) else set()
    fields = {
        "operation": transform.operation,
        "model": "pillow",
        "width": 64,
        "height": 48,
        "seed": 7,
        "image": stored,
        "transform": transform,
        "watermarks": (stored,) * len(marks),
    }
    return JobSpec.model_validate(fields | changes)
