"""A meadow in bloom: grass in the wind, flowers small and many far away, large and few close by."""

import math

import numpy as np
from PIL import Image, ImageDraw

from workers.providers.sketch.canvas import Canvas
from workers.providers.sketch.colour import Field, mix, rgb
from workers.providers.sketch.field import line, noise, smooth
from workers.providers.sketch.land import silhouette
from workers.providers.sketch.scene import Scene
from workers.providers.sketch.sky import horizon

BLOOMS = ("e8504f", "f6c945", "f4f0f6", "b46fd6", "f08bb8", "5f86e8")
"""Poppies, buttercups, daisies, mallows, cosmos and cornflowers."""


def meadow(canvas: Canvas, scene: Scene) -> None:
    """Paint low hills, the ground up to the horizon, then rows of flowers towards us."""
    if scene.places[0] == "meadow":
        _far_hills(canvas, scene)
    _grass(canvas, scene)
    stream = scene.stream("flowers")
    own = scene.colours.get("meadow")
    chosen = [rgb(BLOOMS[int(index)]) for index in stream.permutation(len(BLOOMS))[:3]]
    hues = [own, mix(own, rgb("ffffff"), 0.3), mix(own, rgb("000000"), 0.2)] if own is not None else chosen
    rows = 9
    for row in range(rows):
        near = ((row + 0.6) / rows) ** 1.7
        _row(canvas, scene, scene.stream(f"flowers {row}"), hues, near=near)


def _far_hills(canvas: Canvas, scene: Scene) -> None:
    """Paint two wooded ridges where the meadow ends."""
    for ridge in range(2):
        stream = scene.stream(f"far hills {ridge}")
        swell = line(stream, canvas.width, 1.5 * canvas.span[1], octaves=2)
        woods = np.abs(line(stream, canvas.width, 26 * canvas.span[1], octaves=3))
        crest = horizon(canvas, scene) - (0.055 - 0.03 * ridge) - 0.018 * swell - 0.005 * woods
        mask, top = silhouette(canvas, crest, bottom=horizon(canvas, scene) + 2 / canvas.unit)
        canvas.cover(mask, scene.palette.ground(depth=0.12 + 0.2 * ridge), top=top)


def _grass(canvas: Canvas, scene: Scene) -> None:
    """Paint the green, finer and paler with distance."""
    end = horizon(canvas, scene)
    top = min(int(end * canvas.unit), canvas.height - 1)
    near = smooth(0, canvas.span[0] - end, canvas.y[top:] - end)
    stream = scene.stream("grass")
    shape = (canvas.height - top, canvas.width)
    blades = noise(stream, shape, (14 * shape[0] / canvas.unit, 110 * canvas.span[1]), octaves=2)
    patches = noise(stream, shape, (9 * shape[0] / canvas.unit, 3 * canvas.span[1]), octaves=3)
    far, close = (scene.palette.ground(depth=depth) for depth in (0.35, 1.0))
    dark = mix(close, scene.palette.near, 0.6)
    colours = far[:, None, None] + near * (dark - far)[:, None, None]
    colours = colours * (1 + 0.09 * patches + 0.13 * near * blades)
    edge = smooth(-0.5, 0.5, (canvas.y[top:] - end) * canvas.unit)
    canvas.cover(edge * np.ones((1, canvas.width), np.float32), colours, top=top)


def _row(
    canvas: Canvas, scene: Scene, stream: np.random.Generator, hues: list[Field], *, near: float
) -> None:
    """Paint one row of flowers with stems, all of one distance."""
    end = horizon(canvas, scene)
    size = 0.006 + 0.05 * near
    foot = end + (canvas.span[0] - end) * (0.06 + 0.98 * near) + size
    count = max(4, int(canvas.span[1] * 1.1 / size**0.9 * 0.35))
    top = int(np.clip((foot - 6 * size) * canvas.unit, 0, canvas.height - 1))
    last = int(np.clip(math.ceil((foot + 3 * size) * canvas.unit), top + 1, canvas.height))
    sheets = [Image.new("L", (2 * canvas.width, 2 * (last - top))) for _ in range(len(hues) + 2)]
    pens = [ImageDraw.Draw(sheet) for sheet in sheets]
    for _ in range(count):
        x = stream.random() * canvas.span[1]
        y = foot + size * (stream.random() * 3.5 - 3.2)
        kind = int(stream.random() * len(hues))
        flower = (
            x * canvas.unit * 2,
            (y * canvas.unit - top) * 2,
            size * (0.55 + 0.5 * stream.random()) * canvas.unit * 2,
        )
        _flower(pens, kind, flower, stream)
    stem = mix(scene.palette.ground(depth=1.0), scene.palette.near, 0.35)
    for sheet, hue in zip(sheets, [stem, *hues, rgb("fbe08a")], strict=True):
        share = 0.3 * (1 - near)
        paint = mix(
            mix(hue, scene.palette.near, 0.55 * (1 - scene.palette.daylight) ** 1.5),
            scene.palette.haze,
            share,
        )
        mask = np.asarray(sheet.reduce(2), np.float32) / 255
        if sheet is sheets[0]:
            mask *= 0.8
        canvas.cover(mask, paint, top=top)


def _flower(
    pens: list[ImageDraw.ImageDraw], kind: int, at: tuple[float, float, float], stream: np.random.Generator
) -> None:
    """Draw one flower: petals seen a little from the side, a heart, a stem; the nearer wins everywhere."""
    x, y, size = at
    petals, turn, lean = 5 + int(3 * stream.random()), stream.random(), size * (stream.random() - 0.5)
    pens[0].line((x, y, x + lean, y + 4 * size), fill=255, width=max(1, round(size * 0.12)))
    for petal in range(petals):
        angle = 2 * math.pi * (petal + turn) / petals
        px, py = x + 0.55 * size * math.cos(angle), y + 0.42 * size * math.sin(angle)
        box = (px - 0.42 * size, py - 0.34 * size, px + 0.42 * size, py + 0.34 * size)
        for index, pen in enumerate(pens[1:-1]):
            pen.ellipse(box, fill=255 if index == kind else 0)
    heart = (x - 0.24 * size, y - 0.2 * size, x + 0.24 * size, y + 0.2 * size)
    pens[-1].ellipse(heart, fill=255)
