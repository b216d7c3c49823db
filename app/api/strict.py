"""How Darkroom's own dialect reads a request: what it does not know it refuses, naming the nearest it knows.

A typing error that is ignored makes another picture than was asked for, or lists other jobs.
"""

import difflib
from collections.abc import Iterable
from enum import StrEnum
from typing import Final, TypeVar

from flask import request
from pydantic import BaseModel, BeforeValidator

from app.api import http
from app.errors import FieldProblem

M = TypeVar("M", bound=BaseModel)

_MOST_TOLD: Final = 20
_LONGEST_NAME: Final = 60
"""Characters of an unknown name that an error repeats."""
_OTHERS_NAMES: Final = {
    "cfg_scale": "guidance_scale",
    "format": "output_format",
    "init_image": "image",
    "mask": "mask_image",
    "modelid": "model",
    "model_id": "model",
    "n": "num_images",
    "numoutputs": "num_images",
    "samples": "num_images",
    "steps": "num_inference_steps",
}
"""Other APIs' names for members of ours that no comparison of letters finds."""


def unknown_members(known: Iterable[str], sent: Iterable[str], *, inside: str = "") -> list[FieldProblem]:
    """Give a problem for each member or parameter that was sent and is not known.

    Args:
        inside: the object they were sent in, with a dot at its end; nothing for the body itself.
    """
    names = list(known)
    unknown = [name for name in sent if name not in names]
    return [
        FieldProblem(field=f"{inside}{name[:_LONGEST_NAME]}", message=_nearest(name, names))
        for name in unknown[:_MOST_TOLD]
    ]


def _nearest(name: str, known: list[str]) -> str:
    near = _OTHERS_NAMES.get(name[:_LONGEST_NAME].lower()) or _closest(name, known)
    if near in known:
        return f"is not known here; did you mean {near}?"
    return f"is not known here; remove it. Known: {', '.join(known) or 'nothing'}"


def _closest(word: str, known: list[str]) -> str | None:
    """The known word that is most like this one, if any is, by its beginning.

    Comparing takes 100 ns and 40 bytes for each character, and a body may hold a word of 35 MB.
    """
    return next(iter(difflib.get_close_matches(word[:_LONGEST_NAME].lower(), known, n=1)), None)


def one_of(words: type[StrEnum]) -> BeforeValidator:
    """For members that are one of a few words: refuses any other, naming the nearest."""
    known = [str(word) for word in words]

    def check(value: object) -> object:
        if value in known:
            return value
        near = _closest(value, known) if isinstance(value, str) else None
        hint = f"; did you mean {near}?" if near else ""
        raise ValueError(f"must be one of {', '.join(known)}{hint}")

    return BeforeValidator(check)


def read_query(model: type[M]) -> M:
    """Give the request's query string; a parameter without a value counts as not sent.

    Raises:
        InvalidFields: a parameter is not known or cannot be used.
    """
    problems = unknown_members(model.model_fields, request.args)
    repeated = [name for name, values in request.args.lists() if len(values) > 1]
    problems += [
        FieldProblem(field=name, message="was sent more than once; send it once") for name in repeated
    ]
    given = {name: text for name, text in request.args.items() if text}
    return http.parse(model, given, besides=problems)
