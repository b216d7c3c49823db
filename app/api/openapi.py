"""The OpenAPI 3.1 document, made from the tables of operations and the very models that validate."""

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import core_schema

from app.api.operations import Operation, Upload

Json = dict[str, Any]
Schemas = dict[tuple[Any, JsonSchemaMode], JsonSchemaValue]

_REF: Final = "#/components/schemas/"
_ABOUT: Final = """\
Image jobs on your own machines. A request that makes images answers **202** at once with a job; ask for \
that job until its `status` is `completed`, then download each result from its `url`. A result is deleted \
at its `expiresAt` unless you persist it.

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
    "Location": ("string", "A link into the object store, good for at most 15 minutes"),
    "ETag": ("string", "The SHA-256 of the whole image, in quotes"),
    "Accept-Ranges": ("string", "bytes"),
    "Content-Range": ("string", "Which bytes these are, and of how many"),
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
}
"""Beyond those of every answer; the ones of 200 and 206 come with bytes only."""
_SAYS: Final = {
    200: "Done",
    206: "The range of bytes asked for",
    302: "The image lies behind this link",
    304: "The image you have is the image there is",
    400: "The body cannot be read",
    401: "No valid API key was sent",
    403: "The account is disabled",
    404: "There is nothing here, or nothing of yours",
    410: "The output expired and is deleted for good",
    413: "The body is too large",
    415: "The body has another Content-Type",
    416: "The range begins beyond the last byte",
    422: "Fields have values that cannot be used; `details` names each",
    429: "Too many requests in this minute, or too many unfinished jobs",
    503: "A part of Darkroom is away; the same request works later",
}


def document(operations: Sequence[Operation], *, version: str, server_url: str | None = None) -> Json:
    """Give the document for these operations, in their order.

    Args:
        server_url: base URL customers use; None means wherever the document was read.
    """
    schemas, components = _schemas(operations)
    paths: dict[str, Json] = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, schemas)
    made = {
        "openapi": "3.1.0",
        "info": {
            "title": "Darkroom",
            "version": version,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": server_url or "/"}],
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
    renamed: Json = _readable(made)
    return renamed


class _JsonSchemas(GenerateJsonSchema):
    """Pydantic's schemas as people read them: no made-up titles, nullable types in one line.

    An optional field has no `default: null`: what stands for it is the model's own default. An answer leaves
    such a field out instead of saying null.
    """

    def field_title_should_be_set(self, schema: Any) -> bool:
        del schema
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made = super().model_schema(schema)
        made.pop("title", None)
        return made

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        inner = self.generate_inner(schema["schema"])
        if isinstance(inner.get("type"), str) and not {"enum", "const"} & inner.keys():
            return {**inner, "type": [inner["type"], "null"]}
        return super().nullable_schema(schema)

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        if self.get_default_value(schema) is not None:
            return super().default_schema(schema)
        inner = schema["schema"]
        if self.mode == "serialization" and inner["type"] == "nullable":
            inner = inner["schema"]
        return self.generate_inner(inner)


class _TextSchemas(_JsonSchemas):
    """For forms and query strings, where nothing can be null."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])


def _schemas(operations: Iterable[Operation]) -> tuple[Schemas, Json]:
    """Give the schema of each JSON body by its type and direction, and the components they refer to."""
    wanted: dict[tuple[Any, JsonSchemaMode], None] = {}
    for each in operations:
        if each.request is not None and not each.uploads:
            wanted[each.request, "validation"] = None
        wanted |= {(a, "serialization"): None for a in each.answers.values() if _is_json(a)}
    made, definitions = TypeAdapter.json_schemas(
        [(kind, mode, TypeAdapter(kind)) for kind, mode in wanted],
        ref_template=_REF + "{model}",
        schema_generator=_JsonSchemas,
    )
    return made, definitions.get("$defs", {})


def _is_json(answer: object) -> bool:
    return answer is not None and not isinstance(answer, tuple)


