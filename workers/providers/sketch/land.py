"""Mountains, hills, dunes, forests and meadows: layers from far to near, each fading into the air behind it."""

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from workers.providers.sketch.canvas import Canvas
from workers.providers.sketch.colour import Field, mix, rgb
from workers.providers.sketch.field import blur, enlarge, line, noise, smooth
from workers.providers.sketch.scene import Scene
from workers.providers.sketch.sky import horizon, light_place


def silhouette(canvas: Canvas, crest: Field, *, bottom: float) -> tuple[Field, int]:
    """Give a mask of what lies under a crest (y per column, in units) down to `bottom`, and its top row."""
    top = int(np.clip(float(crest.min()) * canvas.unit - 1, 0, canvas.height - 1))
    last = int(np.clip(np.ceil(bottom * canvas.unit), top + 1, canvas.height))
    return np.clip((canvas.y[top:last] - crest[None, :]) * canvas.unit + 0.5, 0, 1), top


def is_front(scene: Scene, place: str) -> bool:
    """Say whether nothing lies before this place, so that it reaches down to the picture's edge."""
    return scene.places[-1] == place


def mountains(canvas: Canvas, scene: Scene) -> None:
    """Paint ranges of mountains, snow on the high ones, mist in the valleys between."""
    end = horizon(canvas, scene)
    front = is_front(scene, "mountains")
    count = 6 if front else 4
    reach = canvas.span[0] - end if front else 0.0
    for layer in range(count):
        depth = layer / (count - 1)
        stream = scene.stream(f"mountains {layer}")
        tall = min(0.34, 0.5 * end) * ((1 - 0.45 * depth) if front else (1 - 0.75 * depth))
        cells = (1.0 + 1.6 * depth) * canvas.span[1]
        peaks = line(stream, canvas.width, cells, octaves=3 + scene.detail, ridged=True)
        crest = end + reach * 0.9 * depth**1.4 - tall * np.clip(0.62 + 0.36 * peaks, 0.03, 1.3)
        bottom = canvas.span[0] if front else end + 1.5 / canvas.unit
        _range(canvas, scene, crest, depth=depth, tall=tall, bottom=bottom)


def _range(canvas: Canvas, scene: Scene, crest: Field, *, depth: float, tall: float, bottom: float) -> None:
    """Paint one range: rock lit from one side, snow above its line, mist at its foot."""
    mask, top = silhouette(canvas, crest, bottom=bottom)
    below = canvas.y[top : top + mask.shape[0]] - crest[None, :]
    palette = scene.palette
    rock = mix(palette.ground(depth=0.1 + 0.9 * depth), palette.sky[0], 0.45 * (1 - depth))
    if "mountains" in scene.colours:
        rock = mix(rock, scene.colours["mountains"], 0.5)
    lit = _faces(canvas, scene, crest, below, name=f"rock {depth}")
    shade = (0.12 + 0.14 * palette.daylight) * (0.5 + 0.5 * depth)
    colours = rock[:, None, None] * (1 + shade * lit)
    colours += np.clip(lit, 0, 1) * 0.5 * shade * palette.light[:, None, None]
    if scene.season == "winter" or (depth < 0.6 and palette.daylight > 0.2 and scene.season != "summer"):
        _snow(scene, colours, below, lit, line=tall * (0.8 if scene.season == "winter" else 0.36))
    mist = smooth(0.1 * tall, 1.25 * tall + 0.05, below) * (0.85 - 0.35 * depth)
    colours += mist * (palette.haze[:, None, None] - colours)
    canvas.cover(mask, colours, top=top)


