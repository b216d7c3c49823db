"""GET /v1/models, which two APIs have: OpenAI's clients send `Authorization: Bearer`, Realm's X-API-Key."""

from typing import Final

from flask import Blueprint, Response, request

from app.api import openai, openai_models, realm, realm_models
from app.api.operations import Operation, PathPart
from app.api.services import Services


def asks_openai() -> bool:
    """Whether this request sent its key as OpenAI's clients do."""
    return "X-API-Key" not in request.headers and "Authorization" in request.headers


def blueprint(services: Services) -> Blueprint:
    """Give the two endpoints, bound to a web process's services."""
    made = Blueprint("models", __name__)

    @made.before_request
    def authenticate() -> None:
        services.enter(bearer=asks_openai())

    @made.get("/v1/models")
    def list_models() -> Response:
        return openai.list_models(services) if asks_openai() else realm.list_models(services)

    @made.get("/v1/models/<path:model_id>")
    def get_model(model_id: str) -> Response:
        if asks_openai():
            return openai.get_model(model_id, services)
        return realm.get_model(model_id, services)

    return made


_REFUSED: Final = realm.ErrorShown | openai_models.ErrorShown
_ERRORS: Final = dict.fromkeys((401, 403, 429, 503), _REFUSED)
OPERATIONS: Final = (
    Operation(
        name="listModels",
        method="GET",
        path="/v1/models",
        summary="List models",
        description="What `modelId` (Realm) or `model` may name. With `X-API-Key` in Realm's words, with "
        "each model's preferred size and what it can do; with `Authorization: Bearer` in OpenAI's, aliases "
        "included.",
        query=realm_models.ModelsQuery,
        answers={
            200: list[realm_models.ModelShown] | openai_models.ModelList,
            **_ERRORS,
            422: realm.ErrorShown,
        },
        bearer=True,
        counted=True,
    ),
    Operation(
        name="getModel",
        method="GET",
        path="/v1/models/{modelId}",
        summary="Get a model",
        description="An alias of a model answers with the model itself.",
        parts=(PathPart(name="modelId", description="A model's id or alias", example="sketch"),),
        answers={200: realm_models.ModelShown | openai_models.ModelShown, **_ERRORS, 404: _REFUSED},
        bearer=True,
        counted=True,
    ),
)
