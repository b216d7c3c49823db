"""The Flask application: the only place where the web parts meet.

It stands here and not in `app/__init__.py`, which every worker runs, and workers serve no pages.
"""

import atexit
import math
import secrets
from datetime import timedelta
from typing import Final

from flask import Flask, Response, g, request
from structlog.contextvars import bind_contextvars, clear_contextvars
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from app import log
from app.api import docs, health, http, outputs, realm
from app.api.ratelimit import Bodies, RateLimit, Streams
from app.api.services import Services
from app.auth import KeyRing
from app.db import bell, connect
from app.domain import catalog
from app.errors import DarkroomError, RateLimited, RequestError, Unauthenticated, Unavailable
from app.intake import Intake
from app.process import die_with_parent
from app.settings import Settings, load
from app.storage import open_store

_POOL: Final = 8
"""Connections to Postgres per process: inserts stop getting faster at about four in flight."""
_AWAY: Final = timedelta(seconds=5)
"""When to try again while a part of ours is away and nobody knows for how long."""

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
        bodies=Bodies(settings.web_threads // 2),
        streams=Streams(settings.web_threads // 2),
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
    # Else //v1/models is redirected, and clients do not repeat a POST after every redirect.
    flask.url_map.merge_slashes = False
    flask.request_class = http.TidyRequest
    flask.teardown_request(http.close_spooled)
    flask.before_request(_name_request)

    @flask.before_request
    def enter() -> None:
        # No blueprint is asked where no endpoint was found; a dialect's callers are counted there too.
        if request.routing_exception is not None and _is_realm():
            services.enter(bearer=False)

    flask.register_blueprint(realm.blueprint(services))
    flask.register_blueprint(outputs.blueprint(services))
    flask.register_blueprint(health.blueprint(services))
    flask.register_blueprint(docs.blueprint(services))
    flask.register_error_handler(DarkroomError, _present)
    flask.register_error_handler(HTTPException, _present_http)
    flask.register_error_handler(Exception, _present_unknown)

    @flask.after_request
    def finish(answer: Response) -> Response:
        answer.headers["X-Request-Id"] = g.request_id
        if _is_realm() or "standing" in g:
            services.rate_limit.write_headers(answer)
        return answer

    return flask


def _name_request() -> None:
    clear_contextvars()
    g.request_id = secrets.token_hex(8)
    bind_contextvars(request_id=g.request_id)


def _is_realm() -> bool:
    return any(request.path == prefix or request.path.startswith(f"{prefix}/") for prefix in realm.PREFIXES)


def _present(error: DarkroomError) -> Response:
    """Show an error in the shape of the dialect whose address was asked.

    Of our own failures a customer learns the kind; the details, such as an address of ours, go to the log.
    """
    if not isinstance(error, RequestError):
        logger.error("request_failed", code=error.code, message=error.message, path=request.path)
        return _shown(type(error)(retry_after=error.retry_after))
    if isinstance(error, RateLimited):
        logger.warning("rate_limited", path=request.path)
    answer = _shown(error)
    if isinstance(error, Unauthenticated):
        answer.headers["WWW-Authenticate"] = 'ApiKey realm="darkroom", header="X-API-Key"'
    return answer


def _shown(error: DarkroomError) -> Response:
    answer = realm.present_error(error) if _is_realm() else outputs.present_error(error)
    wait = error.retry_after or (_AWAY if isinstance(error, Unavailable) else None)
    if wait is not None:
        answer.headers["Retry-After"] = str(math.ceil(wait.total_seconds()))
    return answer


def _present_http(error: HTTPException) -> Response:
    answer = _present(http.as_ours(error))
    if isinstance(error, MethodNotAllowed):
        answer.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
    return answer


def _present_unknown(error: Exception) -> Response:
    logger.error("request_broke", path=request.path, exc_info=error)
    return _shown(DarkroomError("Something in Darkroom went wrong; tell the operator the X-Request-Id."))