def _faces(canvas: Canvas, scene: Scene, crest: Field, below: Field, *, name: str) -> Field:
    """Give how much each place of a slope faces the light, about -1 to 1.

    Each peak has a lit and a shaded side. The edge between them wanders down from the peak, as the crest's
    slope is looked up ever farther aside, and the folds grow coarser with the way down.
    """
    shape = (max(2, below.shape[0] // 2), max(2, below.shape[1] // 2))
    rough = noise(scene.stream(name), shape, (6 * below.shape[0] / canvas.unit, 6 * canvas.span[1]), octaves=scene.detail)
    down = np.clip(enlarge(below, shape), 0, None)
    aside = (0.01 + 0.24 * down) * rough * canvas.unit
    column = np.clip(np.linspace(0, below.shape[1] - 1, shape[1]) + aside, 0, below.shape[1] - 1).astype(np.int32)
    lit = np.zeros(shape, np.float32)
    for width, share in ((0.006, 0.3), (0.03, 0.7)):
        eased = blur(crest[None, :], width * canvas.unit)[0]
        lit += share * np.tanh(2.2 * np.gradient(eased, 1 / canvas.unit)).astype(np.float32)[column]
    side = -1.0 if scene.light[0] > 0.5 else 1.0
    return np.clip(enlarge(side * lit * 1.6, (below.shape[0], below.shape[1])), -1, 1)


def _snow(scene: Scene, colours: Field, below: Field, lit: Field, *, line: float) -> None:
    """Paint snow on a range in place, down to about `line` below its crest, bluish where it lies in shade."""
    palette = scene.palette
    cover = smooth(line, 0.5 * line, below + 0.3 * line * (1 - lit)) * 0.9
    bright = mix(mix(palette.haze, rgb("ffffff"), 0.25 + 0.6 * palette.daylight), palette.light, 0.3)
    shaded = mix(mix(bright, palette.sky[1], 0.5), palette.near, 0.12)
    white = shaded[:, None, None] + (0.5 + 0.5 * lit) * (bright - shaded)[:, None, None]
    colours += cover * (white - colours)


def hills(canvas: Canvas, scene: Scene) -> None:
    """Paint rolling hills, their tops touched by light."""
    end = horizon(canvas, scene)
    for layer in range(5):
        depth = layer / 4
        stream = scene.stream(f"hills {layer}")
        roll = line(stream, canvas.width, (1.6 - 0.5 * depth) * canvas.span[1], octaves=2)
        crest = end - 0.03 + (canvas.span[0] - end) * depth**1.2 * 0.85 - (0.035 + 0.03 * depth) * roll
        mask, top = silhouette(canvas, crest, bottom=canvas.span[0])
        below = canvas.y[top:] - crest[None, :]
        ground = _ground(scene, "hills", depth)
        fields = noise(stream, canvas.coarse(2), (9 * canvas.span[0], 4 * canvas.span[1]), octaves=scene.detail)
        texture = 1 + 0.05 * (0.3 + depth) * canvas.full(fields)[top:]
        colours = ground[:, None, None] * texture
        rim = np.exp(-below / (0.02 + 0.04 * depth)) * (0.12 + 0.25 * scene.palette.daylight)
        colours += rim * (scene.palette.light[:, None, None] - colours) * 0.6
        canvas.cover(mask[: colours.shape[1]], colours * (1 - 0.25 * smooth(0, 0.5, below)), top=top)


def _ground(scene: Scene, place: str, depth: float) -> Field:
    ground = scene.palette.ground(depth=0.25 + 0.6 * depth)
    return mix(ground, scene.colours[place], 0.55) if place in scene.colours else ground


def dunes(canvas: Canvas, scene: Scene) -> None:
    """Paint dunes, each with a lit and a shaded flank."""
    end = horizon(canvas, scene)
    count = 6
    for layer in range(count):
        depth = layer / (count - 1)
        stream = scene.stream(f"dunes {layer}")
        peak = canvas.span[1] * (0.05 + 0.9 * stream.random())
        swell = line(stream, canvas.width, (1.0 - 0.3 * depth) * canvas.span[1], octaves=2)
        cusp = np.exp(-np.abs(canvas.x[0] - peak) / (0.22 + 0.3 * depth))
        height = (0.04 + 0.13 * depth**0.8) * cusp + (0.015 + 0.03 * depth) * swell
        crest = end + 0.01 + (canvas.span[0] - end) * depth**1.3 * 0.95 - height
        mask, top = silhouette(canvas, crest, bottom=canvas.span[0])
        canvas.cover(mask, _sand(canvas, scene, stream, crest, top=top, peak=peak, depth=depth), top=top)


def _sand(
    canvas: Canvas, scene: Scene, stream: np.random.Generator, crest: Field, *, top: int, peak: float, depth: float
) -> Field:
    """Give the colours of one dune: an edge winds down from its peak, behind it lies shadow; wind ripples."""
    palette = scene.palette
    side = 1.0 if light_place(canvas, scene)[0] > canvas.span[1] / 2 else -1.0
    below = canvas.y[top:] - crest[None, :]
    drop = canvas.y[top:] - float(crest[int(np.clip(peak * canvas.unit, 0, canvas.width - 1))])
    turn, bow = 6.3 * stream.random(), 0.05 + 0.06 * stream.random()
    edge = peak + side * (0.5 * drop + bow * (np.sin(11 * drop + turn) - np.sin(turn)))
    behind = side * (edge - canvas.x)
    shadow = smooth(-0.6 / canvas.unit, 1.2 / canvas.unit, behind) * np.exp(-np.clip(behind, 0, None) / 0.45)
    waves = canvas.full(noise(stream, canvas.coarse(2), (3 * canvas.span[0], 3 * canvas.span[1]), octaves=2))[top:]
    ripple = np.sin(below * (420 - 260 * depth) / (0.5 + below * 2) + 4 * waves) * 0.03 * depth * (1 - shadow)
    sand = mix(scene.colours.get("dunes", rgb("e0a765")), palette.light, 0.25)
    here = mix(palette.haze, mix(palette.near, sand, 0.25 + 0.75 * palette.daylight**0.5), 0.3 + 0.7 * depth)
    dark = mix(mix(here, palette.near, 0.42), palette.sky[1], 0.25)
    colours = here[:, None, None] * (1.03 + ripple + 0.02 * waves - 0.3 * smooth(0, 0.5, below))
    colours += shadow * 0.9 * (dark[:, None, None] - colours)
    return colours + 0.35 * np.exp(-below / 0.012) * (1 - shadow) * (palette.light[:, None, None] - colours)


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
        foot = end + 0.02 + reach * (row / count) ** 1.2 + 0.03 * line(stream, canvas.width, 2 * canvas.span[1], octaves=3)
        tall = (0.07 + 0.26 * depth**1.5) if front else 0.05 + 0.05 * depth
        bottom = canvas.span[0] if front else end + 1.5 / canvas.unit
        masks, top = _trees(canvas, stream, foot, tall=tall, bottom=bottom, draw=draw)
        below = np.clip((canvas.y[top : top + masks[0].shape[0]] - foot[None, :] + tall) / (2.2 * tall), 0, 1)
        mist = below * (0.6 - 0.45 * depth)
        for mask, tone in zip(masks, _leaves(scene, depth), strict=True):
            canvas.cover(mask, tone[:, None, None] + mist * (scene.palette.haze - tone)[:, None, None], top=top)


def _leaves(scene: Scene, depth: float) -> tuple[Field, Field, Field]:
    """Give the colours of a row of trees: in shade, as they are, and where the light falls."""
    leaf = scene.colours.get("forest", scene.palette.land)
    if scene.season == "spring" and "forest" not in scene.colours:
        leaf = rgb("f0b3c8")
    near, haze, light = scene.palette.near, scene.palette.haze, scene.palette.light
    broad = scene.season in {"autumn", "spring", "summer"}
    seen = 0.15 + 0.8 * scene.palette.daylight**0.6 if broad else 0.08 + 0.5 * scene.palette.daylight
    tones = (mix(leaf, near, 0.55), leaf, mix(leaf, light, 0.4)) if broad else (leaf, leaf, leaf)
    here = [mix(near, tone, seen) for tone in tones]
    shade, plain, bright = (mix(haze, tone, 0.25 + 0.75 * depth) for tone in here)
    return shade, plain, bright


TreePen: TypeAlias = Callable[[list[ImageDraw.ImageDraw], np.random.Generator, float, float, float], float]
"""Draws one tree (foot x and y, height, in pixels) on sheets of shade, leaf and light; gives its width."""


def _trees(
    canvas: Canvas, stream: np.random.Generator, foot: Field, *, tall: float, bottom: float, draw: TreePen
) -> tuple[list[Field], int]:
    """Give the masks of one row of trees on `foot` (y per column): shade, leaf and light, and their top row."""
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
    masks = [np.asarray(sheet.reduce(2), np.float32) / 255 for sheet in sheets]
    ground = np.clip((canvas.y[top:last] - foot[None, :]) * canvas.unit + 0.5, 0, 1)
    masks[0] = np.maximum(masks[0], ground)
    return masks, top


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
    pens[0].polygon([(x - trunk, y), (x - 0.4 * trunk, y - 0.6 * height), (x + 0.4 * trunk, y - 0.6 * height), (x + trunk, y)], fill=255)
    for index, (turn, out, size) in enumerate(stream.random((44, 3)).tolist()):
        across, up = math.sqrt(out) * math.cos(6.3 * turn), math.sqrt(out) * math.sin(6.3 * turn)
        cx, cy = x + 0.33 * height * across, y - (0.66 + 0.27 * up) * height
        radius = (0.05 + 0.06 * size) * height * (1.3 if index < 14 else 0.8)
        tone = 0 if index < 14 else 1 if index < 32 or up < 0.1 else 2
        for sheet, pen in enumerate(pens):
            if sheet <= tone or index >= 14:
                pen.ellipse((cx - radius, cy - 0.85 * radius, cx + radius, cy + 0.85 * radius), fill=255 if sheet <= tone else 0)
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
