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
class Operation:
    """One endpoint.

    Attributes:
        name: the operationId, which generated clients make their method's name of: generateImage
        path: with OpenAPI's braces: /v1/images/jobs/{jobId}
        parts: the braces, each once.
        request: model of the JSON body, or of the text fields when there are `uploads`.
        example: a body that is ready to be sent; of a form, its text fields.
        query: model of the query string.
        answers: HTTP status → any type pydantic knows, usually a model; a tuple of media types such as
            ("image/png",) for bytes; or None for an empty body.
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
    example: dict[str, Any] | None = None
    query: type[BaseModel] | None = None
    uploads: tuple[Upload, ...] = field(default=())
    idempotent: bool = False
    secured: bool = True
    bearer: bool = False
    counted: bool = False
    tag: str = "Realm AI Images"
