"""The darkroom's last baths: bloom, grading, vignette, grain."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workers.providers.sketch.canvas import Canvas
from workers.providers.sketch.colour import Field, rgb
from workers.providers.sketch.field import blur, enlarge, noise, smooth
from workers.providers.sketch.scene import Scene


@dataclass(frozen=True, kw_only=True)
class Grade:
    """How a style is developed; the neutral grade changes nothing.

    Attributes:
        saturation: 0.0 is grey, 1.0 as painted.
        contrast: 1.0 as painted.
        lift: added to every level.
        grain: standard deviation of the grain, in levels of 0.0 to 1.0.
        tint: colour that greys are toned with, as hex; "" for none.
        paper: share of white paper showing through, 0.0 to 1.0.
    """

    saturation: float = 1.0
    contrast: float = 1.0
    lift: float = 0.0
    grain: float = 0.011
    tint: str = ""
    paper: float = 0.0


GRADES: Final[dict[str, Grade]] = {
    "mono": Grade(saturation=0.0, contrast=1.15, grain=0.022),
    "sepia": Grade(saturation=0.12, contrast=0.95, lift=0.02, grain=0.025, tint="c79a62"),
    "pastel": Grade(saturation=0.72, contrast=0.72, lift=0.13),
    "vivid": Grade(saturation=1.4, contrast=1.1),
    "moody": Grade(saturation=0.72, contrast=1.12, lift=-0.07, grain=0.016),
    "calm": Grade(saturation=0.88, contrast=0.92, lift=0.02),
    "watercolor": Grade(saturation=0.9, contrast=0.8, lift=0.08, grain=0.006, paper=0.85),
    "film": Grade(saturation=0.9, contrast=1.02, grain=0.026, tint="e8c9a0"),
}


def bloom(canvas: Canvas, scene: Scene) -> None:
    """Let the brightest places glow into their neighbourhood."""
    del scene
    bright = np.clip(canvas.rgb.max(axis=0) - 0.72, 0, 1) * 1.6
    soft = blur(bright, 0.035 * canvas.unit) * 0.6
    canvas.rgb += np.clip(soft, 0, 1) * (1 - canvas.rgb) * np.clip(canvas.rgb + 0.35, 0, 1)


def grade(canvas: Canvas, scene: Scene) -> None:
    """Apply the styles, then the vigour: saturation and contrast around middle grey."""
    chosen = [GRADES[style] for style in sorted(scene.styles & GRADES.keys())]
    saturation = (1 + 0.3 * scene.vigour) * np.prod([one.saturation for one in chosen], initial=1.0)
    contrast = (1.04 + 0.2 * scene.vigour) * np.prod([one.contrast for one in chosen], initial=1.0)
    lift = sum(one.lift for one in chosen)
    grey = np.tensordot(np.array((0.2126, 0.7152, 0.0722), np.float32), canvas.rgb, 1)
    canvas.rgb -= grey
    canvas.rgb *= float(saturation)
    canvas.rgb += grey
    for tint in (rgb(one.tint) for one in chosen if one.tint):
        canvas.rgb *= (0.55 + 0.45 * tint / tint.max())[:, None, None]
    canvas.rgb -= 0.5
    canvas.rgb *= float(contrast)
    canvas.rgb += 0.5 + lift


def paint(canvas: Canvas, scene: Scene) -> None:
    """Turn the picture into flat washes on paper, brush strokes or pixels, where such a style is asked."""
    if "oil" in scene.styles:
        _brush(canvas, scene)
    if "watercolor" in scene.styles:
        _wash(canvas, scene)
    if "pixel" in scene.styles:
        step = max(2, round(canvas.unit / 96))
        shape = canvas.coarse(step)
        row = np.minimum(np.arange(canvas.height) // step, shape[0] - 1)
        column = np.minimum(np.arange(canvas.width) // step, shape[1] - 1)
        for channel in range(3):
            small = np.round(enlarge(canvas.rgb[channel], shape) * 15) / 15
            canvas.rgb[channel] = small[row[:, None], column[None, :]]


def _brush(canvas: Canvas, scene: Scene) -> None:
    """Drag the picture along a slow flow in short strokes whose ridges catch the light."""
    stream = scene.stream("oil")
    flow = canvas.full(noise(stream, canvas.coarse(4), (2 * canvas.span[0], 2 * canvas.span[1]), octaves=2))
    bristle = noise(stream, (canvas.height, canvas.width), (110 * canvas.span[0], 110 * canvas.span[1]))
    along = np.sin(1.3 * flow), np.cos(1.3 * flow)
    row, column = np.arange(canvas.height)[:, None], np.arange(canvas.width)[None, :]
    stroke = np.zeros_like(bristle)
    for reach in np.linspace(-0.02, 0.02, 7, dtype=np.float32) * np.float32(canvas.unit):
        stroke += bristle[
            _moved(row, reach * along[0], canvas.height), _moved(column, reach * along[1], canvas.width)
        ]
    stroke *= 0.3
    reach = 0.0028 * canvas.unit * stroke
    at = _moved(row, reach * along[0], canvas.height), _moved(column, reach * along[1], canvas.width)
    canvas.rgb[:] = canvas.rgb[:, at[0], at[1]] * (1 + 0.06 * stroke)


def _moved(index: NDArray[np.int64], by: Field, size: int) -> NDArray[np.int32]:
    """Give rows or columns moved by some pixels, kept inside the picture."""
    return np.clip(index + by, 0, size - 1).astype(np.int32)


def _wash(canvas: Canvas, scene: Scene) -> None:
    """Thin the colours as water does, dark at the edges of each wash, and leave the paper's rim white."""
    stream = scene.stream("paper")
    blotch = canvas.full(noise(stream, canvas.coarse(3), (4 * canvas.span[0], 4 * canvas.span[1]), octaves=5))
    grain = noise(
        stream, (canvas.height, canvas.width), (150 * canvas.span[0], 150 * canvas.span[1]), octaves=2
    )
    grey = canvas.rgb.mean(axis=0)
    edge = np.clip(np.abs(grey - blur(grey, 0.012 * canvas.unit)) * 2.2, 0, 0.3)
    canvas.rgb *= 1 - edge
    rim = np.minimum(
        np.minimum(canvas.x, canvas.span[1] - canvas.x), np.minimum(canvas.y, canvas.span[0] - canvas.y)
    )
    shows = 1 - smooth(0.02, 0.05, rim + 0.014 * blotch)
    thin = np.clip(0.12 + 0.07 * blotch + 0.02 * grain, 0, 1)
    canvas.cover(np.maximum(thin, shows), rgb("fbf7ef"))


def vignette(canvas: Canvas, scene: Scene) -> None:
    """Darken the corners a little, as a lens does."""
    if "watercolor" in scene.styles or "pixel" in scene.styles:
        return
    across = (canvas.x / canvas.span[1] - 0.5) ** 2
    down = (canvas.y / canvas.span[0] - 0.5) ** 2
    canvas.rgb *= 1 - 0.62 * np.clip(across + down - 0.1, 0, 1)


def grain(canvas: Canvas, scene: Scene) -> None:
    """Add film grain, strongest in the middle tones; it also hides the 256 steps of smooth skies."""
    if "pixel" in scene.styles:
        return
    chosen = [GRADES[style].grain for style in scene.styles & GRADES.keys()]
    strength = max(chosen, default=Grade().grain)
    speckle = scene.stream("grain").standard_normal((canvas.height, canvas.width), np.float32)
    tone = np.clip(canvas.rgb.mean(axis=0), 0, 1)
    canvas.rgb += speckle * strength * (0.45 + 2.2 * tone * (1 - tone))
