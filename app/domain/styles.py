"""What `enhance_style` and `enhance_prompt` make of a prompt: templates, and terms that suit its words."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Annotated, Any, Final, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from app.domain.spec import MAX_PROMPT
from app.errors import FieldProblem, InvalidFields, SetupError

MARK: Final = "{prompt}"
"""Where a template takes the customer's words."""
MAX_SUBJECTS: Final = 2
"""Subjects of a prompt that get terms; more of them would crowd out the customer's own words."""


@dataclass(frozen=True, kw_only=True)
class Styled:
    """A prompt and its negative prompt with a style's words around them."""

    prompt: str
    negative_prompt: str


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Template(_Entry):
    """One style: the words around a prompt, and what does not suit the look."""

    prompt: str
    negative_prompt: str = ""
    adult: bool = False

    @field_validator("prompt")
    @classmethod
    def _takes_the_prompt_once(cls, prompt: str) -> str:
        if prompt.count(MARK) != 1:
            raise ValueError(f"must hold {MARK} exactly once")
        return prompt

    def around(self, prompt: str, negative_prompt: str) -> Styled:
        """Give both texts, the template's words around the first and behind the second.

        The prompt is never searched or formatted: braces in it, even the template's own mark, survive. Terms
        that the negative prompt already holds are not repeated.
        """
        before, after = self.prompt.split(MARK)
        terms = self.negative_prompt.split(", ") if self.negative_prompt else []
        return Styled(prompt=before + prompt + after, negative_prompt=_with(negative_prompt, terms))


class Kind(_Entry):
    """A medium or subject: the words that tell it, and the terms that help it."""

    words: Annotated[frozenset[str], Field(min_length=1)]
    terms: Annotated[tuple[str, ...], Field(min_length=1)]

    def position_in(self, words: list[str]) -> int | None:
        """Give where the first of this kind's words stands, counted from 0, or None where there is none."""
        return next((place for place, word in enumerate(words) if _is_one_of(word, self.words)), None)


class Enhancement(_Entry):
    """The vocabulary of `enhanced`."""

    plain: tuple[str, ...]
    media: tuple[Kind, ...]
    subjects: tuple[Kind, ...]

    @model_validator(mode="after")
    def _terms_tell_nothing_new(self) -> Self:
        kinds = (*self.media, *self.subjects)
        for term in (*self.plain, *(term for kind in kinds for term in kind.terms)):
            if any(kind.position_in(_words(term)) is not None for kind in kinds):
                raise ValueError(f"the term {term!r} holds a word that asks for terms")
        return self

    def of_medium(self, prompt: str) -> list[str]:
        """Give the terms of the first medium of the file that the prompt names, or the plain ones."""
        words = _words(prompt)
        named = (kind.terms for kind in self.media if kind.position_in(words) is not None)
        return list(next(named, self.plain if words else ()))

    def of_subjects(self, prompt: str) -> list[str]:
        """Give the terms of the first MAX_SUBJECTS subjects that the prompt names, in its own order."""
        words = _words(prompt)
        places = [(kind.position_in(words), kind.terms) for kind in self.subjects]
        named = sorted((place, terms) for place, terms in places if place is not None)
        return [term for _, terms in named[:MAX_SUBJECTS] for term in terms]


