"""JSON schemas of the dialects' models, by pydantic's own machinery, in the form people like to read."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import core_schema

from app.api.operations import EventStream, Operation, Upload

Bodies = dict[tuple[Any, JsonSchemaMode], JsonSchemaValue]
"""The schema of each JSON body by its type and its direction: validation in, serialization out."""

_REF: Final = "#/components/schemas/"
_CLASHING: Final = re.compile(r"(?:\w+__)?(?P<module>[a-z0-9_]+?)__(?P<model>\w+)")


class _JsonSchemas(GenerateJsonSchema):
    """No made-up titles, nullable types in one line, and no `default: null`.

    What stands for an absent field is the drawing model's own default; and an answer leaves such a field
    out instead of saying null.
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


def of_bodies(operations: Iterable[Operation]) -> tuple[Bodies, dict[str, JsonSchemaValue]]:
    """Give the schemas of all JSON bodies, and the components they refer to."""
    wanted: dict[tuple[Any, JsonSchemaMode], None] = {}
    for each in operations:
        if each.request is not None and not each.uploads:
            wanted[each.request, "validation"] = None
        if each.or_json is not None:
            wanted[each.or_json, "validation"] = None
        answers = [item_of(answer) for answer in (*each.answers.values(), each.events)]
        wanted |= {(answer, "serialization"): None for answer in answers if is_json(answer)}
    made, definitions = TypeAdapter.json_schemas(
        [(kind, mode, TypeAdapter(kind)) for kind, mode in wanted],
        ref_template=_REF + "{model}",
        schema_generator=_JsonSchemas,
    )
    components = definitions.get("$defs", {})
    return (
        {key: _renamed(schema) for key, schema in made.items()},
        {_readable(name): _renamed(schema) for name, schema in components.items()},
    )


def item_of(answer: Any) -> Any:
    """Give the type of a stream's events, of any other answer itself."""
    return answer.item if isinstance(answer, EventStream) else answer


def is_json(answer: object) -> bool:
    """Whether an operation's answer is JSON, and neither empty nor bytes."""
    return answer is not None and not isinstance(answer, tuple)


def of_texts(model: type[BaseModel]) -> JsonSchemaValue:
    """Give the schema of a query string's or a form's texts, whole in itself."""
    return inlined(model.model_json_schema(schema_generator=_TextSchemas))


def of_model(model: type[BaseModel]) -> JsonSchemaValue:
    """Give the schema of a JSON object that clients send, whole in itself."""
    return inlined(model.model_json_schema(schema_generator=_JsonSchemas))


def inlined(schema: JsonSchemaValue) -> JsonSchemaValue:
    """Give a schema with what it refers to put in place of each reference; it must not refer to itself."""
    defined = schema.get("$defs", {})

    def put(node: Any) -> Any:
        if isinstance(node, list):
            return [put(each) for each in node]
        if not isinstance(node, dict):
            return node
        if isinstance(reference := node.get("$ref"), str):
            besides = {key: each for key, each in node.items() if key != "$ref"}
            return {**put(defined[reference.rsplit("/", 1)[1]]), **besides}
        return {key: put(each) for key, each in node.items() if key != "$defs"}

    whole: JsonSchemaValue = put(schema)
    return whole


def of_form(model: type[BaseModel], uploads: Sequence[Upload], *, example: dict[str, Any]) -> JsonSchemaValue:
    """Give the schema of a form's texts and files, those it cannot do without first."""
    schema = of_texts(model)
    fields: dict[str, JsonSchemaValue] = schema["properties"]
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


def _renamed(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _renamed(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_renamed(each) for each in node]
    if isinstance(node, str) and node.startswith(_REF):
        return _REF + _readable(node.removeprefix(_REF))
    return node


def _readable(name: str) -> str:
    """Give RealmErrorShown for app__api__realm__ErrorShown, pydantic's name where two models share one.

    A dialect is the first word of its module's name: realm_models makes Realm too.
    """
    parts = _CLASHING.fullmatch(name)
    return parts["module"].partition("_")[0].capitalize() + parts["model"] if parts else name
