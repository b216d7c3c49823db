"""What every dialect does the same way with HTTP: read a body safely, name the caller, answer in JSON.

Nothing here knows a dialect's words; each dialect passes what is its own.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import IO, Annotated, Any, Final, TypeVar

import orjson
from flask import Request, Response, g, request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ValidationError
from werkzeug import exceptions as http

from app.db.accounts import KeyHolder
from app.db.door import Once
from app.errors import (
    BodyTooLarge,
    DarkroomError,
    FieldProblem,
    InvalidFields,
    MalformedBody,
    MethodNotAllowed,
    NotFound,
    RequestError,
    UnsupportedMedia,
)
from app.settings import Settings

M = TypeVar("M", bound=BaseModel)

_IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
_FORM_NUMBER: Final = re.compile(r"\s*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?\s*", re.IGNORECASE)
"""Read in linear time: with an optional point and then digits anew, 16,000 digits and an x took 6 s."""
_MOST_WARNINGS: Final = 10
_MOST_PROBLEMS: Final = 50
"""Fields that an error names: nobody mends more at a time, and 80,000 wrong entries are no accident."""
_JSON_KINDS: Final = {bool: "a boolean", str: "a string", list: "a list", dict: "an object"}


def _no_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain NUL characters; remove them")
    return text


def _json_number(value: object) -> object:
    # Pydantic's lax mode takes false for 0.0 and "2" for 2; its strict mode refuses 2.0 for an integer.
    if kind := _JSON_KINDS.get(type(value)):
        raise ValueError(f"must be a JSON number, not {kind}")
    return value


def _form_number(value: object) -> object:
    # Pydantic takes the spellings of Python, 1_000 among them.
    if not isinstance(value, str) or not _FORM_NUMBER.fullmatch(value):
        raise ValueError("must be a number in digits")
    return value


NO_NUL: Final = AfterValidator(_no_nul)
"""For texts: Postgres cannot hold NUL."""
JSON_NUMBER: Final = BeforeValidator(_json_number)
"""For numbers in JSON bodies: neither a string nor a boolean will do."""
FORM_NUMBER: Final = BeforeValidator(_form_number)
"""For numbers in forms and query strings, where all is text."""
Moment = Annotated[datetime, AfterValidator(lambda moment: moment.astimezone(UTC))]
"""A time as answers show it: in UTC with a Z, whatever the time zone of the database's session."""


class TidyRequest(Request):
    """Keeps the spooled files of its parts in `g.spooled`, for whoever closes them.

    Werkzeug leaves those of a body that breaks off to the garbage collector, up to 25 MB of disk each.
    """

    def _get_file_stream(self, *args: Any, **options: Any) -> IO[bytes]:
        stream = super()._get_file_stream(*args, **options)
        g.setdefault("spooled", []).append(stream)
        return stream


def close_spooled(_error: BaseException | None) -> None:
    """Close the files of the request that ends."""
    for stream in g.pop("spooled", ()):
        stream.close()


def read_json(incoming: Request, *, limit: int, small: int | None = None) -> dict[str, Any]:
    """Give the request's body as a dict.

    orjson bounds the depth of nesting (1024) and refuses NaN, Infinity and lone surrogates, all of which
    the standard library's reader lets through or crashes on.

    Args:
        limit: most bytes.
        small: bytes above which a body may hold little but long texts, such as images; see `refuse_crowd`.

    Raises:
        UnsupportedMedia: the Content-Type is not JSON.
        BodyTooLarge: more than `limit` bytes, or a crowd.
        MalformedBody: cut off, not JSON, or no object at the top; the message says where it breaks.
    """
    if not incoming.is_json:
        sent = incoming.mimetype or "none"
        raise UnsupportedMedia(f"Send the body as Content-Type: application/json, not {sent[:80]}.")
    body = _read_all(incoming, limit=limit)
    if small is not None:
        refuse_crowd(body, small=small)
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(_json_fault(body, error)) from None
    if not isinstance(content, dict):
        raise MalformedBody('The body must be a JSON object, such as {"name": "value"}.')
    return content


def refuse_crowd(body: bytes, *, small: int) -> None:
    """Refuse a large body of many small members, which as objects of Python would take twenty times as much.

    What makes a body large here is base64 text, which has no comma.

    Args:
        small: bytes up to which a body may hold what it likes.

    Raises:
        BodyTooLarge: it is larger, and has more commas than fit into half of that.
    """
    if len(body) > small and body.count(b",") > small // 2:
        raise BodyTooLarge(f"A body of more than {small:,} bytes may hold little but images as base64 text.")