class Styles(_Entry):
    """All styles, by name, and the vocabulary of prompt enhancement."""

    styles: Mapping[str, Template]
    never_adult: frozenset[str]
    enhancement: Enhancement

    def names(self) -> tuple[str, ...]:
        """Give each style's name once, the adult ones included, in the order of ModelsLab's page."""
        return tuple(self.styles)

    def apply(self, prompt: str, negative_prompt: str, *, style: str | None, allow_adult: bool) -> Styled:
        """Give both texts with a style's words; without a style (None or blank) they stay as they are.

        Case and surrounding blanks of the name do not matter. The customer's words stay whole and unchanged,
        in one piece; those of the negative prompt come first.

        Args:
            allow_adult: the operator enabled adult styles. Even then a prompt with one of the words of
                `never_adult` gets none; that is a list of English words and no more, not a safety checker.

        Raises:
            InvalidFields: there is no such style (the message names the nearest ones), it is an adult one and
                may not be used (field `enhance_style`), or a text is longer than MAX_PROMPT with the style's
                words (field `prompt` or `negative_prompt`).
        """
        name = _name(style)
        if not name:
            return Styled(prompt=prompt, negative_prompt=negative_prompt)
        template = self.styles.get(name)
        if template is None:
            raise _refused(self._unknown(name, allow_adult=allow_adult))
        if template.adult:
            self._check_adult(name, prompt, allow_adult=allow_adult)
        styled = template.around(prompt, negative_prompt)
        if problems := [
            *_too_long("prompt", styled.prompt),
            *_too_long("negative_prompt", styled.negative_prompt),
        ]:
            raise InvalidFields(*problems)
        return styled

    def _unknown(self, name: str, *, allow_adult: bool) -> str:
        usable = [known for known, template in self.styles.items() if allow_adult or not template.adult]
        near = " or ".join(repr(known) for known in difflib.get_close_matches(name[:80], usable, n=3))
        remedy = (
            f"did you mean {near}?" if near else "send 'cinematic', 'anime' or 'watercolor', or leave it out"
        )
        return f"there is no style {name[:80]!r}; {remedy}"

    def _check_adult(self, name: str, prompt: str, *, allow_adult: bool) -> None:
        if not allow_adult:
            raise _refused(
                f"the style {name!r} is for adult content, which this installation does not offer; "
                "choose another one or ask your Darkroom operator"
            )
        if any(_is_one_of(word, self.never_adult) for word in _words(prompt)):
            raise _refused(f"the style {name!r} is not applied to a prompt that speaks of minors")


@cache
def load() -> Styles:
    """Read the built-in styles, once per process.

    Raises:
        SetupError: the file that comes with this package is missing or damaged; the message says where.
    """
    try:
        text = (resources.files("app.domain") / "styles.yaml").read_text(encoding="utf-8")
        content: Any = yaml.safe_load(text)
        return Styles.model_validate(content)
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise SetupError(f"The styles in styles.yaml cannot be used: {error}") from error


def enhanced(prompt: str, *, style: str | None = None) -> str:
    """Give the prompt with terms behind it that suit what it already says; the vocabulary is in styles.yaml.

    1. The first medium of the file that the prompt names (a logo, a painting, a photo ...) gives its terms;
       a prompt that names none gets the plain ones. With a style neither come: it settles the medium.
    2. The first two subjects that it names (a portrait, food, an animal, a building ...), in the prompt's
       own order, give theirs.
    3. A term that the prompt already holds, in any case and however hyphenated, is not repeated.
    4. A term that would make it longer than MAX_PROMPT, the style's words included, is left out. A prompt
       without a single word stays as it is.

    The customer's words come first and unchanged; only blanks behind them go. The same prompt always gives
    the same answer, and an enhanced prompt gives itself, as terms never name a medium or subject (checked on
    load): a customer may send our answer back as the next prompt.

    Args:
        style: what `Styles.apply` will be called with afterwards; an unknown name counts as none here.
    """
    styles = load()
    template = styles.styles.get(_name(style))
    terms = [] if template else styles.enhancement.of_medium(prompt)
    room = len(template.prompt) - len(MARK) if template else 0
    return _with(prompt, [*terms, *styles.enhancement.of_subjects(prompt)], limit=MAX_PROMPT - room)


def _with(text: str, terms: Iterable[str], *, limit: int | None = None) -> str:
    """Give the text and, behind it, those terms that it lacks and that fit into `limit` characters."""
    held = _padded(text)
    for term in terms:
        kept = text.rstrip()
        joint = " " if kept.endswith((".", ",", ";", ":", "!", "?")) else ", "
        longer = f"{kept}{joint}{term}" if kept else term
        if _padded(term) in held or (limit is not None and len(longer) > limit):
            continue
        text = longer
        held = _padded(text)
    return text


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _padded(text: str) -> str:
    """Give the words with one blank around each, so that whole words are found, and only they."""
    return f" {' '.join(_words(text))} "


def _is_one_of(word: str, singulars: frozenset[str]) -> bool:
    return word in singulars or (word.endswith("s") and word[:-1] in singulars)


def _name(style: str | None) -> str:
    return (style or "").strip().lower()


def _too_long(field: str, text: str) -> list[FieldProblem]:
    if len(text) <= MAX_PROMPT:
        return []
    message = f"must be at most {MAX_PROMPT:,} characters with the style's words, not {len(text):,}"
    return [FieldProblem(field=field, message=message)]


def _refused(message: str) -> InvalidFields:
    return InvalidFields(FieldProblem(field="enhance_style", message=message))
