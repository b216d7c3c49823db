"""The sea, or a lake: a mirror that waves break up."""

import numpy as np

from workers.providers.sketch.canvas import Canvas
from workers.providers.sketch.colour import mix
from workers.providers.sketch.field import sample, smooth, tile
from workers.providers.sketch.scene import Scene
from workers.providers.sketch.sky import horizon, light_place


def water(canvas: Canvas, scene: Scene) -> None:
    """Paint water below the horizon: what stands above it upside down, wavy, and darker towards us."""
    end = horizon(canvas, scene)
    top = min(int(end * canvas.unit), canvas.height - 1)
    texture = tile(scene.stream("waves"), octaves=scene.detail)
    drop = canvas.y[top:] - end
    depth = 1 / (np.clip(drop, 0, None) + 0.035)
    u, v = (canvas.x - canvas.span[1] / 2) * depth * 0.11, depth * 0.55
    waves = sample(texture, u, v).astype(np.float32)
    near = smooth(0, canvas.span[0] - end, drop)
    rows = top - (canvas.y[top:] * canvas.unit - top) * 1.0 + waves * (0.004 + 0.05 * near) * canvas.unit
    shift = np.arange(canvas.width)[None, :] + waves * (0.002 + 0.012 * near) * canvas.unit
    row = np.clip(np.abs(rows), 0, max(top - 1, 0)).astype(np.int32)
    column = np.clip(shift, 0, canvas.width - 1).astype(np.int32)
    mirrored = canvas.rgb[:, row, column]
    deep = mix(scene.palette.near, scene.palette.sky[0], 0.5)
    if "water" in scene.colours:
        deep = mix(deep, scene.colours["water"], 0.6)
    share = np.clip(0.1 + 0.62 * near + 0.07 * waves * near, 0, 1)
    mirrored += share * (deep[:, None, None] - mirrored)
    canvas.cover(smooth(-0.5, 0.5, canvas.y[top:] * canvas.unit - end * canvas.unit), mirrored, top=top)
    if scene.heaven & {"sun", "moon"}:
        _glitter(canvas, scene, waves, drop, top)


def _glitter(canvas: Canvas, scene: Scene, waves: np.ndarray, drop: np.ndarray, top: int) -> None:
    """Paint the path of light: wave faces that happen to mirror the sun, the wider the nearer."""
    x, _ = light_place(canvas, scene)
    path = np.exp(-(((canvas.x - x) / (0.035 + 0.3 * np.clip(drop, 0, 0.5))) ** 2))
    spark = (smooth(0.35, 1.3, waves) * 0.95 + 0.22) * path / (1 + np.clip(drop - 0.5, 0, None))
    canvas.shine(spark * smooth(0, 0.01, drop), scene.palette.light, top=top)
