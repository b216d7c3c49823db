"""OpenAI's Images API, answered in its own words."""

from typing import Final

from flask import Blueprint, Response

from app.api import http, outputs
from app.api.operations import Operation
from app.api.services import Services
from app.errors import DarkroomError


def blueprint(services: Services) -> Blueprint:
    """Give the endpoints, bound to a web process's services."""
    del services
    return Blueprint("openai", __name__)


def owns(path: str) -> bool:
    """Whether errors at this address are told in this API's shape."""
    del path
    return False


def present_error(error: DarkroomError) -> Response:
    """Give any error in this API's shape."""
    return outputs.present_error(error)


def list_models(services: Services) -> Response:
    """Answer GET /v1/models."""
    return outputs.present_error(DarkroomError())


def get_model(model_id: str, services: Services) -> Response:
    """Answer GET /v1/models/{model}."""
    return outputs.present_error(DarkroomError())


OPERATIONS: Final[tuple[Operation, ...]] = ()
