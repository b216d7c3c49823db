"""A prompt, understood as far as a small vocabulary goes."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from workers.providers.sketch.colour import Field, rgb
from workers.providers.sketch.palette import Palette, harmony, hour, overcast, tinted, without
from workers.providers.sketch.vocabulary import SKY_WORDS, WORDS

_LONGEST_PHRASE: Final = 3
_BACK_TO_FRONT: Final = ("mountains", "city", "dunes", "hills", "forest", "water", "meadow")
_COLOUR_REACH: Final = 2
"""A colour belongs to the thing it stands at most this many words before."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The words found in one prompt: kind to the names found, in order; and which thing has which colour."""

    names: dict[str, tuple[str, ...]]
    colours: dict[str, Field]

    def of(self, kind: str) -> tuple[str, ...]:
        """Give the names found of one kind of `WORDS`."""
        return self.names.get(kind, ())


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

    def stream(self, name: str) -> np.random.Generator:
        """Give random numbers of their own to one part, so that leaving out another changes nothing here."""
        digest = hashlib.blake2b(name.encode(), key=self.key, digest_size=16).digest()
        return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


@cache
def _phrases() -> dict[str, tuple[tuple[str, str], ...]]:
    """Give each word or phrase with the (kind, name) pairs it means."""
    found: dict[str, list[tuple[str, str]]] = {}
    for kind, names in WORDS.items():
        for name, words in names.items():
            for word in words.split():
                found.setdefault(word.replace("_", " "), []).append((kind, name))
    return {word: tuple(pairs) for word, pairs in found.items()}


def _meaning(phrase: str) -> tuple[tuple[str, str], ...]:
    """Give what a phrase means, or its singular."""
    known = _phrases()
    singulars = (phrase, phrase.removesuffix("s"), phrase.removesuffix("es"))
    return next((known[word] for word in (*singulars, phrase[:-3] + "y") if word in known), ())


def _meanings(text: str) -> Iterator[tuple[int, str, tuple[tuple[str, str], ...]]]:
    """Give position, words and meaning of each longest known phrase, and of each word of `SKY_WORDS`."""
    tokens = re.findall(r"[a-z0-9]+", text.casefold())
    position = 0
    while position < len(tokens):
        for length in range(_LONGEST_PHRASE, 0, -1):
            phrase = " ".join(tokens[position : position + length])
            meaning = _meaning(phrase)
            if meaning or phrase in SKY_WORDS:
                yield position, phrase, meaning
                position += length - 1
                break
        position += 1


def read(text: str) -> Reading:
    """Give the known words of a prompt, each name once, in order of appearance."""
    names: dict[str, dict[str, None]] = {}
    colours: dict[str, Field] = {}
    waiting: dict[str, int] = {}
    for position, _, meaning in _meanings(text):
        for kind, name in meaning:
            if kind == "colour":
                waiting[name] = position
            names.setdefault(kind, {})[name] = None
        things = [name for kind, name in meaning if kind in {"place", "subject"}]
        near = [code for code, at in waiting.items() if 0 < position - at <= _COLOUR_REACH]
        if things and near:
            colours.update(dict.fromkeys(things, rgb(near[-1])))
            for code in near:
                names["colour"].pop(code, None)
        if things or not meaning:
            waiting.clear()
    return Reading(names={kind: tuple(found) for kind, found in names.items()}, colours=colours)


def understand(
    *, prompt: str, negative_prompt: str, key: bytes, steps: int, guidance_scale: float
) -> Scene:
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


def _heaven(
    things: dict[str, tuple[str, ...]], dislike: Reading, time: str, chance: float
) -> frozenset[str]:
    """Give what is to be seen up there: what was named, and what the hour brings along."""
    seen = set(things["heaven"])
    if time in {"night", "dusk"}:
        seen.add("stars")
    if time == "night" and "aurora" not in seen and chance < 0.7:
        seen.add("moon")
    if time not in {"night", "dusk"} and not {"rain", "fog"} & set(things["weather"]):
        seen |= {"sun", "clouds"}
    if "rain" in things["weather"]:
        seen = seen - {"stars", "sun"} | {"clouds"}
    return frozenset(seen - set(dislike.of("heaven")))


def _palette(
    wish: Reading, dislike: Reading, time: str, season: str, prompt: str, kind: str
) -> Palette:
    palette = hour(time, season)
    if {"rain", "lightning"} & {*wish.of("weather"), *wish.of("heaven")} and "rainbow" not in wish.of("heaven"):
        palette = overcast(palette)
    wishes = [rgb(code) for code in wish.of("colour")]
    if "neon" in wish.of("style") and not wishes:
        wishes = [rgb("3a1a8c"), rgb("e83fb0"), rgb("29d3e0")]
    if not wishes and kind == "abstract":
        wishes = harmony(hashlib.blake2b(prompt.encode("utf-8", "replace"), digest_size=3).digest())
    return without(tinted(palette, wishes), [rgb(code) for code in dislike.of("colour")])
