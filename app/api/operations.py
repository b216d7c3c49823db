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


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One endpoint.

    Attributes:
        path: with OpenAPI's braces: /v1/images/jobs/{jobId}
        request: model of the JSON body, or of the text fields when there are `uploads`.
        query: model of the query string.
        answers: HTTP status → model, list of a model, a tuple of models (one of them), a media type
            such as "image/png" for bytes, or None for an empty body.
        idempotent: whether the Idempotency-Key header is honoured.
        secured: whether an API key is needed; `bearer` also takes it as Authorization: Bearer.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    summary: str
    answers: dict[int, Any]
    description: str = ""
    request: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    uploads: tuple[Upload, ...] = field(default=())
    idempotent: bool = False
    secured: bool = True
    bearer: bool = False
    tag: str = "Realm AI Images"
