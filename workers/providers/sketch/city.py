"""A skyline: towers in three depths, and somebody awake behind many of the windows."""

from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from workers.providers.sketch.canvas import Canvas
from workers.providers.sketch.colour import Field, mix, rgb
from workers.providers.sketch.field import bell, blur, smooth
from workers.providers.sketch.land import is_front
from workers.providers.sketch.scene import Scene
from workers.providers.sketch.sky import horizon

WINDOW_COLOURS: Final = ("ffd58a", "ffb45e", "fff0cf", "9fd4ff")
"""Bulbs, older bulbs, neon tubes, and a television."""
NEON_COLOURS: Final = ("ff4fc3", "38e1ff", "ffd27a", "a06bff")
"""Signs."""


_SPIRES: Final = 0.3
"""Share of towers with a spire."""


def city(canvas: Canvas, scene: Scene) -> None:
    """Paint three rows of towers; the darker the hour, the more windows are lit."""
    end = horizon(canvas, scene)
    bottom = canvas.span[0] if is_front(scene, "city") else end + 1.5 / canvas.unit
    glow = bell(canvas.y - end, 0.2) * 0.3 * (1 - scene.palette.daylight)
    canvas.shine(glow * np.ones((1, canvas.width), np.float32), rgb("ff9f6a"))
    awake = 0.04 + 0.34 * (1 - scene.palette.daylight)
    for row in range(3):
        depth = row / 2
        stream = scene.stream(f"city {row}")
        foot = end + (bottom - end) * (0.0, 0.3, 0.75)[row]
        towers, top, windows = _towers(
            canvas, stream, depth=depth, end=foot, bottom=bottom, awake=awake * (0.7, 1, 0.8)[row]
        )
        wall = mix(scene.palette.haze, mix(scene.palette.near, scene.palette.sky[0], 0.25), 0.4 + 0.6 * depth)
        if "city" in scene.colours:
            wall = mix(wall, scene.colours["city"], 0.3)
        below = (canvas.y[top : top + towers.shape[0]] - end + 0.3) / 0.6
        fade = smooth(0, 1, below) * (0.35 - 0.25 * depth)
        colours = wall[:, None, None] + fade * (scene.palette.haze - wall)[:, None, None]
        canvas.cover(towers, np.broadcast_to(colours, (3, *towers.shape)), top=top)
        strength = (0.45 + 0.55 * depth) * (1 - 0.6 * scene.palette.daylight)
        hues = NEON_COLOURS if "neon" in scene.styles else WINDOW_COLOURS
        _lights(canvas, windows, hues, top=top, strength=strength)


def _lights(
    canvas: Canvas, windows: list[Field], hues: tuple[str, ...], *, top: int, strength: float
) -> None:
    """Shine the windows, each colour with a bloom around it."""
    for code, lit in zip(hues, windows, strict=True):
        glow = np.clip(lit * strength + 0.9 * strength * blur(lit, 0.025 * canvas.unit), 0, 1)
        canvas.shine(glow, rgb(code), top=top)


def _towers(
    canvas: Canvas, stream: np.random.Generator, *, depth: float, end: float, bottom: float, awake: float
) -> tuple[Field, int, list[Field]]:
    """Give a row of towers as a mask, its top row, and the lit windows, one field per colour."""
    tallest = (0.5, 0.44, 0.24)[round(2 * depth)]
    top = int(np.clip((end - tallest - 0.1) * canvas.unit, 0, canvas.height - 1))
    last = int(np.clip(np.ceil(bottom * canvas.unit), top + 1, canvas.height))
    size = (2 * canvas.width, 2 * (last - top))
    walls, panes = Image.new("L", size), [Image.new("L", size) for _ in WINDOW_COLOURS]
    scale, x = 2 * canvas.unit, -0.05
    middle = canvas.span[1] * (0.25 + 0.5 * stream.random())
    while x < canvas.span[1]:
        wide = 0.035 + 0.05 * stream.random() + 0.015 * depth
        hump = 0.3 + 0.7 * float(np.exp(-(((x - middle) / 0.35) ** 2)))
        tall = tallest * hump * (0.3 + 0.7 * stream.random() ** 1.3)
        box = (
            x * scale,
            (end - tall) * scale - 2 * top,
            (x + wide) * scale,
            (bottom + 0.01) * scale - 2 * top,
        )
        _tower(walls, panes, stream, box, scale=scale, awake=awake)
        x += wide * (0.75 + 0.5 * stream.random())
    reduced: list[Field] = [np.asarray(sheet.reduce(2), np.float32) / 255 for sheet in (walls, *panes)]
    return reduced[0], top, reduced[1:]


def _tower(
    walls: Image.Image,
    panes: list[Image.Image],
    stream: np.random.Generator,
    box: tuple[float, float, float, float],
    *,
    scale: float,
    awake: float,
) -> None:
    """Draw one tower: its wall over the lights behind it, perhaps a spire, and its own lit windows."""
    left, top, right, bottom = box
    for sheet in panes:
        ImageDraw.Draw(sheet).rectangle(box, fill=0)
    pen = ImageDraw.Draw(walls)
    pen.rectangle(box, fill=255)
    if stream.random() < _SPIRES:
        step = 0.2 * (right - left)
        pen.rectangle((left + step, top - 0.02 * scale, right - step, top), fill=255)
        pen.line(
            (0.5 * (left + right), top - 0.06 * scale, 0.5 * (left + right), top),
            fill=255,
            width=max(1, int(scale / 700)),
        )
    pitch = max(5.0, 0.0105 * scale)
    columns, rows = int((right - left) / pitch - 0.5), int((bottom - top) / (1.25 * pitch) - 1)
    if columns < 1 or rows < 1:
        return
    busy = awake * (0.15 + 1.5 * stream.random() ** 2)
    lit = np.argwhere(stream.random((rows, columns)) < busy)
    hues = stream.choice(len(panes), len(lit), p=(0.5, 0.25, 0.15, 0.1))
    inset = 0.5 * (right - left - columns * pitch)
    pens = [ImageDraw.Draw(sheet) for sheet in panes]
    for (row, column), hue in zip(lit.tolist(), hues.tolist(), strict=True):
        x, y = left + inset + (column + 0.2) * pitch, top + (row + 0.7) * 1.25 * pitch
        pens[hue].rectangle(
            (x, y, x + 0.55 * pitch, y + 0.6 * pitch), fill=200 + (row * 7 + column * 13) % 56
        )
