"""Everything above the horizon."""

import numpy as np

from workers.providers.sketch.canvas import Canvas
from workers.providers.sketch.colour import Field, look_up, mix, ramp, rgb
from workers.providers.sketch.field import bell, enlarge, line, noise, sample, smooth, tile
from workers.providers.sketch.scene import Scene


def light_place(canvas: Canvas, scene: Scene) -> tuple[float, float]:
    """Give where sun or moon stand, in units."""
    return scene.light[0] * canvas.span[1], scene.light[1] * canvas.span[0]


def horizon(canvas: Canvas, scene: Scene) -> float:
    """Give the horizon's y, in units."""
    return scene.horizon * canvas.span[0]


def air(canvas: Canvas, scene: Scene) -> None:
    """Paint the sky: the hour's colours, bent by wide soft noise, and the glow around the light."""
    shape = canvas.coarse(4)
    x, y = canvas.across(shape), canvas.down(shape)
    end = horizon(canvas, scene)
    bend = noise(scene.stream("air"), shape, (1.2 * canvas.span[0], 0.8 * canvas.span[1]), octaves=3)
    height = np.clip(y / end, 0, 1) ** 1.15 + 0.022 * bend
    colours = look_up(ramp(scene.palette.sky), height)
    at_x, at_y = light_place(canvas, scene)
    near = np.hypot(x - at_x, y - at_y)
    low = bell(y - end, 0.1) * bell(x - at_x, 0.45)
    halo = 0.42 * np.exp(-near / 0.16) + 0.3 * np.exp(-near / 0.5) + 0.3 * low
    if not scene.sun:
        halo *= 0.45 if "moon" in scene.heaven else 0.1
    glow = 1 - (1 - colours) * (1 - np.clip(halo, 0, 1) * scene.palette.light[:, None, None])
    for channel in range(3):
        canvas.rgb[channel] = canvas.full(glow[channel])


def stars(canvas: Canvas, scene: Scene) -> None:
    """Paint stars, few of them bright, denser along a milky band."""
    stream = scene.stream("stars")
    count = int(1500 * canvas.span[0] * canvas.span[1] * (0.35 + 0.65 * scene.palette.darkness))
    x, y = (stream.random(count, np.float32) * side for side in (canvas.span[1], canvas.span[0]))
    strength = 0.1 + 0.9 * stream.random(count, np.float32) ** 7
    fade = smooth(horizon(canvas, scene), 0.35 * horizon(canvas, scene), y) * scene.palette.darkness**0.5
    if scene.kind == "space":
        fade = np.ones_like(y)
    radius = 0.0011 + 0.0011 * strength
    canvas.splat(x, y, strength * fade, radius=radius, colour=rgb("f4f6ff"))


def milky_way(canvas: Canvas, scene: Scene) -> None:
    """Paint the band of far stars, only in a dark sky."""
    if scene.palette.darkness < 1:
        return
    stream = scene.stream("milky way")
    shape = canvas.coarse(3)
    slope, start = 0.9 * (stream.random() - 0.5), stream.random()
    off = canvas.down(shape) - (0.15 + 0.3 * start) - slope * canvas.across(shape)
    clumps = noise(stream, shape, (5 * canvas.span[0], 5 * canvas.span[1]), octaves=4)
    dust = noise(stream, shape, (7 * canvas.span[0], 7 * canvas.span[1]), octaves=4)
    band = (
        bell(off + 0.04 * clumps, 0.13)
        * (0.5 + 0.28 * clumps)
        * (1 - 0.75 * smooth(0, 1.2, dust) * bell(off, 0.06))
    )
    fade = smooth(horizon(canvas, scene), 0.5 * horizon(canvas, scene), canvas.down(shape))
    canvas.shine(canvas.full(np.clip(band, 0, 1) * fade * 0.33), rgb("c9d2ff"))


def aurora(canvas: Canvas, scene: Scene) -> None:
    """Paint curtains of northern light: a sharp lower edge, rays upward, green turning to violet."""
    stream = scene.stream("aurora")
    shape = canvas.coarse(2)
    y, end = canvas.down(shape), horizon(canvas, scene)
    green, violet = rgb("3dffb0"), rgb("a34dff")
    for curtain in range(3):
        foot = end * (0.52 + 0.13 * curtain) + 0.1 * line(stream, shape[1], 1.6, octaves=3)
        rays = 0.6 + 0.3 * line(stream, shape[1], 26, octaves=3) + 0.35 * line(stream, shape[1], 3)
        tall = end * (0.24 + 0.06 * line(stream, shape[1], 5, octaves=2))
        above = foot[None, :] - y
        fall = np.exp(-np.clip(above, 0, None) / np.maximum(tall, 0.03)[None, :])
        body = smooth(-0.02, 0.035, above) * fall * np.clip(rays, 0, 1.4)[None, :]
        share = np.clip(above / (0.5 * end), 0, 1)
        strength = 0.75 - 0.17 * curtain
        canvas.shine(enlarge(body * (1 - share) * strength, canvas.rgb.shape[1:]), green)
        canvas.shine(enlarge(body * share * strength * 1.5, canvas.rgb.shape[1:]), violet)


