"""Mountains, hills and dunes: layers from far to near, each fading into the air behind it."""

from typing import Final

import numpy as np

from workers.providers.sketch.canvas import Canvas
from workers.providers.sketch.colour import Field, mix, rgb
from workers.providers.sketch.field import blur, enlarge, line, noise, smooth
from workers.providers.sketch.scene import Scene
from workers.providers.sketch.sky import horizon


def silhouette(canvas: Canvas, crest: Field, *, bottom: float) -> tuple[Field, int]:
    """Give a mask of what lies under a crest (y per column, in units) down to `bottom`, and its top row."""
    top = int(np.clip(float(crest.min()) * canvas.unit - 1, 0, canvas.height - 1))
    last = int(np.clip(np.ceil(bottom * canvas.unit), top + 1, canvas.height))
    return np.clip((canvas.y[top:last] - crest[None, :]) * canvas.unit + 0.5, 0, 1), top


def is_front(scene: Scene, place: str) -> bool:
    """Say whether nothing lies before this place, so that it reaches down to the picture's edge."""
    return scene.places[-1] == place


_SNOWY: Final = 0.6
"""Ranges farther than this are high enough for snow in any season but summer."""


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
        rise = 0.6 + 0.36 * peaks
        rise = 0.5 * (rise + np.sqrt(rise * rise + 0.03))  # a soft floor: no flat valleys
        crest = end + reach * 0.9 * depth**1.4 - tall * rise
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
    wintry = scene.season == "winter"
    if wintry or (depth < _SNOWY and palette.daylight and scene.season != "summer"):
        _snow(scene, colours, below, lit, line=tall * (0.8 if wintry else 0.36))
    mist = smooth(0.1 * tall, 1.25 * tall + 0.05, below) * (0.9 - 0.35 * depth)
    colours += mist * (palette.haze[:, None, None] - colours)
    canvas.cover(mask, colours, top=top)


def _faces(canvas: Canvas, scene: Scene, crest: Field, below: Field, *, name: str) -> Field:
    """Give how much each place of a slope faces the light, about -1 to 1.

    Each peak has a lit and a shaded side. The edge between them zigzags down from the peak, as the crest's
    slope is looked up ever farther aside; gullies add smaller folds.
    """
    shape = (max(2, below.shape[0] // 2), max(2, below.shape[1] // 2))
    stream, high = scene.stream(name), below.shape[0] / canvas.unit
    rough = noise(stream, shape, (9 * high, 7 * canvas.span[1]), octaves=4)
    folds = -np.abs(noise(stream, shape, (8 * high, 11 * canvas.span[1]), octaves=scene.detail))
    down = np.clip(enlarge(below, shape), 0, None)
    aside = (0.006 + 0.2 * down) * (0.6 - np.abs(rough)) * canvas.unit
    last = below.shape[1] - 1
    column = np.clip(np.linspace(0, last, shape[1]) + aside, 0, last).astype(np.int32)
    eased = blur(crest[None, :], 0.02 * canvas.unit)[0]
    slope = np.tanh(2.5 * np.gradient(eased, 1 / canvas.unit)).astype(np.float32)
    lit = 1.1 * slope[column] - 0.022 * np.gradient(folds, axis=1) * (shape[1] / canvas.span[1])
    return np.clip(enlarge(-scene.side * lit, (below.shape[0], below.shape[1])), -1, 1)


def _snow(scene: Scene, colours: Field, below: Field, lit: Field, *, line: float) -> None:
    """Paint snow on a range in place, down to about `line` below its crest, bluish where it lies in shade."""
    palette = scene.palette
    cover = smooth(line, 0.6 * line, below + 0.4 * line * (1 - lit)) * 0.9
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
        ground = ground_of(scene, "hills", depth)
        fields = noise(
            stream, canvas.coarse(2), (9 * canvas.span[0], 4 * canvas.span[1]), octaves=scene.detail
        )
        texture = 1 + 0.05 * (0.3 + depth) * canvas.full(fields)[top:]
        colours = ground[:, None, None] * texture
        rim = np.exp(-below / (0.02 + 0.04 * depth)) * (0.12 + 0.25 * scene.palette.daylight)
        colours += rim * (scene.palette.light[:, None, None] - colours) * 0.6
        canvas.cover(mask[: colours.shape[1]], colours * (1 - 0.25 * smooth(0, 0.5, below)), top=top)


def ground_of(scene: Scene, place: str, depth: float) -> Field:
    """Give the colour of a place's ground from far (depth 0.0) to near (1.0), tinted as the prompt asks."""
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
    canvas: Canvas,
    scene: Scene,
    stream: np.random.Generator,
    crest: Field,
    *,
    top: int,
    peak: float,
    depth: float,
) -> Field:
    """Give the colours of one dune: an edge winds down from its peak, behind it lies shadow; wind ripples."""
    palette = scene.palette
    below = canvas.y[top:] - crest[None, :]
    drop = canvas.y[top:] - float(crest[int(np.clip(peak * canvas.unit, 0, canvas.width - 1))])
    turn, bow = 6.3 * stream.random(), 0.05 + 0.06 * stream.random()
    edge = peak + scene.side * (0.5 * drop + bow * (np.sin(11 * drop + turn) - np.sin(turn)))
    behind = scene.side * (edge - canvas.x)
    shadow = smooth(-0.6 / canvas.unit, 1.2 / canvas.unit, behind) * np.exp(-np.clip(behind, 0, None) / 0.45)
    lumps = noise(stream, canvas.coarse(2), (3 * canvas.span[0], 3 * canvas.span[1]), octaves=2)
    waves = canvas.full(lumps)[top:]
    ripple = np.sin(below * (420 - 260 * depth) / (0.5 + below * 2) + 4 * waves) * 0.03 * depth * (1 - shadow)
    sand = mix(scene.colours.get("dunes", rgb("e0a765")), palette.light, 0.25)
    here = mix(palette.haze, mix(palette.near, sand, 0.25 + 0.75 * palette.daylight**0.5), 0.3 + 0.7 * depth)
    dark = mix(mix(here, palette.near, 0.42), palette.sky[1], 0.25)
    colours: Field = here[:, None, None] * (1.03 + ripple + 0.02 * waves - 0.3 * smooth(0, 0.5, below))
    colours += shadow * 0.9 * (dark[:, None, None] - colours)
    colours += 0.35 * np.exp(-below / 0.012) * (1 - shadow) * (palette.light[:, None, None] - colours)
    return colours
