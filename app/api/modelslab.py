"""ModelsLab's realtime API, answered in its own words."""

from typing import Final

from flask import Blueprint, Response

from app.api import outputs
from app.api.operations import Operation
from app.api.services import Services
from app.errors import DarkroomError


def blueprint(services: Services) -> Blueprint:
    """Give the endpoints, bound to a web process's services."""
    del services
    return Blueprint("modelslab", __name__)


def owns(path: str) -> bool:
    """Whether errors at this address are told in this API's shape."""
    del path
    return False


def present_error(error: DarkroomError) -> Response:
    """Give any error in this API's shape."""
    return outputs.present_error(error)


OPERATIONS: Final[tuple[Operation, ...]] = ()