def _read_all(incoming: Request, *, limit: int) -> bytes:
    # One byte above the limit: of a chunked body werkzeug gives the first bytes as if they were all.
    incoming.max_content_length = limit + 1
    try:
        body = incoming.get_data(cache=False)
    except http.RequestEntityTooLarge:
        body = None
    if body is None or len(body) > limit:
        raise BodyTooLarge(f"The JSON body may have at most {limit:,} bytes.")
    _refuse_cut_off(incoming, arrived=len(body))
    return body


def _refuse_cut_off(incoming: Request, *, arrived: int) -> None:
    """A connection that broke off looks to us like the end of the body."""
    announced = incoming.content_length
    if announced is not None and arrived < announced:
        raise MalformedBody(f"The body ended after {arrived:,} of {announced:,} bytes; send it again.")


def _json_fault(body: bytes, error: orjson.JSONDecodeError) -> str:
    if not body:
        return "The body is empty; send a JSON object."
    try:
        body.decode()
    except UnicodeDecodeError as broken:
        return f"The body is not UTF-8 text: byte {broken.start + 1:,} is wrong; encode it as UTF-8."
    return f"The body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})."


def read_form(incoming: Request, *, limit: int) -> tuple[dict[str, str], dict[str, bytes]]:
    """Give the text fields and the files of a multipart body; a file input left empty counts as not sent.

    Raises:
        UnsupportedMedia: the Content-Type is not multipart/form-data.
        BodyTooLarge: more than `limit` bytes, or a text field or the number of parts out of all proportion.
        MalformedBody: cut off, or without a part, as with a wrong boundary.
        InvalidFields: a field was sent more than once.
    """
    if incoming.mimetype != "multipart/form-data":
        sent = incoming.mimetype or "none"
        raise UnsupportedMedia(f"Send the body as Content-Type: multipart/form-data, not {sent[:80]}.")
    incoming.max_content_length = limit
    try:
        texts, files = incoming.form, incoming.files
    except http.RequestEntityTooLarge:
        raise BodyTooLarge(_what_is_too_large(incoming, limit)) from None
    if not texts and not files:
        # Werkzeug takes a body that it cannot read for an empty one.
        raise MalformedBody(
            "The body holds no complete multipart/form-data; it must begin and end with the boundary "
            "that its Content-Type names."
        )
    _refuse_cut_off(incoming, arrived=incoming.stream.tell())
    repeated = [
        FieldProblem(field=name, message="was sent more than once; send it once")
        for name in dict.fromkeys((*texts, *files))
        if len(texts.getlist(name)) + len(files.getlist(name)) > 1
    ]
    if repeated:
        raise InvalidFields(*repeated)
    read = {name: part.stream.read() for name, part in files.items()}
    return dict(texts.items()), {name: data for name, data in read.items() if data or files[name].filename}


def _what_is_too_large(incoming: Request, limit: int) -> str:
    if (incoming.content_length or 0) > limit:
        return f"The body may have at most {limit:,} bytes."
    return (
        f"The body may have at most {limit:,} bytes, {incoming.max_form_parts} parts and "
        f"{incoming.max_form_memory_size:,} bytes in a text field; a file needs a filename."
    )


def misplaced(
    model: type[BaseModel], texts: Mapping[str, str], files: Collection[str], *, uploads: Collection[str]
) -> list[FieldProblem]:
    """Give a problem for each upload sent as text, each text sent as a file, and each text not in UTF-8.

    Empty text counts as not sent.

    Args:
        model: the model of the text fields.
        uploads: names of the file fields.
    """
    # Werkzeug puts U+FFFD where bytes are no UTF-8; that very character is hardly ever meant.
    problems = {name: "must be text in UTF-8" for name, text in texts.items() if "\ufffd" in text}
    problems |= {
        name: "must be sent as a file part with a filename, not as text"
        for name in uploads
        if texts.get(name)
    }
    problems |= {name: "must be sent as text, not as a file" for name in _names(model) if name in files}
    return [FieldProblem(field=name, message=message) for name, message in problems.items()]


def parse(model: type[M], content: Mapping[str, Any], *, besides: Sequence[FieldProblem] = ()) -> M:
    """Give the validated request; a member that is null counts as not sent.

    Args:
        besides: problems found already, which are told with those found here.

    Raises:
        InvalidFields: every field that cannot be used, under its public name.
    """
    known = {problem.field for problem in besides}
    try:
        made = model.model_validate({name: value for name, value in content.items() if value is not None})
    except ValidationError as error:
        found = [problem for problem in problems_of(error) if problem.field not in known]
        raise InvalidFields(*besides, *found) from None
    if besides:
        raise InvalidFields(*besides)
    return made


