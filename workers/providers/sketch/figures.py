"""Figures in the scene: on a near hill, on the water or in the air, with the light along their edges."""

import math
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from workers.providers.sketch.canvas import Canvas
from workers.providers.sketch.colour import Field, mix, rgb
from workers.providers.sketch.field import blur, line, smooth
from workers.providers.sketch.scene import Scene
from workers.providers.sketch.shapes import FIGURES, LONG_HAIR, PROFILE, SHORT_HAIR, Part, Points
from workers.providers.sketch.sky import horizon, light_place

GAUDY: Final = ("d9483b", "e8a33d", "3f7fbf", "8a4fa3", "3f9a76")
"""What balloons are made of when the prompt does not say."""
_FINER: Final = 3
"""Outlines are drawn this many times larger, then averaged, which makes their edges smooth."""


def figures(canvas: Canvas, scene: Scene) -> None:
    """Paint every subject that has a figure, each at a place of its own."""
    names = [name for name in scene.subjects if name in FIGURES]
    standing = [name for name in names if FIGURES[name].home == "ground"]
    crest = _hill(canvas, scene) if standing else np.zeros(canvas.width, np.float32)
    for index, name in enumerate(names):
        stream = scene.stream(f"figure {name}")
        figure = FIGURES[name]
        for one in range(figure.crowd):
            if figure.home == "air":
                x, y, size = _flying(canvas, scene, stream, one)
            else:
                x, size = _standing(canvas, scene, stream, index, len(names)), 1.0
                column = int(np.clip(x * canvas.unit, 0, canvas.width - 1))
                y = float(crest[column]) if figure.home == "ground" else horizon(canvas, scene) + 0.1
            _place(canvas, scene, name, x=x, y=y, tall=figure.tall * size)


def _hill(canvas: Canvas, scene: Scene) -> Field:
    """Paint the near hill that figures stand on, grass along its crest; give the y of its crest."""
    stream = scene.stream("near hill")
    swell = line(stream, canvas.width, 0.7 * canvas.span[1], octaves=2)
    crest = canvas.span[0] * 0.86 - 0.045 * swell
    mask, top = _blades(canvas, stream, crest)
    ground = mix(scene.palette.near, scene.palette.ground(depth=1.0), 0.3)
    below = canvas.y[top:] - crest[None, :]
    colours = ground[:, None, None] * (1 - 0.5 * smooth(0, 0.25, below))
    rim = np.exp(-np.clip(below, 0, None) / 0.012) * 0.3
    canvas.cover(mask, colours + rim * (scene.palette.light[:, None, None] - colours) * 0.7, top=top)
    return crest


def _blades(canvas: Canvas, stream: np.random.Generator, crest: Field) -> tuple[Field, int]:
    """Give the mask of everything below the crest and of the grass that stands on it, and its top row."""
    top = int(np.clip((float(crest.min()) - 0.04) * canvas.unit, 0, canvas.height - 1))
    ground = np.clip((canvas.y[top:] - crest[None, :]) * canvas.unit + 0.5, 0, 1)
    sheet = Image.new("L", (2 * canvas.width, 2 * (canvas.height - top)))
    pen = ImageDraw.Draw(sheet)
    for at, lean, long in stream.random((int(320 * canvas.span[1]), 3)).tolist():
        x = at * canvas.width
        y = float(crest[int(x)]) * canvas.unit + 1 - top
        tip = (0.006 + 0.018 * long**2) * canvas.unit
        points = ((x - 0.06 * tip, y), (x + 0.06 * tip, y), (x + (lean - 0.4) * 0.8 * tip, y - tip))
        pen.polygon([(2 * px, 2 * py) for px, py in points], fill=255)
    return np.maximum(ground, np.asarray(sheet.reduce(2), np.float32) / 255), top


