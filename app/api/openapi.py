"""The OpenAPI 3.1 document, made from the tables of operations and the very models that validate."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel

from app.api import schemas
from app.api.operations import EventStream, HeaderPart, Operation, PathPart
from app.api.schemas import Bodies

Json = dict[str, Any]

_ABOUT: Final = """\
Image jobs on your own machines, behind five APIs. **Realm AI Images** and **Jobs**, our own, answer with a \
job at once: ask for it until its `status` is `completed`, then download each result from its `url`. \
**ModelsLab realtime** waits a while for the images, **IMG Processing** and **OpenAI Images** until they are \
there. Whatever made a job, **Jobs** lists it, shows how far it is, cancels and repeats it. Results are \
deleted after a while, by default 24 hours, unless you persist them; those of IMG Processing stay.

**Getting a key.** `darkroom keys create --account NAME` prints one, once; `darkroom up` makes the first \
and says where it lies. Send it as `X-API-Key`, or enter it under *Authorize*.

**Errors** carry a code for programs, a sentence for people, and each field concerned. Every answer has an \
`X-Request-Id`: quote it to your operator.
"""
_SECURITY: Final[Json] = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key of yours"},
    "Bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "The same API key, as `Authorization: Bearer`",
    },
}
_IDEMPOTENCY_KEY: Final[Json] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "1 to 255 visible ASCII characters, for instance a UUID. The same request with the same "
    "key gives the same job for 24 hours instead of a second one; another request with it answers 422.",
    "schema": {"type": "string", "pattern": r"^[\x21-\x7e]{1,255}$"},
}
_HEADERS: Final = {
    "X-Request-Id": ("string", "Names this request in Darkroom's logs"),
    "X-RateLimit-Limit": ("integer", "Requests that this key may send in a minute"),
    "X-RateLimit-Remaining": ("integer", "Requests left in this minute"),
    "X-RateLimit-Reset": ("integer", "When the minute ends, in Unix seconds"),
    "Retry-After": ("integer", "Seconds after which to send the request again, where that is known"),
    "WWW-Authenticate": ("string", "Which header takes the key"),
    "Location": (
        "string",
        "Where it is: the job, or a link into the object store that is good for at most 15 minutes",
    ),
    "ETag": ("string", "The SHA-256 of the whole image, in quotes"),
    "Accept-Ranges": ("string", "bytes"),
    "Content-Range": ("string", "Which bytes these are, and of how many"),
    "X-Image-Processing-Usage": ("integer", "Images that this counts as; with live keys only"),
    "Preference-Applied": ("string", "The wait that was honoured, in seconds: wait=20"),
    "Idempotent-Replayed": ("boolean", "true when an earlier request with this Idempotency-Key made the job"),
}
_HEADERS_OF: Final = {
    200: ("ETag", "Accept-Ranges"),
    206: ("ETag", "Accept-Ranges", "Content-Range"),
    302: ("Location",),
    304: ("ETag", "Accept-Ranges"),
    401: ("WWW-Authenticate",),
    416: ("Accept-Ranges",),
    429: ("Retry-After",),
    503: ("Retry-After",),
    504: ("Retry-After",),
}
"""Beyond those of every answer; the ones of 200 and 206 come with bytes only."""
_SAYS: Final = {
    200: "Here it is",
    206: "The range of bytes asked for",
    204: "Done, and there is nothing to say",
    302: "The image lies behind this link",
    304: "The image you have is the image there is",
    400: "The body cannot be read",
    401: "No valid API key was sent",
    403: "The account is disabled",
    404: "There is nothing here, or nothing of yours",
    409: "It is in no state for that",
    410: "The output expired and is deleted for good",
    413: "The body is too large",
    415: "The body has another Content-Type",
    416: "The range begins beyond the last byte",
    422: "Fields have values that cannot be used; `details` names each",
    429: "Too many requests in this minute, or too many unfinished jobs",
    501: "Darkroom does not offer this",
    503: "A part of Darkroom is away or full; the same request works later",
    504: "The images are not done yet; the same request goes on waiting for them",
}


def document(operations: Sequence[Operation], *, version: str, server_url: str | None = None) -> Json:
    """Give the document for these operations, in their order.

    Args:
        server_url: base URL customers use; None means wherever the document was read.
    """
    bodies, components = schemas.of_bodies(operations)
    paths: dict[str, Json] = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, bodies)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Darkroom",
            "version": version,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0"},
        },
        **({"servers": [{"url": server_url}]} if server_url else {}),
        "tags": [{"name": tag} for tag in dict.fromkeys(each.tag for each in operations)],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": _SECURITY,
            "headers": {
                name: {"description": says, "schema": {"type": kind}}
                for name, (kind, says) in _HEADERS.items()
            },
        },
    }


def _operation(operation: Operation, bodies: Bodies) -> Json:
    schemes = ["ApiKey", "Bearer"] if operation.bearer else ["ApiKey"]
    made: Json = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
        "parameters": _parameters(operation),
        "responses": {
            str(status): _answer(operation, status, bodies) for status in sorted(operation.answers)
        },
        "security": [{scheme: []} for scheme in schemes] if operation.secured else [],
    }
    if operation.request is not None:
        made["requestBody"] = {"required": True, "content": _body(operation, operation.request, bodies)}
    return made


def _body(operation: Operation, model: type[BaseModel], bodies: Bodies) -> Json:
    if not operation.uploads:
        content: Json = {"schema": bodies[model, "validation"]}
        if operation.example is not None:
            content["example"] = operation.example
        return {"application/json": content}
    encoding = {file.name: {"contentType": ", ".join(file.media_types)} for file in operation.uploads}
    schema = schemas.of_form(model, operation.uploads, example=operation.example or {})
    made: Json = {"multipart/form-data": {"schema": schema, "encoding": encoding}}
    if operation.or_json is not None:
        made["application/json"] = {"schema": bodies[operation.or_json, "validation"]}
    return made


def _parameters(operation: Operation) -> list[Json]:
    found = [_path_parameter(part) for part in operation.parts]
    if operation.query is not None:
        found += _query_parameters(operation.query)
    found += [_header_parameter(part) for part in operation.takes]
    return [*found, _IDEMPOTENCY_KEY] if operation.idempotent else found


def _path_parameter(part: PathPart) -> Json:
    return {
        "name": part.name,
        "in": "path",
        "required": True,
        "description": part.description,
        "schema": {"type": "string"} | ({"pattern": part.pattern} if part.pattern else {}),
        "example": part.example,
    }


def _header_parameter(part: HeaderPart) -> Json:
    return {
        "name": part.name,
        "in": "header",
        "required": False,
        "description": part.description,
        "schema": {"type": "string", "pattern": part.pattern},
        "example": part.example,
    }


def _query_parameters(query: type[BaseModel]) -> list[Json]:
    schema = schemas.of_texts(query)
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "description": field.pop("description", ""),
            "schema": field,
        }
        for name, field in schema["properties"].items()
    ]


def _answer(operation: Operation, status: int, bodies: Bodies) -> Json:
    answer = operation.answers[status]
    names = ["X-Request-Id"]
    if operation.counted:
        names += [name for name in _HEADERS if name.startswith("X-RateLimit-")]
    if isinstance(answer, tuple) or status >= HTTPStatus.MULTIPLE_CHOICES:
        names += _HEADERS_OF.get(status, ())
    names += operation.headers.get(status, ())
    made: Json = {
        "description": _says(answer, status),
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
    }
    if isinstance(answer, tuple):
        made["content"] = {media: {} for media in answer}
    elif isinstance(answer, EventStream):
        made["content"] = _stream(answer, bodies)
    elif schemas.is_json(answer):
        media_type = getattr(answer, "media_type", "application/json")
        made["content"] = {media_type: {"schema": bodies[answer, "serialization"]}}
    if operation.events is not None and status == HTTPStatus.OK:
        made["content"] |= _stream(operation.events, bodies)
    return made


def _stream(stream: EventStream, bodies: Bodies) -> Json:
    # OpenAPI 3.1 has no word for the items of a stream; readers take the schema for that of each. 3.2's word
    # is itemSchema.
    event = {
        "type": "object",
        "description": "One Server-Sent Event",
        "properties": {
            "event": {"type": "string"},
            "data": {"type": "string", "contentMediaType": "application/json"},
        },
        "required": ["data"],
    }
    data = bodies[stream.item, "serialization"]
    return {"text/event-stream": {"schema": event, "x-event-data": data}}


def _says(answer: object, status: int) -> str:
    if status < HTTPStatus.BAD_REQUEST and isinstance(answer, type) and issubclass(answer, BaseModel):
        return (answer.__doc__ or "").split("\n", 1)[0]
    return _SAYS.get(status) or HTTPStatus(status).phrase