def problems_of(error: ValidationError) -> list[FieldProblem]:
    """Give pydantic's findings, one per field, in words for the person who sent the request.

    Of very many only the first.
    """
    found: dict[str, str] = {}
    for each in error.errors(include_url=False, include_input=False)[:_MOST_PROBLEMS]:
        field = ".".join(str(part) for part in each["loc"]) or "body"
        found.setdefault(field, _sentence(each["type"], each.get("ctx", {}), each["msg"]))
    return [FieldProblem(field=field, message=message) for field, message in found.items()]


_SENTENCES: Final = {
    "missing": "is required",
    "string_type": "must be a string",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must not be blank",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is out of all range; send a smaller number",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be below {lt}",
    "literal_error": "must be one of {expected}",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "too_short": "must not have fewer than {min_length} entries",
    "too_long": "must not have more than {max_length} entries",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "extra_forbidden": "is not known here; remove it",
    "value_error": "{error}",
}
"""By pydantic's kinds of errors, all that our models can meet; our only pattern asks for a non-blank."""


def _sentence(kind: str, context: Mapping[str, Any], message: str) -> str:
    return _SENTENCES[kind].format_map(context) if kind in _SENTENCES else f"cannot be used: {message}"


def _names(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def unknown_fields(model: type[BaseModel], sent: Iterable[str]) -> list[str]:
    """Give a sentence for each member the request's model does not know; such members are ignored."""
    known = _names(model)
    unknown = [name for name in sent if name not in known]
    told = [f"unknown field {name[:60]!r} was ignored" for name in unknown[:_MOST_WARNINGS]]
    more = len(unknown) - len(told)
    return [*told, f"{more} more unknown fields were ignored"] if more else told


def read_once(incoming: Request, *, endpoint: str, parts: Sequence[bytes]) -> Once | None:
    """Give the request's Idempotency-Key with a hash over `parts`; None when it has none.

    The same key sent with a test key is another one, so that nobody gets a test's watermarked images for his
    order.

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
    room = f"{endpoint} test" if caller().test else endpoint
    return Once(endpoint=room, key=key, request_sha256=content.digest())


def is_address(text: str) -> bool:
    """Whether a text that names an image is a URL, and not the image itself as base64 text."""
    return text.lstrip()[: len("https://")].lower().startswith(("http://", "https://"))


def header_key(*, bearer: bool) -> str | None:
    """Give the API key of the X-API-Key header, or also of `Authorization: Bearer` where `bearer` is set."""
    key = request.headers.get("X-API-Key")
    if key is None and bearer:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else None
    return key


def base_url(settings: Settings) -> str:
    """Give the base URL that customers use, without a slash at its end: the setting, else the request's host.

    Empty where the request named no host that can be.
    """
    # Not request.host_url: it decodes xn-- names, which made IRIs of links and an exception of xn--a.
    asked = f"{request.scheme}://{request.host.lower()}" if request.host else ""
    return (settings.public_url or asked).rstrip("/")


def caller() -> KeyHolder:
    """Give whoever `Services.enter` named in this request."""
    holder = g.holder
    assert isinstance(holder, KeyHolder)
    return holder


def json_response(content: object, status: int = 200) -> Response:
    """Give an answer in JSON that no cache keeps and no browser sniffs."""
    answer = Response(orjson.dumps(content), status=status, mimetype="application/json")
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    return answer


def empty() -> Response:
    """Give a 204 that claims no media type and that no cache keeps."""
    answer = Response(status=204, headers={"Cache-Control": "no-store"})
    del answer.headers["Content-Type"]
    return answer


def as_ours(error: http.HTTPException) -> DarkroomError:
    """Give our error for one that Flask raised by itself."""
    match error:
        case http.NotFound():
            return NotFound()
        case http.MethodNotAllowed():
            return MethodNotAllowed(
                f"This address answers {', '.join(methods_of(error))}, not {request.method[:20]}."
            )
        case http.RequestEntityTooLarge():
            return BodyTooLarge()
        case http.UnsupportedMediaType():
            return UnsupportedMedia()
        case _:
            return RequestError("Darkroom cannot read this request; check its headers, above all Host.")


def methods_of(error: http.MethodNotAllowed) -> list[str]:
    """Give the methods that the address does answer, but for the two that go without saying."""
    return sorted(set(error.valid_methods or ()) - {"HEAD", "OPTIONS"})
