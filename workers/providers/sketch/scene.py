"""What a prompt's words make: a scene with places, an hour, colours and a light."""

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np

from workers.providers.sketch.colour import Field, rgb
from workers.providers.sketch.palette import Palette, harmony, hour, overcast, tinted, without
from workers.providers.sketch.reading import Reading, read
from workers.providers.sketch.vocabulary import WORDS

_MIDDLE: Final = 0.5
_MOONLIT: Final = 0.7
"""Share of nights with a moon, where the prompt leaves it open."""
_BACK_TO_FRONT: Final = ("mountains", "city", "dunes", "hills", "forest", "water", "meadow")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What will be drawn.

    Attributes:
        key: what all random numbers of this drawing follow from.
        kind: landscape, space or abstract.
        palette: its colours.
        horizon: where the sky ends, as a share of the height.
        light: where sun or moon stand, as shares of width and height.
        sun: whether the light is the sun rather than the moon.
        heaven: which of sun, moon, stars, aurora, clouds, rainbow and lightning are seen.
        weather: any of rain, snow and fog.
        season: spring, summer, autumn, winter, or "" for none in particular.
        places: from back to front.
        subjects: who stands, swims or flies there.
        colours: place or subject to the colour it was given.
        styles: manners of painting.
        detail: octaves of the finest texture, 2 to 6.
        vigour: contrast and saturation, -1.0 (pale) to 1.0 (strong).
    """

    key: bytes
    kind: str
    palette: Palette
    horizon: float
    light: tuple[float, float]
    sun: bool
    heaven: frozenset[str]
    weather: frozenset[str]
    season: str
    places: tuple[str, ...]
    subjects: tuple[str, ...]
    colours: dict[str, Field]
    styles: frozenset[str]
    detail: int
    vigour: float

    @property
    def side(self) -> float:
        """1.0 where the light stands on the right, -1.0 on the left."""
        return 1.0 if self.light[0] > _MIDDLE else -1.0

    def stream(self, name: str) -> np.random.Generator:
        """Give random numbers of their own to one part, so that leaving out another changes nothing here."""
        digest = hashlib.blake2b(name.encode(), key=self.key, digest_size=16).digest()
        return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


def understand(*, prompt: str, negative_prompt: str, key: bytes, steps: int, guidance_scale: float) -> Scene:
    """Give the scene that a prompt describes; what it leaves open is drawn by lot from `key`.

    Args:
        prompt: read for the words of `WORDS`; without any, the scene is abstract in colours of its hash.
        negative_prompt: what it names is taken out of the scene, colours out of the palette.
        key: at most 64 bytes, from which every random number follows.
        steps: more give finer texture, up to 32.
        guidance_scale: 7.5 is neutral; less is paler, more is stronger.
    """
    wish, dislike = read(prompt), read(negative_prompt)
    lots = np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.blake2b(key, digest_size=16).digest())))
    chance = [float(value) for value in lots.random(16)]
    things = {kind: _wanted(wish, dislike, kind) for kind in WORDS}
    places = _places(things, chance)
    time = _time(things, chance[1])
    season, kind = next(iter(things["season"]), ""), _kind(things, places)
    return Scene(
        key=key,
        kind=kind,
        palette=_palette(wish, dislike, time, season, prompt, kind),
        horizon=_horizon(things, places) + 0.08 * (chance[2] - 0.5),
        light=_light(time, things, chance),
        sun="moon" not in things["heaven"] and time != "night",
        heaven=_heaven(things, dislike, time, chance[5]),
        weather=frozenset(things["weather"]),
        season=season,
        places=places,
        subjects=things["subject"][:4],
        colours=wish.colours,
        styles=frozenset(things["style"]),
        detail=2 + min(4, steps.bit_length() - 1),
        vigour=min(1.0, max(-1.0, (guidance_scale - 7.5) / 7.5)),
    )


def _wanted(wish: Reading, dislike: Reading, kind: str) -> tuple[str, ...]:
    return tuple(name for name in wish.of(kind) if name not in dislike.of(kind))


def _places(things: dict[str, tuple[str, ...]], chance: list[float]) -> tuple[str, ...]:
    """Give the landscape's places from back to front; by lot where only a subject or an hour is named."""
    named = tuple(place for place in _BACK_TO_FRONT if place in things["place"])
    if named or {"space", "abstract"} & set(things["place"]):
        return named
    if {"boat", "whale", "lighthouse", "palm"} & set(things["subject"]):
        return ("water",)
    if not any(things[kind] for kind in ("time", "heaven", "weather", "season", "subject")):
        return ()
    homes = (("mountains",), ("mountains", "water"), ("hills",), ("mountains", "forest"), ("water",))
    return homes[int(chance[0] * len(homes))]


