"""What falls or hangs in the air before everything else."""

import numpy as np
from PIL import Image, ImageDraw

from workers.providers.sketch.canvas import Canvas
from workers.providers.sketch.colour import mix, rgb
from workers.providers.sketch.field import bell, noise
from workers.providers.sketch.scene import Scene
from workers.providers.sketch.sky import horizon


def fog(canvas: Canvas, scene: Scene) -> None:
    """Paint banks of fog, thickest at the horizon."""
    shape = canvas.coarse(4)
    drift = noise(scene.stream("fog"), shape, (5 * canvas.span[0], 1.4 * canvas.span[1]), octaves=4)
    low = bell(canvas.down(shape) - horizon(canvas, scene) - 0.05, 0.22)
    canvas.cover(
        canvas.full(np.clip(low * (0.62 + 0.3 * drift), 0, 0.92)),
        mix(scene.palette.haze, rgb("ffffff"), 0.12),
    )


def rain(canvas: Canvas, scene: Scene) -> None:
    """Paint slanting streaks and a veil of grey."""
    stream = scene.stream("rain")
    canvas.cover(np.full((canvas.height, 1), 0.18, np.float32), mix(scene.palette.sky[2], rgb("7d8794"), 0.6))
    sheet = Image.new("L", (canvas.width, canvas.height))
    pen = ImageDraw.Draw(sheet)
    slant = 0.25 * (stream.random() - 0.5)
    for x, y, long in stream.random((int(700 * canvas.span[0] * canvas.span[1]), 3)).tolist():
        start = (x * 1.2 - 0.1) * canvas.width, y * canvas.height
        reach = (0.02 + 0.06 * long) * canvas.unit
        pen.line(
            (*start, start[0] + slant * reach, start[1] + reach),
            fill=int(40 + 120 * long),
            width=max(1, int(canvas.unit / 600)),
        )
    canvas.shine(np.asarray(sheet, np.float32) / 255 * 0.55, rgb("dfe8f2"))


def snow(canvas: Canvas, scene: Scene) -> None:
    """Paint flakes: many fine ones, some near and out of focus."""
    stream = scene.stream("snow")
    for count, size, strength in ((600, 0.0012, 0.6), (110, 0.0022, 0.65), (22, 0.007, 0.3)):
        number = int(count * canvas.span[0] * canvas.span[1])
        x, y = (stream.random(number, np.float32) * side for side in (canvas.span[1], canvas.span[0]))
        radius = size * (0.6 + 0.8 * stream.random(number, np.float32))
        canvas.splat(x, y, np.full(number, strength, np.float32), radius=radius, colour=rgb("ffffff"))


def fireflies(canvas: Canvas, scene: Scene) -> None:
    """Paint warm lights floating over the ground."""
    stream = scene.stream("fireflies")
    number = int(70 * canvas.span[0] * canvas.span[1]) + 6
    x = stream.random(number, np.float32) * canvas.span[1]
    y = canvas.span[0] * (0.45 + 0.5 * stream.random(number, np.float32))
    glow = 0.4 + 0.5 * stream.random(number, np.float32)
    for size, share in ((0.002, 1.0), (0.009, 0.35)):
        radius = np.full(number, size, np.float32)
        canvas.splat(x, y, glow * share, radius=radius, colour=rgb("ffd27a"))
