"""What every dialect does the same way with HTTP: read a body safely, name the caller, answer in JSON.

Nothing here knows a dialect's words; each dialect passes what is its own.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, TypeVar

import orjson
from flask import Request, Response, g, request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ValidationError
from werkzeug import exceptions as http

from app.auth import KeyRing
from app.db.accounts import KeyHolder
from app.errors import (
    BodyTooLarge,
    DarkroomError,
    FieldProblem,
    InvalidFields,
    MalformedBody,
    MethodNotAllowed,
    NotFound,
    UnsupportedMedia,
)
from app.intake import Once

M = TypeVar("M", bound=BaseModel)

_IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")


def _clean(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain NUL characters; remove them")
    return text


def _no_disguise(value: object) -> object:
    # Pydantic's lax mode takes false for 0.0 and "2" for 2; its strict mode refuses 2.0 for an integer.
    if isinstance(value, bool | str):
        kind = "a boolean" if isinstance(value, bool) else "a string"
        raise ValueError(f"must be a JSON number, not {kind}")  # noqa: TRY004 - pydantic collects these
    return value


CleanText = Annotated[str, AfterValidator(_clean)]
"""Text that Postgres can hold."""
JSON_NUMBER: Final = BeforeValidator(_no_disguise)
"""For numbers in JSON bodies: neither a string nor a boolean will do."""


def read_json(incoming: Request, *, limit: int) -> dict[str, Any]:
    """Give the request's body as a dict.

    orjson bounds the depth of nesting (1024) and refuses NaN, Infinity and lone surrogates, all of which
    the standard library's reader lets through or crashes on.

    Raises:
        UnsupportedMedia: the Content-Type is not JSON.
        BodyTooLarge: more than `limit` bytes.
        MalformedBody: not JSON, or no object at the top; the message says where it breaks.
    """
    if not incoming.is_json:
        sent = incoming.mimetype or "none"
        raise UnsupportedMedia(f"Send the body as Content-Type: application/json, not {sent[:80]}.")
    incoming.max_content_length = limit
    try:
        content = orjson.loads(incoming.get_data(cache=False))
    except http.RequestEntityTooLarge:
        raise BodyTooLarge(f"The JSON body may have at most {limit:,} bytes.") from None
    except orjson.JSONDecodeError as error:
        where = f"{error.msg} (line {error.lineno}, column {error.colno})"
        raise MalformedBody(f"The body is not valid JSON: {where}") from None
    if not isinstance(content, dict):
        raise MalformedBody("The body must be a JSON object, { … }.")
    return content


def read_form(incoming: Request, *, limit: int) -> tuple[dict[str, str], dict[str, bytes]]:
    """Give the text fields and the files of a multipart body.

    Raises:
        UnsupportedMedia: the Content-Type is not multipart/form-data.
        BodyTooLarge: more than `limit` bytes, or a text field or the number of parts out of all proportion.
        InvalidFields: a field was sent more than once.
    """
    if incoming.mimetype != "multipart/form-data":
        sent = incoming.mimetype or "none"
        raise UnsupportedMedia(f"Send the body as Content-Type: multipart/form-data, not {sent[:80]}.")
    incoming.max_content_length = limit
    try:
        texts, files = incoming.form, incoming.files
    except http.RequestEntityTooLarge:
        raise BodyTooLarge(f"The body may have at most {limit:,} bytes, in few parts.") from None
    repeated = [
        FieldProblem(field=name, message="was sent more than once; send it once")
        for name in {*texts, *files}
        if len(texts.getlist(name)) + len(files.getlist(name)) > 1
    ]
    if repeated:
        raise InvalidFields(*repeated)
    return dict(texts.items()), {name: part.stream.read() for name, part in files.items()}


def parse(model: type[M], content: dict[str, Any]) -> M:
    """Give the validated request.

    Raises:
        InvalidFields: every field that cannot be used, under its public name.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InvalidFields(*problems_of(error)) from None


def problems_of(error: ValidationError) -> list[FieldProblem]:
    """Give pydantic's findings, one per field, in words for the person who sent the request."""
    found: dict[str, str] = {}
    for each in error.errors(include_url=False, include_input=False):
        field = ".".join(str(part) for part in each["loc"]) or "body"
        found.setdefault(field, _sentence(each["type"], each["msg"]))
    return [FieldProblem(field=field, message=message) for field, message in found.items()]


def _sentence(kind: str, message: str) -> str:
    if kind == "missing":
        return "is required"
    text = message.removeprefix("Value error, ").removeprefix("Input should be ")
    return (
        text
        if text.startswith(("must", "is ", "send"))
        else f"must be {text}"
        if text != message
        else message
    )


def unknown_fields(model: type[BaseModel], sent: Iterable[str]) -> list[str]:
    """Give a sentence for each member the request's model does not know; such members are ignored."""
    known = {field.alias or name for name, field in model.model_fields.items()}
    return [f"unknown field {name[:60]!r} was ignored" for name in sent if name not in known]


def read_once(incoming: Request, *, endpoint: str, parts: Sequence[bytes]) -> Once | None:
    """Give the request's Idempotency-Key with a hash over `parts`; None when it has none.

    Raises:
        InvalidFields: the key is not 1 to 255 visible ASCII characters.
    """
    key = incoming.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        message = "must be 1 to 255 visible ASCII characters, for instance a UUID"
        raise InvalidFields(FieldProblem(field="Idempotency-Key", message=message))
    content = hashlib.sha256()
    for part in parts:
        content.update(len(part).to_bytes(8, "big") + part)
    return Once(endpoint=endpoint, key=key, request_sha256=content.digest())


def authenticate(keys: KeyRing, *, bearer: bool) -> KeyHolder:
    """Name the caller by the X-API-Key header, or also by `Authorization: Bearer` where `bearer` is set.

    Raises:
        Unauthenticated, AccountDisabled: see `KeyRing.holder`.
    """
    key = request.headers.get("X-API-Key")
    if key is None and bearer:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else None
    holder = keys.holder(key)
    g.holder = holder
    return holder


def caller() -> KeyHolder:
    """Give whoever `authenticate` named in this request."""
    holder = g.holder
    assert isinstance(holder, KeyHolder)
    return holder


def json_response(content: object, status: int = 200) -> Response:
    """Give an answer in JSON that no cache keeps and no browser sniffs."""
    answer = Response(orjson.dumps(content), status=status, mimetype="application/json")
    answer.headers["Cache-Control"] = "no-store"
    return answer


def as_ours(error: http.HTTPException) -> DarkroomError:
    """Give our error for one that Flask raised by itself."""
    match error:
        case http.NotFound():
            return NotFound()
        case http.MethodNotAllowed():
            allowed = ", ".join(sorted(set(error.valid_methods or ()) - {"HEAD", "OPTIONS"}))
            return MethodNotAllowed(f"This address answers {allowed}, not {request.method[:20]}.")
        case http.RequestEntityTooLarge():
            return BodyTooLarge()
        case http.UnsupportedMediaType():
            return UnsupportedMedia()
        case _:
            return MalformedBody(error.description)
