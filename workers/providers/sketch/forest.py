"""Forests: rows of firs, or of broad-leaved trees in the seasons that colour them."""

import math
from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from workers.providers.sketch.canvas import Canvas
from workers.providers.sketch.colour import Field, lighter, mix, rgb
from workers.providers.sketch.field import line
from workers.providers.sketch.land import ground_of, is_front, silhouette
from workers.providers.sketch.scene import Scene
from workers.providers.sketch.sky import horizon

_HEART: Final = 14
"""Clumps that make the shaded inside of a crown."""


def forest(canvas: Canvas, scene: Scene) -> None:
    """Paint rows of trees, the far ones pale with mist, the near ones dark."""
    end = horizon(canvas, scene)
    front = is_front(scene, "forest")
    count = 5 if front else 3
    draw = _broad_tree if scene.season in {"autumn", "spring", "summer"} else _fir_tree
    for row in range(count):
        depth = (row + 1) / count
        stream = scene.stream(f"forest {row}")
        reach = (canvas.span[0] - end) * 0.95 if front else 0.03
        foot = (
            end
            + 0.02
            + reach * (row / count) ** 1.2
            + 0.03 * line(stream, canvas.width, 2 * canvas.span[1], octaves=3)
        )
        tall = (0.07 + 0.26 * depth**1.5) if front else 0.05 + 0.05 * depth
        bottom = canvas.span[0] if front else end + 1.5 / canvas.unit
        masks, top = _trees(canvas, stream, foot, tall=tall, bottom=bottom, draw=draw)
        soil, soil_top = silhouette(canvas, foot, bottom=bottom)
        canvas.cover(soil, ground_of(scene, "", depth * 0.8), top=soil_top)
        below = np.clip((canvas.y[top : top + masks[0].shape[0]] - foot[None, :] + tall) / (2.2 * tall), 0, 1)
        mist = below * (0.6 - 0.45 * depth)
        for mask, tone in zip(masks, _leaves(scene, depth), strict=True):
            canvas.cover(
                mask, tone[:, None, None] + mist * (scene.palette.haze - tone)[:, None, None], top=top
            )


LEAVES: Final = {
    "spring": (rgb("f08fb2"), rgb("f5b0c8"), rgb("e87fa8")),
    "autumn": (rgb("c8622a"), rgb("dd9a2e"), rgb("b0442c")),
}
"""Blossoms, and leaves before they fall, row by row."""


def _leaves(scene: Scene, depth: float) -> tuple[Field, Field, Field]:
    """Give the colours of a row of trees: in shade, as they are, and where the light falls."""
    hues = LEAVES.get(scene.season, (scene.palette.land,))
    leaf = scene.colours.get("forest", hues[int(depth * 97) % len(hues)])
    near, haze, light = scene.palette.near, scene.palette.haze, scene.palette.light
    broad = scene.season in {"autumn", "spring", "summer"}
    seen = 0.15 + 0.8 * scene.palette.daylight**0.6 if broad else 0.08 + 0.5 * scene.palette.daylight
    tones = (
        (mix(leaf, near, 0.38), leaf, mix(lighter(leaf, 0.1), light, 0.2)) if broad else (leaf, leaf, leaf)
    )
    here = [mix(near, tone, seen) for tone in tones]
    shade, plain, bright = (mix(haze, tone, 0.25 + 0.75 * depth) for tone in here)
    return shade, plain, bright


TreePen: TypeAlias = Callable[[list[ImageDraw.ImageDraw], np.random.Generator, float, float, float], float]
"""Draws one tree (foot x and y, height, in pixels) on sheets of shade, leaf and light; gives its width."""


def _trees(
    canvas: Canvas, stream: np.random.Generator, foot: Field, *, tall: float, bottom: float, draw: TreePen
) -> tuple[list[Field], int]:
    """Give masks of one row of trees on `foot` (y per column): shade, leaf and light; and their top row."""
    top = int(np.clip((float(foot.min()) - 1.5 * tall) * canvas.unit, 0, canvas.height - 1))
    last = int(np.clip(np.ceil(bottom * canvas.unit), top + 1, canvas.height))
    sheets = [Image.new("L", (2 * canvas.width, 2 * (last - top))) for _ in range(3)]
    pens = [ImageDraw.Draw(sheet) for sheet in sheets]
    scale, x = 2 * canvas.unit, -0.1
    while x < canvas.span[1] + 0.1:
        column = int(np.clip(x * canvas.unit, 0, canvas.width - 1))
        height = tall * (0.6 + 0.65 * stream.random())
        y = (float(foot[column]) + 0.01) * scale - 2 * top
        x += draw(pens, stream, x * scale, y, height * scale) / scale * (0.7 + 0.9 * stream.random())
    return [np.asarray(sheet.reduce(2), np.float32) / 255 for sheet in sheets], top


def _fir_tree(
    pens: list[ImageDraw.ImageDraw], stream: np.random.Generator, x: float, y: float, height: float
) -> float:
    pens[0].polygon([(x + px, y + py) for px, py in _fir(stream, height).tolist()], fill=255)
    return 0.36 * height


def _broad_tree(
    pens: list[ImageDraw.ImageDraw], stream: np.random.Generator, x: float, y: float, height: float
) -> float:
    """Draw a trunk and a crown of leaf clumps: the upper ones catch the light."""
    trunk = 0.03 * height
    pens[0].polygon(
        [
            (x - trunk, y),
            (x - 0.4 * trunk, y - 0.6 * height),
            (x + 0.4 * trunk, y - 0.6 * height),
            (x + trunk, y),
        ],
        fill=255,
    )
    for index, (turn, out, size) in enumerate(stream.random((int(min(150, 30 + 0.5 * height)), 3)).tolist()):
        across, up = math.sqrt(out) * math.cos(6.3 * turn), math.sqrt(out) * math.sin(6.3 * turn)
        cx, cy = x + 0.33 * height * across, y - (0.66 + 0.27 * up) * height
        radius = (0.022 + 0.03 * size) * height * (2.6 if index < _HEART else 1.0)
        tone = 0 if index < _HEART else 1 if index % 3 or up < 0 else 2
        for sheet, pen in enumerate(pens):
            if sheet <= tone or index >= _HEART:
                pen.ellipse(
                    (cx - radius, cy - 0.85 * radius, cx + radius, cy + 0.85 * radius),
                    fill=255 if sheet <= tone else 0,
                )
    return 0.6 * height


def _fir(stream: np.random.Generator, height: float) -> Field:
    """Give the outline of a conifer, its foot at 0, 0: jagged tiers of drooping branches."""
    tiers = 7
    level = np.repeat(np.linspace(0.06, 1, tiers), 2)
    width = level * 0.2 + 0.015
    width[1::2] *= 0.55
    drop = np.where(np.arange(2 * tiers) % 2, -0.02, 0.03)
    sides = [width * (0.8 + 0.4 * stream.random(2 * tiers)) for _ in range(2)]
    y = (level + drop - 1.0) * height * 0.95
    left = np.stack([-sides[0] * height, y], axis=1)
    right = np.stack([sides[1] * height, y], axis=1)[::-1]
    return np.concatenate([[(0.0, -height)], left, right])
