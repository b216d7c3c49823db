"""How a dialect describes its endpoints: the very models that validate, from which OpenAPI is made."""

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file part of a multipart body."""

    name: str
    required: bool
    description: str
    media_types: tuple[str, ...] = ("image/jpeg", "image/png")


@dataclass(frozen=True, kw_only=True)
class PathPart:
    """One brace of a path: what stands there. `pattern` is a regular expression with its anchors."""

    name: str
    description: str
    example: str
    pattern: str | None = None


@dataclass(frozen=True, kw_only=True)
class HeaderPart:
    """A request header that counts for an operation, beside those that many have."""

    name: str
    description: str
    pattern: str
    example: str


@dataclass(frozen=True, kw_only=True)
class EventStream:
    """An answer of Server-Sent Events; the `data` of each is JSON of the type `item`."""

    item: Any


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One endpoint.

    Attributes:
        name: the operationId, which generated clients make their method's name of: generateImage
        path: with OpenAPI's braces: /v1/images/jobs/{jobId}
        parts: the braces, each once.
        request: model of the JSON body, or of the text fields when there are `uploads`.
        or_json: model of the JSON body that may be sent instead of a form.
        example: a body that is ready to be sent; of a form, its text fields.
        query: model of the query string.
        answers: HTTP status → any type pydantic knows, usually a model; a tuple of media types such as
            ("image/png",) for bytes; an EventStream; or None for an empty body.
        events: the stream that a 200 can also be, where the request asks for one.
        takes: request headers of its own.
        headers: HTTP status → names of the answer's headers beside those that the status alone brings.
        idempotent: whether the Idempotency-Key header is honoured.
        secured: whether an API key is needed; `bearer` also takes it as Authorization: Bearer.
        counted: whether the answers carry the X-RateLimit headers.
    """

    name: str
    method: Literal["GET", "POST", "DELETE"]
    path: str
    summary: str
    answers: dict[int, Any]
    description: str = ""
    parts: tuple[PathPart, ...] = ()
    request: type[BaseModel] | None = None
    or_json: type[BaseModel] | None = None
    events: EventStream | None = None
    example: dict[str, Any] | None = None
    query: type[BaseModel] | None = None
    uploads: tuple[Upload, ...] = field(default=())
    takes: tuple[HeaderPart, ...] = ()
    headers: dict[int, tuple[str, ...]] = field(default_factory=dict)
    idempotent: bool = False
    secured: bool = True
    bearer: bool = False
    counted: bool = False
    tag: str = "Realm AI Images"
