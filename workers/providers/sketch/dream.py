"""What is no landscape: silk for prompts without any known word, and outer space."""

import math
from typing import Final

import numpy as np

from workers.providers.sketch.canvas import Canvas
from workers.providers.sketch.colour import look_up, mix, ramp, rgb
from workers.providers.sketch.field import blur, noise, sample, smooth, tile
from workers.providers.sketch.scene import Scene

NEBULA: Final = ("12106b", "7d2a9c", "e0458f", "ff9a5a", "3fb8c9")
WORLDS: Final = ("c98d5a", "5f95c8", "c0616b", "7fae9c", "9a7fc0")
"""Desert, ocean, rust, moss and amethyst."""


def silk(canvas: Canvas, scene: Scene) -> None:
    """Paint folded cloth of light: noise looked up at places that noise has moved, twice, and lit aslant.

    The double displacement is Inigo Quilez' "domain warping", https://iquilezles.org/articles/warp/.
    """
    stream = scene.stream("silk")
    shape = canvas.coarse(2)
    x, y = canvas.across(shape), canvas.down(shape)
    one, two = (tile(stream, size=512, cells=3, octaves=2) for _ in range(2))
    zoom, turn = 0.34 + 0.22 * stream.random(), 2 * math.pi * stream.random()
    u = zoom * (x * math.cos(turn) - y * math.sin(turn)) + stream.random()
    v = zoom * 0.5 * (x * math.sin(turn) + y * math.cos(turn))
    a, b = sample(one, u, v), sample(two, u + 0.3, v + 0.7)
    c, d = sample(two, u + 0.13 * a, v + 0.13 * b), sample(one, u + 0.13 * b + 0.5, v + 0.13 * a)
    folds = sample(one, u + 0.16 * c, v + 0.16 * d) + 0.4 * np.sin(4.5 * c + 3 * a)
    down, across = np.gradient(
        blur(folds, 2 + 0.006 * canvas.unit), canvas.span[0] / shape[0], canvas.span[1] / shape[1]
    )
    lit = (0.3 * (-0.6 * across - 0.8 * down) + 0.9) / np.sqrt(1 + 0.09 * (down**2 + across**2))
    palette = scene.palette
    stops = (palette.near, palette.sky[0], palette.sky[1], palette.sky[2], palette.sky[3], palette.light)
    colours = look_up(ramp(stops), np.clip(0.46 + 0.28 * folds + 0.12 * d, 0, 1))
    grey = colours.mean(axis=0)
    colours = grey + 1.25 * (colours - grey)
    colours *= 0.45 + 0.55 * np.clip(lit, 0, 1.5)
    shine = smooth(1.0, 1.3, lit) * 0.45
    colours += shine * (mix(palette.light, rgb("ffffff"), 0.4)[:, None, None] - colours)
    for channel in range(3):
        canvas.rgb[channel] = canvas.full(colours[channel])


def deep_space(canvas: Canvas, scene: Scene) -> None:
    """Paint black space with clouds of glowing gas and dust before them."""
    stream = scene.stream("space")
    shape = canvas.coarse(2)
    x, y = canvas.across(shape) * 0.17, canvas.down(shape) * 0.17
    one, two = (tile(stream, octaves=6) for _ in range(2))
    a, b = sample(one, x, y), sample(two, x + 0.4, y + 0.2)
    gas = sample(one, x + 0.07 * a + 0.3, y + 0.07 * b)
    dust = sample(two, x * 1.6 + 0.05 * b, y * 1.6 + 0.05 * a)
    hue = noise(stream, shape, (1.6 * canvas.span[0], 1.6 * canvas.span[1]), octaves=2)
    stops = [rgb(code) for code in NEBULA]
    if "space" in scene.colours:
        stops = [mix(stop, scene.colours["space"], 0.6) for stop in stops]
    else:
        stops = [mix(stop, wish, 0.35) for stop, wish in zip(stops, scene.palette.sky, strict=True)]
    colours = look_up(ramp(stops), 0.5 + 0.24 * hue + 0.1 * gas)
    thick = smooth(-0.5, 2.1, gas + 0.5 * hue) * (1 - 0.75 * smooth(0.1, 1.5, dust))
    base = mix(scene.palette.sky[0], scene.palette.near, 0.5)
    for channel in range(3):
        glow = 1 - (1 - base[channel]) * (1 - thick * colours[channel]) * (1 - 0.5 * thick**4)
        canvas.rgb[channel] = canvas.full(glow)


def planet(canvas: Canvas, scene: Scene) -> None:
    """Paint one banded planet, half in its own shadow."""
    stream = scene.stream("planet")
    size = 0.14 + 0.16 * stream.random()
    x = canvas.span[1] * (0.25 + 0.5 * stream.random())
    y = canvas.span[0] * (0.3 + 0.4 * stream.random())
    across, down = (canvas.x - x) / size, (canvas.y - y) / size
    far = across**2 + down**2
    height = np.sqrt(np.clip(1 - far, 0, 1))
    disc = smooth(1 + 1.5 / (size * canvas.unit), 1 - 1.5 / (size * canvas.unit), np.sqrt(far))
    texture = tile(stream, octaves=5)
    tilted = down + 0.25 * across
    bands = sample(
        texture,
        across * 0.05 + 0.02 * height,
        tilted * 0.32 + 0.02 * sample(texture, across * 0.2, tilted * 0.2),
    )
    tone = rgb(WORLDS[int(stream.random() * len(WORLDS))])
    stops = (mix(tone, rgb("20142e"), 0.5), tone, mix(tone, rgb("fff0d8"), 0.6))
    lit = np.clip(-0.7 * across - 0.45 * down + 0.55 * height, 0, 1)
    canvas.cover(disc, look_up(ramp(stops), 0.5 + 0.22 * bands) * (0.03 + 0.97 * lit))
    rim = disc * (1 - height) ** 3 * lit * 0.7 + 0.16 * np.exp(-np.clip(np.sqrt(far) - 1, 0, None) / 0.08) * (
        1 - disc
    ) * np.clip(-0.7 * across - 0.45 * down, 0, 1)
    canvas.shine(rim, rgb("bcd8ff"))
