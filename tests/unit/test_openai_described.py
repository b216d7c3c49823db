"""What /openapi.json says of the OpenAI dialect that no other dialect needs."""

from typing import Any

import pytest

from app.api import openai
from app.api.openai_models import EditBody, GenerateRequest
from app.api.openapi import document


@pytest.fixture(scope="module")
def described() -> Any:
    return document(openai.OPERATIONS, version="1")


def resolved(described: Any, schema: Any) -> Any:
    return (
        described["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
    )


def test_an_edit_may_come_as_a_form_or_as_json(described: Any) -> None:
    content = described["paths"]["/v1/images/edits"]["post"]["requestBody"]["content"]

    assert set(content) == {"multipart/form-data", "application/json"}
    form, body = (resolved(described, content[kind]["schema"]) for kind in content)
    assert form["required"] == ["prompt", "image"]
    assert set(body["properties"]) == set(EditBody.model_fields)
    assert body["required"] == ["prompt"]


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/images/edits"])
def test_the_answer_is_json_or_a_stream(described: Any, path: str) -> None:
    answers = described["paths"][path]["post"]["responses"]

    assert set(answers["200"]["content"]) == {"application/json", "text/event-stream"}
    event = resolved(described, answers["200"]["content"]["text/event-stream"]["x-event-data"])
    assert event["properties"]["type"]["enum"] == ["image_generation.completed", "image_edit.completed"]
    assert set(answers["504"]["content"]) == {"application/json"}


def test_an_image_has_its_base64_or_its_url(described: Any) -> None:
    image = described["components"]["schemas"]["Image"]

    assert image["required"] == ["id", "seed"]


def test_the_size_is_described_as_it_is_read(described: Any) -> None:
    content = described["paths"]["/v1/images/generations"]["post"]["requestBody"]["content"]
    size = resolved(described, content["application/json"]["schema"])["properties"]["size"]

    assert size["pattern"] == "^(auto|([1-9][0-9]{0,4})x([1-9][0-9]{0,4}))$"
    sent = content["application/json"]["example"]
    assert GenerateRequest.model_validate(sent).pixels == (768, 512)
