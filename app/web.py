"""The Flask application: the only place where the web parts meet.

It stands here and not in `app/__init__.py`, which every worker runs, and workers serve no pages.
"""

import atexit
import secrets
from typing import Final

from flask import Flask, Response, g, request
from structlog.contextvars import bind_contextvars, clear_contextvars
from werkzeug.exceptions import HTTPException

from app import log
from app.api import docs, health, http, outputs, realm
from app.api.ratelimit import RateLimit
from app.api.services import Services
from app.auth import KeyRing
from app.db import bell, connect
from app.domain import catalog
from app.errors import DarkroomError, RangeNotSatisfiable, RateLimited, Unauthenticated
from app.intake import Intake
from app.process import die_with_parent
from app.settings import Settings, load
from app.storage import open_store

_POOL: Final = 8
"""Connections to Postgres per process: inserts stop getting faster at about four in flight."""

logger = log.get_logger(__name__)


def create_app(settings: Settings) -> Flask:
    """Give the application, with its threads started and nothing connected yet.

    Raises:
        SetupError: the catalogue cannot be read.
    """
    database = connect(settings, pool_size=_POOL, application_name="darkroom web")
    storage = open_store(settings)
    doorbell = bell.Doorbell(database)
    services = Services(
        settings=settings,
        database=database,
        storage=storage,
        intake=Intake(
            settings,
            database=database,
            storage=storage,
            catalog=catalog.load(settings.models_file),
            doorbell=doorbell,
        ),
        keys=KeyRing(settings, database),
        rate_limit=RateLimit(settings.rate_limit_per_minute),
    )
    listener = bell.Listener(database, {bell.KEYS: services.keys.forget})
    doorbell.start()
    listener.start()
    flask = _flask(services)
    flask.extensions["darkroom"] = services
    flask.extensions["darkroom.threads"] = (listener, doorbell)
    return flask


def close(flask: Flask) -> None:
    """End an application's threads and connections."""
    for thread in flask.extensions["darkroom.threads"]:
        thread.stop()
    flask.extensions["darkroom"].database.close()


def from_environment() -> Flask:
    """Give the application for the environment's settings: what the WSGI server calls in each process."""
    die_with_parent()
    settings = load()
    log.configure(log_format=settings.log_format, level=settings.log_level)
    flask = create_app(settings)
    atexit.register(close, flask)
    return flask


def _flask(services: Services) -> Flask:
    flask = Flask("darkroom", static_folder=None)
    # Every endpoint that reads a body sets its own, larger limit.
    flask.config["MAX_CONTENT_LENGTH"] = 64 * 1024
    flask.config["MAX_FORM_PARTS"] = 32
    flask.json.sort_keys = False  # type: ignore[attr-defined]  # of the default provider
    flask.before_request(_name_request)
    flask.register_blueprint(realm.blueprint(services))
    flask.register_blueprint(outputs.blueprint(services))
    flask.register_blueprint(health.blueprint(services))
    flask.register_blueprint(docs.blueprint(services))
    flask.register_error_handler(DarkroomError, _present)
    flask.register_error_handler(HTTPException, lambda error: _present(http.as_ours(error)))
    flask.register_error_handler(Exception, _present_unknown)

    @flask.after_request
    def finish(answer: Response) -> Response:
        answer.headers["X-Request-Id"] = g.request_id
        if request.path.startswith(realm.PREFIXES):
            services.rate_limit.write_headers(answer)
        return answer

    return flask


def _name_request() -> None:
    clear_contextvars()
    g.request_id = secrets.token_hex(8)
    bind_contextvars(request_id=g.request_id)


def _present(error: DarkroomError) -> Response:
    """Show an error in the shape of the dialect whose address was asked."""
    present = realm.present_error if request.path.startswith(realm.PREFIXES) else outputs.present_error
    answer = present(error)
    if error.retry_after is not None:
        answer.headers["Retry-After"] = str(max(1, round(error.retry_after.total_seconds())))
    if isinstance(error, Unauthenticated):
        answer.headers["WWW-Authenticate"] = 'ApiKey realm="darkroom", header="X-API-Key"'
    if isinstance(error, RangeNotSatisfiable):
        answer.headers["Accept-Ranges"] = "bytes"
    if error.http_status >= 500:  # noqa: PLR2004 - the server's own faults
        logger.error("request_failed", code=error.code, message=error.message, path=request.path)
    elif isinstance(error, RateLimited):
        logger.warning("rate_limited", path=request.path)
    return answer


def _present_unknown(error: Exception) -> Response:
    logger.error("request_broke", path=request.path, exc_info=error)
    return _present(DarkroomError("Something in Darkroom went wrong; tell the operator the X-Request-Id."))
