"""The Flask application: the only place where the web parts meet.

It stands here and not in `app/__init__.py`, which every worker runs, and workers serve no pages.
"""

import atexit
import math
import secrets
from datetime import timedelta
from types import ModuleType
from typing import Final

from flask import Flask, Response, g, request
from structlog.contextvars import bind_contextvars, clear_contextvars
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from app import log, safe_http
from app.api import (
    docs,
    health,
    http,
    imgprocessing,
    jobs,
    models,
    modelslab,
    openai,
    outputs,
    realm,
    webhooks,
)
from app.api.ratelimit import Bodies, RateLimit, Searches, Streams
from app.api.services import Services
from app.auth import KeyRing
from app.db import bell, connect
from app.domain import catalog
from app.errors import (
    Busy,
    DarkroomError,
    RateLimited,
    RequestError,
    StillWorking,
    Unauthenticated,
    Unavailable,
    Unservable,
)
from app.intake import Intake
from app.process import die_with_parent, when_asked_to_end
from app.settings import Settings, load
from app.sources import Sources
from app.storage import open_store
from app.vault import Vault
from app.waits import Waits

_POOL: Final = 8
"""Connections to Postgres per process: inserts stop getting faster at about four in flight."""
_DIALECTS: Final = (openai, imgprocessing, modelslab, realm)
"""Whose shape an error has is decided by its address; the first that owns it counts."""
_ROOMS: Final = (realm, models, imgprocessing, modelslab, openai, jobs, outputs, webhooks, health, docs)
_AWAY: Final = timedelta(seconds=5)
"""When to try again while a part of ours is away and nobody knows for how long."""

logger = log.get_logger(__name__)


def create_app(settings: Settings) -> Flask:
    """Give the application, with its threads started and nothing connected yet.

    Raises:
        SetupError: the catalogue cannot be read.
    """
    services, doorbell = assemble(settings)
    listener = bell.Listener(
        services.database, {bell.KEYS: services.keys.forget, bell.PROGRESS: services.waits.ring}
    )
    threads = (listener, doorbell, services.waits)
    for thread in threads:
        thread.start()
    flask = build(services)
    flask.extensions["darkroom"] = services
    flask.extensions["darkroom.threads"] = threads
    return flask


def assemble(settings: Settings) -> tuple[Services, bell.Doorbell]:
    """Give all parts of a web process; nothing is started, nothing connects.

    Raises:
        SetupError: the catalogue cannot be read, or a setting is malformed.
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
            catalog=catalog.load(settings.models_file, offered=settings.models),
            doorbell=doorbell,
        ),
        keys=KeyRing(settings, database),
        rate_limit=RateLimit(settings.rate_limit_per_minute),
        # One account's bodies, waits and streams are together fewer than the threads.
        bodies=Bodies(max(1, settings.web_threads // 4)),
        unnamed_bodies=Bodies(settings.web_threads // 2),
        searches=Searches(_POOL // 4),
        streams=Streams(settings.web_threads // 2),
        waits=Waits(database, most=settings.max_waits or max(1, settings.web_threads * 3 // 4)),
        sources=Sources(settings, database=database, storage=storage, guard=safe_http.for_fetch(settings)),
        vault=Vault(settings),
        webhook_guard=safe_http.for_webhooks(settings),
        bucket_guard=safe_http.for_buckets(settings),
    )
    return services, doorbell


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
    # An open stream would else hold up the end of the process for all of the server's grace.
    when_asked_to_end(flask.extensions["darkroom"].waits.let_go)
    atexit.register(close, flask)
    return flask


def build(services: Services) -> Flask:
    """Give the application around a web process's parts, which the caller starts."""
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
        if request.routing_exception is not None and _shape() is realm:
            services.enter(bearer=False)

    for room in _ROOMS:
        flask.register_blueprint(room.blueprint(services))
    flask.register_error_handler(DarkroomError, _present)
    flask.register_error_handler(HTTPException, _present_http)
    flask.register_error_handler(Exception, _present_unknown)

    @flask.after_request
    def finish(answer: Response) -> Response:
        answer.headers["X-Request-Id"] = g.request_id
        if _shape() is realm or "standing" in g:
            services.rate_limit.write_headers(answer)
        return answer

    return flask


def _name_request() -> None:
    clear_contextvars()
    g.request_id = secrets.token_hex(8)
    bind_contextvars(request_id=g.request_id)


def _shape() -> ModuleType:
    """The dialect that has the address asked, or whoever shows our own endpoints' errors."""
    if request.path == "/v1/models" or request.path.startswith("/v1/models/"):
        return openai if models.asks_openai() else realm
    return next((dialect for dialect in _DIALECTS if dialect.owns(request.path)), outputs)


def _present(error: DarkroomError) -> Response:
    """Show an error in the shape of the dialect whose address was asked.

    Of our own failures a customer learns the kind; the details, such as an address of ours, go to the log.
    """
    if isinstance(error, Busy | StillWorking | Unservable):
        logger.info("told_to_come_back", code=error.code, path=request.path)
        return _shown(error)
    if not isinstance(error, RequestError):
        logger.error("request_failed", code=error.code, message=error.message, path=request.path)
        return _shown(type(error)(retry_after=error.retry_after))
    if isinstance(error, RateLimited):
        logger.warning("rate_limited", path=request.path)
    answer = _shown(error)
    if isinstance(error, Unauthenticated):
        bearer = 'Bearer realm="darkroom"'
        answer.headers["WWW-Authenticate"] = (
            bearer if _shape() is openai else 'ApiKey realm="darkroom", header="X-API-Key"'
        )
    return answer


def _shown(error: DarkroomError) -> Response:
    answer: Response = _shape().present_error(error)
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
