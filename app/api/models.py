"""GET /v1/models, which two APIs have: OpenAI's clients send `Authorization: Bearer`, Realm's X-API-Key."""

from flask import Blueprint, Response, request

from app.api import openai, realm
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