def orb(canvas: Canvas, scene: Scene) -> None:
    """Paint the sun's or moon's disc."""
    if not scene.heaven & {"sun", "moon"}:
        return
    x, y = light_place(canvas, scene)
    size = 0.05 if not scene.sun else 0.026 + 0.018 * scene.light[1] / 0.45
    top = max(0, int((y - 2 * size) * canvas.unit))
    bottom = min(canvas.height, int((y + 2 * size) * canvas.unit) + 2)
    if bottom <= top:
        return
    down, across = canvas.y[top:bottom] - y, canvas.x - x
    disc = smooth(size + 0.7 / canvas.unit, size - 0.7 / canvas.unit, np.hypot(across, down))
    white = mix(scene.palette.light, rgb("ffffff"), 0.6)
    if scene.sun:
        canvas.cover(disc * 0.96, white, top=top)
        return
    shape = (bottom - top, canvas.width)
    seas = noise(
        scene.stream("moon"), shape, (7 * shape[0] / canvas.unit / size * 0.25, 6 / size * 0.25), octaves=4
    )
    face = (0.94 - 0.16 * smooth(0.1, 1.2, seas)) * (0.8 + 0.2 * smooth(-size, size, -across - down))
    canvas.cover(disc, face[None] * white[:, None, None], top=top)


def clouds(canvas: Canvas, scene: Scene) -> None:
    """Paint clouds as seen from below: one flat sheet, receding to the horizon, lit from the light's side."""
    shape = canvas.coarse(2)
    end = horizon(canvas, scene)
    rows = max(2, min(shape[0], int(shape[0] * scene.horizon)))
    x, y = canvas.across(shape), canvas.down(shape)[:rows]
    texture = tile(scene.stream("clouds"), octaves=2 + scene.detail)
    depth = 1 / (np.clip(1 - y / end, 0, 1) + 0.16)
    u, v = (x - 0.5 * canvas.span[1]) * depth * 0.16, depth * 0.3
    at_x, at_y = light_place(canvas, scene)
    heavy = bool({"rain", "lightning"} & scene.weather | ({"lightning"} & scene.heaven))
    density = sample(texture, u, v)
    lean = sample(texture, u + 0.012 * np.tanh((at_x - x) / 0.2), v - 0.014)
    cover = smooth(-0.9 if heavy else 0.25, 1.3, density) * (0.95 if heavy else 0.8)
    lit = np.clip(0.5 + 0.55 * (density - lean), 0, 1) * (
        0.35 + 0.65 * np.exp(-np.hypot(x - at_x, y - at_y) / 0.6)
    )
    if heavy:
        lit *= 0.45
    _cloud_colours(canvas, scene, cover, lit, end)


def _cloud_colours(canvas: Canvas, scene: Scene, cover: Field, lit: Field, end: float) -> None:
    palette = scene.palette
    shade = mix(mix(palette.sky[1], palette.sky[3], 0.5), palette.near, 0.22)
    colours = look_up(
        ramp((shade, mix(shade, palette.sky[-1], 0.6), mix(palette.light, palette.sky[-1], 0.25))), lit
    )
    size = (min(canvas.height, round(canvas.height * cover.shape[0] / canvas.coarse(2)[0])), canvas.width)
    picture = np.stack([enlarge(channel, size) for channel in colours])
    thin = smooth(end, 0.9 * end, canvas.y[: size[0]])
    canvas.cover(np.clip(enlarge(cover, size), 0, 1) * thin, picture)


def rainbow(canvas: Canvas, scene: Scene) -> None:
    """Paint a rainbow opposite the light: red outside, as at 42 degrees."""
    shape = canvas.coarse(2)
    middle = (1 - scene.light[0]) * canvas.span[1]
    far = np.hypot(canvas.across(shape) - middle, canvas.down(shape) - horizon(canvas, scene) - 0.1)
    share = (far - 0.44) / 0.09
    bow = look_up(
        ramp([rgb(code) for code in ("7d3cc8", "2a6fdb", "3cbf7e", "f5e018", "f2711c", "e8203a")]), share
    )
    visible = bell(share - 0.5, 0.32) * 0.4
    for channel in range(3):
        light = canvas.full(visible * bow[channel])
        canvas.rgb[channel] = 1 - (1 - canvas.rgb[channel]) * (1 - np.clip(light, 0, 1))


def lightning(canvas: Canvas, scene: Scene) -> None:
    """Paint one bolt down to the horizon, and its glare in the clouds."""
    stream = scene.stream("lightning")
    rows = max(2, int(scene.horizon * canvas.height))
    path = (0.25 + 0.5 * stream.random()) * canvas.span[1] + 0.07 * np.cumsum(
        np.interp(np.linspace(0, 40, rows), np.arange(41), stream.normal(size=41))
    ).astype(np.float32) * (1.6 / rows) * 14
    off = np.abs(canvas.x - path[:, None])
    canvas.shine(0.5 * np.exp(-off / 0.05) + 1.0 * bell(off, 0.0022), rgb("dcd6ff"))
