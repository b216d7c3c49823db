"""/healthz: this process answers. /readyz: it can accept a job. For Kubernetes' probes; no key needed."""

from flask import Blueprint, Response

from app import __version__, health
from app.api import http
from app.api.services import Services


def blueprint(services: Services) -> Blueprint:
    """Give the two endpoints, bound to a web process's services."""
    made = Blueprint("health", __name__)

    @made.get("/healthz")
    def alive() -> Response:
        return http.json_response({"status": "ok", "version": __version__})

    @made.get("/readyz")
    def ready() -> Response:
        findings = health.ready(services.database, services.storage)
        well = all(finding.well for finding in findings)
        content = {
            "status": "ok" if well else "unavailable",
            "checks": {f.name: "ok" if f.well else f.says for f in findings},
        }
        return http.json_response(content, 200 if well else 503)

    return made
