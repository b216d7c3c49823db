"""What colour the hours are, and how wishes and dislikes shift them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from workers.providers.sketch.colour import Field, from_lab, mix, rgb, to_lab


@dataclass(frozen=True, kw_only=True)
class Palette:
    """The colours of one hour, sRGB 0.0 to 1.0.

    Attributes:
        sky: from the zenith down to the horizon.
        light: the sun or moon, and what it shines on.
        near: the darkest thing in the foreground.
        land: what grows or lies on the ground, in daylight.
        daylight: how much of `land` one can see, 0.0 to 1.0.
        darkness: how visible stars are, 0.0 to 1.0.
    """

    sky: tuple[Field, ...]
    light: Field
    near: Field
    land: Field
    daylight: float
    darkness: float

    @property
    def haze(self) -> Field:
        """The colour that far things fade to."""
        return mix(self.sky[-1], self.sky[-2], 0.55)

    def ground(self, *, depth: float) -> Field:
        """Give the colour of land from far (depth 0.0) to near (1.0)."""
        here = mix(self.near, self.land, 0.1 + 0.75 * self.daylight)
        return mix(self.haze, here, 0.22 + 0.78 * depth)


HOURS: Final[dict[str, tuple[str, str, str, float, float]]] = {
    "dawn": ("34508a 7f86bb dd9fb0 f9c5a2 ffe6bd", "fff1cf", "232848", 0.25, 0.15),
    "morning": ("4a8bcd 85b6e2 bfdaec f3ead6 fdf0d0", "fff8e0", "1f3f3a", 0.75, 0.0),
    "day": ("2a72c8 5a9fe0 9cccf0 d3e9f4 f2f5ee", "fffdf0", "183c2e", 0.95, 0.0),
    "golden": ("6d93b8 a9b3b4 e3c796 fbc873 ffe3a0", "fff2c0", "35291d", 0.5, 0.0),
    "sunset": ("252a66 653f86 c2547a f07d55 ffc367", "ffe7a0", "170f28", 0.16, 0.1),
    "dusk": ("141c4a 333f80 7a6299 cf8593 f5b08c", "ffd9b8", "0c1026", 0.12, 0.5),
    "night": ("040819 09142f 10254a 1c3a62 35587f", "e8efff", "02050d", 0.1, 1.0),
}
"""Sky from zenith to horizon, light, near, daylight, darkness."""

LANDS: Final = {"spring": "8fb45c", "summer": "4d8446", "autumn": "c0642a", "winter": "dfe8f2", "": "5d8550"}
"""Season to the colour of growing things."""


def hour(name: str, season: str) -> Palette:
    """Give the palette of an hour of `HOURS` in a season of `LANDS`."""
    sky, light, near, daylight, darkness = HOURS[name]
    return Palette(
        sky=tuple(rgb(code) for code in sky.split()),
        light=rgb(light),
        near=rgb(near),
        land=rgb(LANDS[season]),
        daylight=daylight,
        darkness=darkness,
    )


def tinted(palette: Palette, wishes: Iterable[Field]) -> Palette:
    """Give the palette with its sky running through the wished colours; its lightness mostly stays."""
    wanted = [to_lab(wish) for wish in wishes]
    if not wanted:
        return palette
    along = np.linspace(0, 1, len(wanted))
    sky = []
    for index, stop in enumerate(palette.sky):
        at = index / (len(palette.sky) - 1)
        wish = np.array([np.interp(at, along, channel) for channel in zip(*wanted, strict=True)])
        sky.append(_toward(stop, wish, 0.3, 0.8))
    mean = np.mean(wanted, axis=0)
    return replace(
        palette,
        sky=tuple(sky),
        light=_toward(palette.light, wanted[-1], 0.05, 0.35),
        near=_toward(palette.near, mean, 0.08, 0.6),
        land=_toward(palette.land, wanted[0], 0.1, 0.4),
    )


def _toward(colour: Field, wish: Field, lightness: float, hue: float) -> Field:
    share = np.array([lightness, hue, hue])
    return from_lab(to_lab(colour) * (1 - share) + wish * share)


def overcast(palette: Palette) -> Palette:
    """Give the palette under a heavy sky: slate above, a pale strip left at the horizon."""
    slate = [rgb(code) for code in ("1d242e", "2f3a47", "4b5a68", "71818c", "a9b4b4")]
    dark = 0.35 * (1 - palette.daylight)
    sky = tuple(
        mix(mix(stop, grey, 0.72), palette.near, dark) for stop, grey in zip(palette.sky, slate, strict=True)
    )
    land = mix(palette.land, slate[1], 0.35)
    return replace(palette, sky=sky, land=land, light=mix(palette.light, slate[4], 0.5))


def harmony(lots: bytes) -> list[Field]:
    """Give four colours that go together, by lot: neighbours in hue, and an accent from across the circle."""
    start = 2 * math.pi * lots[0] / 256
    spread, leap = 0.35 + 0.5 * lots[1] / 256, math.pi * (0.75 + 0.5 * lots[2] / 256)
    hues = (start, start + spread, start + 2 * spread, start + spread + leap)
    plan = zip(hues, (0.4, 0.55, 0.68, 0.82), (0.13, 0.15, 0.13, 0.12), strict=True)
    return [
        from_lab(np.array([light, chroma * math.cos(hue), chroma * math.sin(hue)]))
        for hue, light, chroma in plan
    ]


def without(palette: Palette, dislikes: Iterable[Field]) -> Palette:
    """Give the palette with colours near the disliked ones turned to grey."""
    for dislike in dislikes:
        palette = replace(
            palette,
            sky=tuple(_muted(stop, dislike) for stop in palette.sky),
            light=_muted(palette.light, dislike),
            near=_muted(palette.near, dislike),
            land=_muted(palette.land, dislike),
        )
    return palette


def _muted(colour: Field, dislike: Field) -> Field:
    """Take the chroma out of a colour whose hue is within about 60 degrees of the disliked one's."""
    lab, other = to_lab(colour), to_lab(dislike)
    likeness = float(lab[1:] @ other[1:]) / (float(np.hypot(*lab[1:]) * np.hypot(*other[1:])) + 1e-6)
    keep = 1 - 0.9 * min(1.0, max(0.0, (likeness - 0.5) * 4))
    return from_lab(lab * np.array([1, keep, keep]))