def _standing(canvas: Canvas, scene: Scene, stream: np.random.Generator, index: int, count: int) -> float:
    """Give an x apart from the others; a figure alone stands a third off the side, towards the light."""
    if count > 1:
        return canvas.span[1] * (index + 0.35 + 0.3 * stream.random()) / count
    side = scene.light[0] - 0.12 * scene.side * (0.4 + stream.random())
    return canvas.span[1] * min(0.78, max(0.22, side))


def _flying(
    canvas: Canvas, scene: Scene, stream: np.random.Generator, one: int
) -> tuple[float, float, float]:
    """Give x, y and relative size of something in the air; later ones are farther away."""
    x = canvas.span[1] * (0.12 + 0.76 * ((0.618 * one + stream.random() * 0.2 + scene.light[0] + 0.25) % 1))
    y = horizon(canvas, scene) * (0.45 + 0.4 * stream.random())
    return x, y, (0.85 + 0.3 * stream.random()) * 0.72**one


def outline(parts: tuple[Part, ...], size: tuple[int, int], *, scale: float, x: float, y: float) -> Field:
    """Give the mask (rows, columns) of parts whose foot is at pixel x, y, `scale` pixels tall."""
    rows, columns = size
    sheet = Image.new("L", (columns * _FINER, rows * _FINER))
    pen = ImageDraw.Draw(sheet)
    for part in parts:
        _draw(pen, part, scale=scale * _FINER, x=x * _FINER, y=y * _FINER)
    return np.asarray(sheet.reduce(_FINER), np.float32) / 255


def _draw(pen: ImageDraw.ImageDraw, part: Part, *, scale: float, x: float, y: float) -> None:
    if part.form == "oval":
        (cx, cy), (rx, ry) = part.points
        pen.ellipse(
            (x + (cx - rx) * scale, y - (cy + ry) * scale, x + (cx + rx) * scale, y - (cy - ry) * scale),
            fill=255,
        )
        return
    points = part.points if part.form == "edge" else _rounded(part.points, closed=part.form == "blob")
    at = [(x + px * scale, y - py * scale) for px, py in points]
    if part.form == "limb":
        wide = max(1.0, part.width * scale)
        pen.line(at, fill=255, width=round(wide), joint="curve")
        for px, py in (at[0], at[-1]):
            pen.ellipse((px - wide / 2, py - wide / 2, px + wide / 2, py + wide / 2), fill=255)
        return
    pen.polygon(at, fill=255)


def _rounded(points: Points, *, closed: bool) -> Points:
    """Give the points with corners cut twice (Chaikin's curve); an open line keeps its ends."""
    for _ in range(2):
        pairs = list(zip(points, points[1:] + (points[:1] if closed else ()), strict=False))
        cut = [
            (share * ax + (1 - share) * bx, share * ay + (1 - share) * by)
            for (ax, ay), (bx, by) in pairs
            for share in (0.75, 0.25)
        ]
        points = tuple(cut) if closed else (points[0], *cut, points[-1])
    return points


