"""A prompt, read for the words of a small vocabulary."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

from workers.providers.sketch.colour import Field, rgb
from workers.providers.sketch.vocabulary import SKY_WORDS, WORDS

_LONGEST_PHRASE: Final = 3
"""Words in the longest phrase of the vocabulary: "black and white"."""
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
            if kind == "bloom":
                colours.setdefault("meadow", rgb(name))
            names.setdefault(kind, {})[name] = None
        things = [name for kind, name in meaning if kind in {"place", "subject"} and name not in SKY_WORDS]
        near = [code for code, at in waiting.items() if 0 < position - at <= _COLOUR_REACH]
        if things and near:
            colours.update(dict.fromkeys(things, rgb(near[-1])))
            for code in near:
                names["colour"].pop(code, None)
        if things or not meaning or SKY_WORDS & {name for _, name in meaning}:
            waiting.clear()
    return Reading(names={kind: tuple(found) for kind, found in names.items()}, colours=colours)