def _kind(things: dict[str, tuple[str, ...]], places: tuple[str, ...]) -> str:
    if "abstract" in things["place"]:
        return "abstract"
    if "space" in things["place"] and not places:
        return "space"
    return "landscape" if places else "abstract"


def _horizon(things: dict[str, tuple[str, ...]], places: tuple[str, ...]) -> float:
    """Give the horizon's height: low where the sky matters, at a portrait's shoulders, high for water."""
    if {"portrait", "maiden"} & set(things["subject"]):
        return 0.78
    return 0.56 if {"water", "meadow"} & set(places) else 0.66


def _time(things: dict[str, tuple[str, ...]], chance: float) -> str:
    """Give the hour that was named or follows from the rest, else one by lot."""
    if things["time"]:
        return things["time"][-1]
    if {"moon", "stars", "aurora"} & set(things["heaven"]) or "space" in things["place"]:
        return "night"
    likely: tuple[str, ...] = ("dawn", "golden", "sunset", "morning", "dusk")
    if "city" in things["place"]:
        likely = ("dusk", "night")
    if {"meadow", "hills"} & set(things["place"]):
        likely = ("morning", "day", "golden", "golden", "dawn")
    if "rain" in things["weather"]:
        likely = ("dusk", "morning", "dusk")
    return likely[int(chance * len(likely))]


def _light(time: str, things: dict[str, tuple[str, ...]], chance: list[float]) -> tuple[float, float]:
    """Give where the light stands: low at the ends of the day, high at noon and at night."""
    height = {"day": 0.14, "morning": 0.24, "night": 0.2, "golden": 0.36}.get(time, 0.45)
    if "moon" in things["heaven"]:
        height = min(height, 0.26)
    side = 0.22 + 0.56 * chance[3]
    return side, height + 0.08 * (chance[4] - 0.5)


def _heaven(things: dict[str, tuple[str, ...]], dislike: Reading, time: str, chance: float) -> frozenset[str]:
    """Give what is to be seen up there: what was named, and what the hour brings along."""
    seen = set(things["heaven"])
    if time in {"night", "dusk"}:
        seen.add("stars")
    if time == "night" and "aurora" not in seen and chance < _MOONLIT:
        seen.add("moon")
    if time not in {"night", "dusk"} and not {"rain", "fog"} & set(things["weather"]):
        seen |= {"sun", "clouds"}
    if "rain" in things["weather"]:
        seen = seen - {"stars", "sun"} | {"clouds"}
    return frozenset(seen - set(dislike.of("heaven")))


def _palette(wish: Reading, dislike: Reading, time: str, season: str, prompt: str, kind: str) -> Palette:
    palette = hour(time, season)
    if {"rain", "lightning"} & {*wish.of("weather"), *wish.of("heaven")} and "rainbow" not in wish.of(
        "heaven"
    ):
        palette = overcast(palette)
    wishes = [rgb(code) for code in wish.of("colour")]
    if "neon" in wish.of("style") and not wishes:
        wishes = [rgb("3a1a8c"), rgb("e83fb0"), rgb("29d3e0")]
    if not wishes and kind == "abstract":
        wishes = harmony(hashlib.blake2b(prompt.encode(), digest_size=3).digest())
    return without(tinted(palette, wishes), [rgb(code) for code in dislike.of("colour")])
