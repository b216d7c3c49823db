import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel, SecretStr

from app import web
from app.api import docs, realm_models
from app.api.openapi import document
from app.api.operations import Operation
from app.api.services import Services
from app.settings import Settings
from app.shown import OutputShown

HELD = {"type", "minimum", "maximum", "minLength", "maxLength", "pattern"}


@pytest.fixture(scope="module")
def settings() -> Settings:
    return Settings(
        database_url=SecretStr("postgresql://nobody@127.0.0.1:1/none"),
        broker_url=SecretStr("redis://127.0.0.1:1/0"),
        s3_endpoint="http://127.0.0.1:1",
        s3_access_key=SecretStr("none"),
        s3_secret_key=SecretStr("none"),
        secret_key=SecretStr("x" * 32),
    )


@pytest.fixture(scope="module")
def services(settings: Settings) -> Iterator[Services]:
    """All parts of a web process; nothing is started, nothing connects."""
    made, _ = web.assemble(settings)
    yield made
    made.database.close()


@pytest.fixture(scope="module")
def flask(services: Services) -> Flask:
    return web.build(services)  # create_app's threads would look for a database


@pytest.fixture(scope="module")
def client(flask: Flask) -> FlaskClient:
    return flask.test_client()


@pytest.fixture(scope="module")
def served(client: FlaskClient) -> Any:
    return client.get("/openapi.json").json


def operation(served: Any, name: str) -> Any:
    [found] = [
        each
        for methods in served["paths"].values()
        for each in methods.values()
        if each["operationId"] == name
    ]
    return found