def _operation(operation: Operation, schemas: Schemas) -> Json:
    schemes = ["ApiKey", "Bearer"] if operation.bearer else ["ApiKey"]
    made: Json = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
        "parameters": _parameters(operation),
        "responses": {
            str(status): _answer(operation, status, schemas) for status in sorted(operation.answers)
        },
        "security": [{scheme: []} for scheme in schemes] if operation.secured else [],
    }
    if operation.request is not None:
        made["requestBody"] = {"required": True, "content": _body(operation, operation.request, schemas)}
    return made


def _body(operation: Operation, model: type[BaseModel], schemas: Schemas) -> Json:
    if not operation.uploads:
        content: Json = {"schema": schemas[model, "validation"]}
        if operation.example:
            content["example"] = operation.example
        return {"application/json": content}
    encoding = {file.name: {"contentType": ", ".join(file.media_types)} for file in operation.uploads}
    schema = _form(model, operation.uploads, operation.example or {})
    return {"multipart/form-data": {"schema": schema, "encoding": encoding}}


def _form(model: type[BaseModel], uploads: Sequence[Upload], example: Json) -> JsonSchemaValue:
    """Give the schema of a form's texts and files, those it cannot do without first."""
    schema = model.model_json_schema(schema_generator=_TextSchemas)
    fields: dict[str, Json] = schema["properties"]
    for name, value in example.items():
        fields[name]["examples"] = [value]
    for file in uploads:
        fields[file.name] = {
            "type": "string",
            "format": "binary",
            "contentMediaType": "application/octet-stream",
            "description": file.description,
        }
    required = [*schema["required"], *(file.name for file in uploads if file.required)]
    ordered = dict(sorted(fields.items(), key=lambda item: item[0] not in required))
    return {**schema, "properties": ordered, "required": required}


def _parameters(operation: Operation) -> list[Json]:
    found: list[Json] = []
    for part in operation.parts:
        schema = {"type": "string"} | ({"pattern": part.pattern} if part.pattern else {})
        found.append(
            {
                "name": part.name,
                "in": "path",
                "required": True,
                "description": part.description,
                "schema": schema,
                "example": part.example,
            }
        )
    if operation.query is not None:
        schema = operation.query.model_json_schema(schema_generator=_TextSchemas)
        required = schema.get("required", ())
        for name, field in schema["properties"].items():
            described = {"description": field.pop("description")} if "description" in field else {}
            found.append(
                {"name": name, "in": "query", "required": name in required, **described, "schema": field}
            )
    return [*found, _IDEMPOTENCY_KEY] if operation.idempotent else found


def _answer(operation: Operation, status: int, schemas: Schemas) -> Json:
    answer = operation.answers[status]
    names = ["X-Request-Id"]
    if operation.counted:
        names += [name for name in _HEADERS if name.startswith("X-RateLimit-")]
    if isinstance(answer, tuple) or status >= HTTPStatus.MULTIPLE_CHOICES:
        names += _HEADERS_OF.get(status, ())
    made: Json = {
        "description": _says(answer, status),
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
    }
    if isinstance(answer, tuple):
        made["content"] = {media: {"schema": {"type": "string", "format": "binary"}} for media in answer}
    elif _is_json(answer):
        made["content"] = {"application/json": {"schema": schemas[answer, "serialization"]}}
    return made


def _says(answer: object, status: int) -> str:
    if status < HTTPStatus.BAD_REQUEST and isinstance(answer, type) and issubclass(answer, BaseModel):
        return (answer.__doc__ or "").split("\n", 1)[0]
    return _SAYS.get(status) or HTTPStatus(status).phrase


def _readable(node: Any) -> Any:
    """Give the document with pydantic's names for models of one name, app__api__realm__ErrorShown, shortened.

    Both get their module before their name: RealmErrorShown, OutputsErrorShown.
    """
    if isinstance(node, dict):
        return {_shorter(key): _readable(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_readable(each) for each in node]
    return _REF + _shorter(node.removeprefix(_REF)) if isinstance(node, str) and _REF in node else node


def _shorter(name: str) -> str:
    parts = re.fullmatch(r"(?:\w+__)?(?P<module>\w+?)__(?P<model>\w+)", name)
    return parts["module"].capitalize() + parts["model"] if parts else name