def _place(canvas: Canvas, scene: Scene, name: str, *, x: float, y: float, tall: float) -> None:
    """Paint one figure with its foot at x, y: its own colour or nearly black, light along one edge."""
    figure, unit = FIGURES[name], canvas.unit
    top = int(np.clip((y - 1.2 * tall) * unit, 0, canvas.height - 1))
    last = int(np.clip(math.ceil((y + 0.15 * tall) * unit), top + 1, canvas.height))
    left = int(np.clip((x - 1.2 * tall) * unit, 0, canvas.width - 1))
    right = int(np.clip(math.ceil((x + 1.2 * tall) * unit), left + 1, canvas.width))
    where = {"scale": tall * unit, "x": x * unit - left, "y": y * unit - top}
    mask = outline(figure.body, (last - top, right - left), **where)
    paint = mix(scene.palette.near, scene.palette.ground(depth=1.0), 0.12)
    bright = scene.colours.get(name, rgb(GAUDY[int(x * 997) % len(GAUDY)]) if figure.accents else None)
    if bright is not None:
        paint = mix(bright, scene.palette.near, 0.5 - 0.45 * scene.palette.daylight)
    at_x, at_y = light_place(canvas, scene)
    step = max(1, round(0.02 * tall * unit))
    toward = (int(np.sign(at_y - y + tall / 2)) * step, int(np.sign(at_x - x)) * step)
    inner = np.roll(mask, (-toward[0], -toward[1]), (0, 1))
    rim = np.clip(mask - inner, 0, 1) * mask * 0.4
    colours = paint[:, None, None] + rim * (scene.palette.light - paint)[:, None, None]
    patch = canvas.rgb[:, top:last, left:right]
    patch += mask * (colours - patch)
    if figure.accents:
        accent = outline(figure.accents, (last - top, right - left), **where)
        patch += accent * (mix(paint, rgb("fff4de"), 0.55)[:, None, None] - patch)
    if figure.home == "water":
        _reflect(canvas, mask, paint, top=top, left=left, foot=round(y * unit))
    if figure.lamps:
        _lamps(canvas, scene, outline(figure.lamps, (last - top, right - left), **where), top, left)


def _reflect(canvas: Canvas, mask: Field, paint: Field, *, top: int, left: int, foot: int) -> None:
    """Paint a figure's faint mirror image below its foot (a row), broken by small waves."""
    above = mask[: max(0, foot - top)][::-1]
    rows = min(above.shape[0], canvas.height - foot)
    if rows <= 0:
        return
    wave = np.rint(
        np.sin(np.arange(rows) * 240 / canvas.unit) * (0.003 * canvas.unit + np.arange(rows) * 0.03)
    )
    columns = np.arange(mask.shape[1])[None, :] + wave[:, None].astype(np.int32)
    mirrored = above[np.arange(rows)[:, None], np.clip(columns, 0, mask.shape[1] - 1)]
    fade = np.linspace(0.5, 0.0, rows, dtype=np.float32)[:, None]
    patch = canvas.rgb[:, foot : foot + rows, left : left + mask.shape[1]]
    patch += mirrored * fade * (paint[:, None, None] - patch)


def _lamps(canvas: Canvas, scene: Scene, lit: Field, top: int, left: int) -> None:
    """Shine the lit windows of a figure, with a bloom; hardly by day."""
    strength = 1 - 0.75 * scene.palette.daylight
    light = np.zeros((lit.shape[0], canvas.width), np.float32)
    light[:, left : left + lit.shape[1]] = lit * strength
    halo = blur(light, 0.015 * canvas.unit) * 0.5 + blur(light, 0.07 * canvas.unit) * 1.4
    canvas.shine(np.clip(light + halo, 0, 1), rgb("ffc873"), top=top)


def portrait(canvas: Canvas, scene: Scene) -> None:
    """Keep the scene inside a head in profile only, like a double exposure before pale air."""
    tall = 0.88 * min(canvas.span[0], 1.25 * canvas.span[1])
    middle = 0.5 * canvas.width
    hair = LONG_HAIR if "maiden" in scene.subjects else SHORT_HAIR
    mask = outline(
        (PROFILE, *hair), (canvas.height, canvas.width), scale=tall * canvas.unit, x=middle, y=canvas.height
    )
    if scene.side < 0:
        mask = mask[:, ::-1]
    pale = mix(scene.palette.haze, rgb("f6f1e8"), 0.6)
    shape = canvas.coarse(4)
    far = np.hypot(canvas.across(shape) - 0.5 * canvas.span[1], canvas.down(shape) - 0.4 * canvas.span[0])
    backdrop = pale[:, None, None] * (1.02 - 0.3 * smooth(0.1, 0.9, canvas.full(far)))
    edge = np.clip(mask - blur(mask, 0.06 * canvas.unit), 0, 1)
    canvas.rgb *= 0.8 - 0.6 * edge
    canvas.cover(1 - mask, backdrop)
