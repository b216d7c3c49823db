"""/healthz: this process answers. /readyz: it can accept a job. For Kubernetes' probes; no key needed."""

from typing import Annotated, Final, Literal

from flask import Blueprint, Response
from pydantic import BaseModel, Field

from app import __version__, health
from app.api import http
from app.api.operations import Operation
from app.api.services import Services
from app.log import get_logger

log = get_logger(__name__)


class Alive(BaseModel):
    """This process answers."""

    status: Literal["ok"]
    version: Annotated[str, Field(description="Darkroom's", examples=[__version__])]


class Readiness(BaseModel):
    """Whether a job can be accepted."""

    status: Literal["ok", "unavailable"]


def blueprint(services: Services) -> Blueprint:
    """Give the two endpoints, bound to a web process's services."""
    made = Blueprint("health", __name__)

    @made.get("/healthz")
    def alive() -> Response:
        return http.json_response(Alive(status="ok", version=__version__).model_dump())

    @made.get("/readyz")
    def ready() -> Response:
        finding = health.ready(services.database)
        if not finding.well:
            # The details name servers of ours; they are for the log.
            log.warning("not_ready", says=finding.says, remedy=finding.remedy)
        shown = Readiness(status="ok" if finding.well else "unavailable")
        return http.json_response(shown.model_dump(), 200 if finding.well else 503)

    return made


_TAG: Final = "Health"
OPERATIONS: Final = (
    Operation(
        name="isAlive",
        method="GET",
        path="/healthz",
        summary="Does this web process answer?",
        description="For liveness probes; asks no other server.",
        answers={200: Alive},
        secured=False,
        tag=_TAG,
    ),
    Operation(
        name="isReady",
        method="GET",
        path="/readyz",
        summary="Can it accept a job?",
        description="For readiness probes: 503 while Postgres cannot be used or needs `darkroom migrate`.",
        answers={200: Readiness, 503: Readiness},
        secured=False,
        tag=_TAG,
    ),
)