def body(served: Any, name: str) -> Any:
    """The schema of an operation's only kind of body."""
    [content] = operation(served, name)["requestBody"]["content"].values()
    schema = content["schema"]
    return served["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema


def test_the_document_is_valid_openapi_3_1(served: Any) -> None:
    assert served["openapi"].startswith("3.1")
    assert [str(error) for error in OpenAPIV31SpecValidator(served).iter_errors()] == []


def test_every_route_is_described_and_every_description_has_its_route(flask: Flask, served: Any) -> None:
    routes = {
        (re.sub(r"<[^>]+>", "{}", rule.rule), method.lower())
        for rule in flask.url_map.iter_rules()
        if not rule.endpoint.startswith("docs.")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    described = {
        (re.sub(r"{[^}]+}", "{}", path), method)
        for path, methods in served["paths"].items()
        for method in methods
    }
    assert described == routes


def test_the_documents_own_addresses_are_the_only_ones_left_out(flask: Flask) -> None:
    own = {rule.rule for rule in flask.url_map.iter_rules() if rule.endpoint.startswith("docs.")}
    assert own == {"/", "/openapi.json", "/docs", "/docs/assets/<name>"}


@pytest.mark.parametrize("described", docs.OPERATIONS, ids=lambda each: each.name)
def test_every_operation_can_be_understood_alone(described: Operation, served: Any) -> None:
    made = operation(served, described.name)
    assert made["summary"]
    assert made["description"]
    assert made["tags"]
    assert {part.name for part in described.parts} == set(re.findall(r"{(\w+)}", described.path))
    assert all(parameter["description"] for parameter in made["parameters"])
    assert all(answer["description"] for answer in made["responses"].values())
    assert all("X-Request-Id" in answer["headers"] for answer in made["responses"].values())


@pytest.mark.parametrize("described", docs.OPERATIONS, ids=lambda each: each.name)
def test_examples_of_paths_match_their_patterns(described: Operation) -> None:
    for part in described.parts:
        assert re.fullmatch(part.pattern or ".+", part.example)


@pytest.mark.parametrize(
    ("name", "model", "files"),
    [
        ("generateImage", realm_models.GenerateRequest, set()),
        ("modifyImage", realm_models.ModifyRequest, {"image"}),
    ],
)
def test_required_fields_are_the_ones_the_model_requires(
    served: Any, name: str, model: type[BaseModel], files: set[str]
) -> None:
    required = {field.alias for field in model.model_fields.values() if field.is_required()}
    assert set(body(served, name)["required"]) == required | files
    assert operation(served, name)["requestBody"]["required"] is True


@pytest.mark.parametrize(
    ("name", "field", "limits"),
    [
        ("generateImage", "numOutputs", {"type": ["integer", "null"], "minimum": 1, "maximum": 4}),
        ("generateImage", "width", {"type": ["integer", "null"], "minimum": 1, "maximum": 8192}),
        ("generateImage", "guidanceScale", {"type": ["number", "null"], "minimum": 0, "maximum": 100}),
        (
            "generateImage",
            "prompt",
            {"type": "string", "minLength": 1, "maxLength": 10_000, "pattern": r"\S"},
        ),
        ("modifyImage", "numOutputs", {"type": "integer", "minimum": 1, "maximum": 4}),
        ("modifyImage", "strength", {"type": "number", "minimum": 0, "maximum": 1}),
    ],
)
def test_limits_that_are_enforced_are_written_down(
    served: Any, name: str, field: str, limits: dict[str, Any]
) -> None:
    found = body(served, name)["properties"][field]
    assert {key: value for key, value in found.items() if key in HELD} == limits
    assert "default" not in found


def test_null_is_documented_where_the_server_takes_it() -> None:
    sent = {"modelId": "sketch", "prompt": "a hill", "width": None, "numOutputs": None}
    assert realm_models.GenerateRequest.model_validate(sent).width is None


def test_examples_are_ready_to_be_sent(served: Any, services: Services) -> None:
    sent = operation(served, "generateImage")["requestBody"]["content"]["application/json"]["example"]
    wished = realm_models.GenerateRequest.model_validate(sent)
    assert services.intake.catalog.find(wished.model_id).id == "sketch"
    texts = {
        name: str(field["examples"][0])
        for name, field in body(served, "modifyImage")["properties"].items()
        if "examples" in field
    }
    assert realm_models.ModifyRequest.model_validate(texts).strength == 0.6


def test_a_body_that_nobody_changed_names_no_key(served: Any) -> None:
    for path, methods in served["paths"].items():
        if path.startswith("/api/"):
            # Without an example Swagger UI makes one up, with a key that wins over the one from Authorize.
            assert "key" not in methods["post"]["requestBody"]["content"]["application/json"]["example"], path


def test_files_are_file_parts(served: Any) -> None:
    content = operation(served, "modifyImage")["requestBody"]["content"]["multipart/form-data"]
    for name in ("image", "mask"):
        part = content["schema"]["properties"][name]
        assert (part["type"], part["contentMediaType"]) == ("string", "application/octet-stream")
        assert content["encoding"][name]["contentType"] == "image/jpeg, image/png"


def test_a_query_becomes_parameters_without_null(served: Any) -> None:
    found = {p["name"]: p for p in operation(served, "listModels")["parameters"]}
    assert set(found) == {"limit", "offset", "status"}
    assert found["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}
    assert found["status"]["schema"] == {
        "type": "string",
        "enum": ["active", "pending_training", "training", "failed"],
    }
    assert not any(p["required"] for p in found.values())


def test_a_job_is_told_by_its_status(served: Any) -> None:
    shown = operation(served, "getJob")["responses"]["200"]["content"]["application/json"]["schema"]
    assert shown["discriminator"]["propertyName"] == "status"
    assert set(shown["discriminator"]["mapping"]) == {"queued", "processing", "completed", "failed"}
    assert set(shown["discriminator"]["mapping"].values()) <= {one["$ref"] for one in shown["oneOf"]}


def test_an_output_says_what_it_answers_before_and_after(served: Any) -> None:
    answers = operation(served, "downloadOutput")["responses"]
    assert {"200", "206", "302", "304", "404", "410", "416", "503"} == set(answers)
    assert {"image/png", "image/jpeg", "image/webp"} <= set(answers["200"]["content"])
    assert {"ETag", "Accept-Ranges"} <= set(answers["200"]["headers"])
    assert "Content-Range" in answers["206"]["headers"]
    assert answers["410"]["content"]["application/json"]["schema"]["$ref"].endswith("/OutputsErrorShown")


def test_keys_and_headers_are_named_where_they_count(served: Any) -> None:
    assert operation(served, "generateImage")["security"] == [{"ApiKey": []}]
    assert operation(served, "persistOutput")["security"] == [{"ApiKey": []}, {"Bearer": []}]
    assert operation(served, "downloadOutput")["security"] == []
    refused = operation(served, "generateImage")["responses"]["429"]["headers"]
    assert {"Retry-After", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"} <= set(refused)
    for name in ("generateImage", "modifyImage"):
        assert "Idempotency-Key" in {p["name"] for p in operation(served, name)["parameters"]}


def test_an_event_stream_is_documented_with_what_its_events_hold(served: Any) -> None:
    watch = operation(served, "watchJob")
    content = watch["responses"]["200"]["content"]
    assert set(content) == {"text/event-stream"}
    assert content["text/event-stream"]["x-event-data"]["$ref"].endswith("/EventShown")
    assert "job" in served["components"]["schemas"]["EventShown"]["properties"]
    assert "ETag" not in watch["responses"]["200"]["headers"]
    assert "content" not in watch["responses"]["204"]
    header = next(p for p in watch["parameters"] if p["name"] == "Last-Event-ID")
    assert (header["in"], header["required"]) == ("header", False)
    assert re.fullmatch(header["schema"]["pattern"], header["example"])


def test_a_new_job_says_where_it_is_and_when_to_ask_again(served: Any) -> None:
    for name in ("submitJob", "retryJob"):
        made = operation(served, name)
        for status in ("200", "202"):
            assert {"Location", "Retry-After", "Idempotent-Replayed"} <= set(
                made["responses"][status]["headers"]
            )
        assert {"Prefer", "Idempotency-Key", "wait"} <= {p["name"] for p in made["parameters"]}


def test_the_parameters_of_each_transformation_are_written_down_without_its_name(served: Any) -> None:
    transform = body(served, "submitJob")["properties"]["transform"]
    by_name = {each["title"]: each for each in transform["anyOf"]}
    assert {"resize", "crop", "rotate", "mirror", "convert", "blur", "modulate", "watermark"} <= set(by_name)
    assert not any("operation" in each["properties"] for each in by_name.values())
    assert by_name["crop"]["required"] == ["x1", "y1", "x2", "y2"]
    assert body(served, "submitJob")["additionalProperties"] is False


def test_models_of_one_name_are_told_apart_by_their_dialect(served: Any) -> None:
    names = set(served["components"]["schemas"])
    assert {"RealmErrorShown", "OutputsErrorShown", "RealmErrorBody", "OutputsErrorBody"} <= names
    assert not [name for name in names if "__" in name]
    assert "app__" not in json.dumps(served)


def test_what_a_kept_or_private_result_leaves_out_is_optional(served: Any) -> None:
    kept = realm_models.Result(image_id="img_1", url=None, seed=1, width=1, height=1, expires_at=None)
    shown = set(kept.model_dump(by_alias=True, exclude_none=True))
    result = served["components"]["schemas"]["Result"]
    assert set(result["required"]) == shown
    assert result["properties"]["expiresAt"]["type"] == "string"


def test_an_output_of_yours_says_null_for_no_expiry(served: Any) -> None:
    shown = served["components"]["schemas"]["OutputShown"]
    assert set(shown["required"]) == set(OutputShown.model_fields)
    assert shown["properties"]["expires_at"]["type"] == ["string", "null"]


def test_the_public_address_is_the_documents_server() -> None:
    made = document(docs.OPERATIONS, version="1", server_url="https://images.example")
    assert made["servers"] == [{"url": "https://images.example"}]


def test_the_document_is_sent_once_to_who_keeps_it(client: FlaskClient) -> None:
    first = client.get("/openapi.json")
    again = client.get("/openapi.json", headers={"If-None-Match": first.headers["ETag"]})
    assert (first.status_code, again.status_code) == (200, 304)


def test_the_root_leads_to_the_reference(client: FlaskClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 302
    assert client.get("/", follow_redirects=True).request.path == "/docs"


def test_the_page_asks_no_other_host_and_all_its_files_are_there(client: FlaskClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert "<title>Darkroom</title>" in page.text
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    local = [link for link in links if not link.startswith("data:")]
    assert local
    assert not [link for link in local if "//" in link]
    assert not re.search(r"<script(?![^>]*\bsrc=)", page.text)
    for link in local:
        answer = client.get("/" + link)
        assert answer.status_code == 200, link
        if "assets" in link:
            assert "immutable" in answer.headers["Cache-Control"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "name", ["swagger-editor.js", "..%2f__init__.py", "%2e%2e%2fcore.py", "oauth2-redirect.html"]
)
def test_no_file_beside_the_pages_own_is_served(client: FlaskClient, name: str) -> None:
    assert client.get(f"/docs/assets/{name}").status_code == 404


def test_without_the_package_the_page_says_how_to_install_it(services: Services) -> None:
    flask = Flask("darkroom", static_folder=None)
    flask.register_blueprint(docs.blueprint(services, package="no_such_package"))
    page = flask.test_client().get("/docs")
    assert page.status_code == 503
    assert "pip install swagger-ui-py" in page.text
    assert flask.test_client().get("/openapi.json").status_code == 200
