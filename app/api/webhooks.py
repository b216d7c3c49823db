"""Darkroom's own API for webhooks: make and test them, rotate their secrets, see and replay deliveries.

Ids of other accounts answer 404, like ids that never were.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

from flask import Blueprint, Response, request
from pydantic import BaseModel

from app import webhooks
from app.api import http
from app.api.services import Services
from app.api.strict import unknown_members
from app.api.webhook_models import (
    WEBHOOK_PREFIX,
    DeliveriesQuery,
    DeliveriesShown,
    ReplayRequest,
    ReplayShown,
    RotateRequest,
    WebhookRequest,
    WebhooksQuery,
    WebhooksShown,
    delivery_detail,
    delivery_shown,
    webhook_made,
    webhook_shown,
)
from app.api.webhook_operations import OPERATIONS
from app.db import delivery_log
from app.db import webhooks as rows
from app.db.delivery_log import DeliveryRow, Place
from app.domain.webhook import DeliveryStatus, Event, Form, Scope
from app.errors import (
    FieldProblem,
    ForbiddenAddress,
    InvalidFields,
    UnknownDelivery,
    UnknownWebhook,
    Unreachable,
)
from app.safe_http.urls import parse
from app.webhooks import MESSAGE_PREFIX

_ID: Final = re.compile(rf"{WEBHOOK_PREFIX}([0-9a-f]{{32}})")
_DELIVERY_ID: Final = re.compile(rf"{MESSAGE_PREFIX}([0-9a-f]{{32}})")
_MAX_BODY: Final = 16 * 1024
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

__all__ = ["OPERATIONS", "blueprint"]

M = TypeVar("M", bound=BaseModel)


def blueprint(services: Services) -> Blueprint:
    """Give the endpoints, bound to a web process's services."""
    made = Blueprint("webhooks", __name__)

    @made.before_request
    def authenticate() -> None:
        services.enter(bearer=True)

    _add_endpoints(made, services)
    _add_changes(made, services)
    _add_deliveries(made, services)
    _add_replays(made, services)
    return made


def _add_endpoints(made: Blueprint, services: Services) -> None:
    database = services.database

    @made.post("/v1/webhooks")
    def create() -> Response:
        wanted = _read(WebhookRequest, services)
        with services.bodies.reading(http.caller().account_id):  # it looks a name up
            url = _checked(wanted.url, services)
        registered = webhooks.register(
            database,
            services.vault,
            account_id=http.caller().account_id,
            url=url,
            form=Form(wanted.form),
            events=[Event(event) for event in wanted.events],
        )
        return _shown(webhook_made(registered), 200 if registered.secret is None else 201)

    @made.get("/v1/webhooks")
    def list_them() -> Response:
        query = _query(WebhooksQuery)
        with database.autocommit() as tx:
            found = rows.list_endpoints(
                tx,
                account_id=http.caller().account_id,
                scope=Scope(query.scope),
                before=None if query.cursor is None else _parse_id(query.cursor),
                limit=query.limit + 1,
            )
        page = [webhook_shown(row) for row in found[: query.limit]]
        more = page[-1].id if len(found) > query.limit else None
        return _shown(WebhooksShown(data=page, next_cursor=more))

    @made.get("/v1/webhooks/<webhook_id>")
    def get(webhook_id: str) -> Response:
        account_id = http.caller().account_id
        return _shown(webhook_shown(webhooks.find(database, _parse_id(webhook_id), account_id=account_id)))


def _add_changes(made: Blueprint, services: Services) -> None:
    database = services.database

    @made.delete("/v1/webhooks/<webhook_id>")
    def delete(webhook_id: str) -> Response:
        webhooks.delete(database, _parse_id(webhook_id), account_id=http.caller().account_id)
        return http.empty()

    @made.post("/v1/webhooks/<webhook_id>/enable")
    def enable(webhook_id: str) -> Response:
        account_id = http.caller().account_id
        return _shown(webhook_shown(webhooks.enable(database, _parse_id(webhook_id), account_id=account_id)))

    @made.post("/v1/webhooks/<webhook_id>/rotate")
    def rotate(webhook_id: str) -> Response:
        wanted = _read(RotateRequest, services)
        rotated = webhooks.rotate(
            database,
            services.vault,
            _parse_id(webhook_id),
            account_id=http.caller().account_id,
            keep=timedelta(hours=wanted.hours),
        )
        return _shown(webhook_made(rotated))


def _add_deliveries(made: Blueprint, services: Services) -> None:
    database = services.database

    @made.post("/v1/webhooks/<webhook_id>/test")
    def test(webhook_id: str) -> Response:
        account_id = http.caller().account_id
        row = webhooks.send_test(database, _parse_id(webhook_id), account_id=account_id)
        return _shown(delivery_shown(row), 202)

    @made.get("/v1/webhooks/<webhook_id>/deliveries")
    def list_deliveries(webhook_id: str) -> Response:
        query = _query(DeliveriesQuery)
        endpoint = webhooks.find(database, _parse_id(webhook_id), account_id=http.caller().account_id)
        with database.autocommit() as tx:
            found = delivery_log.of_endpoint(
                tx,
                endpoint.id,
                status=None if query.status is None else DeliveryStatus(query.status),
                after=None if query.cursor is None else _parse_cursor(query.cursor),
                limit=query.limit + 1,
            )
        page = found[: query.limit]
        more = _cursor_of(page[-1]) if len(found) > query.limit else None
        return _shown(DeliveriesShown(data=[delivery_shown(row) for row in page], next_cursor=more))

    @made.get("/v1/deliveries/<delivery_id>")
    def get_delivery(delivery_id: str) -> Response:
        found = webhooks.find_delivery(
            database, _parse_delivery_id(delivery_id), account_id=http.caller().account_id
        )
        return _shown(delivery_detail(*found))


def _add_replays(made: Blueprint, services: Services) -> None:
    database = services.database

    @made.post("/v1/webhooks/<webhook_id>/replay")
    def replay_between(webhook_id: str) -> Response:
        wanted = _read(ReplayRequest, services)
        until = wanted.until or datetime.now(UTC)
        if wanted.since >= until:
            problem = FieldProblem(field="since", message="must be before `until`, which is now by default")
            raise InvalidFields(problem)
        account_id = http.caller().account_id
        with services.searches.reading(account_id):
            replayed = webhooks.replay_between(
                database,
                _parse_id(webhook_id),
                account_id=account_id,
                since=wanted.since,
                until=until,
                status=None if wanted.status is None else DeliveryStatus(wanted.status),
            )
        return _shown(ReplayShown(replayed=replayed), 202)

    @made.post("/v1/deliveries/<delivery_id>/replay")
    def replay(delivery_id: str) -> Response:
        account_id = http.caller().account_id
        row = webhooks.replay(database, _parse_delivery_id(delivery_id), account_id=account_id)
        return _shown(delivery_shown(row), 202)


def _read(model: type[M], services: Services) -> M:
    """The validated body; no body at all is one without members."""
    content: Mapping[str, Any] = {}
    if request.content_length or "Transfer-Encoding" in request.headers:
        with services.bodies.reading(http.caller().account_id):
            content = http.read_json(request, limit=_MAX_BODY)
    return _strictly(model, content)


def _query(model: type[M]) -> M:
    return _strictly(model, {name: text for name, text in request.args.items() if text})


def _strictly(model: type[M], content: Mapping[str, Any]) -> M:
    return http.parse(model, content, besides=unknown_members(model.model_fields, content))


def _checked(url: str, services: Services) -> str:
    """The URL as it will be asked for, if the guard lets us there now; it looks again at each delivery."""
    try:
        checked = parse(parse(url).url).url  # percent-encoding can make it too long
    except ForbiddenAddress as error:
        raise InvalidFields(FieldProblem(field="url", message=error.message)) from None
    try:
        services.webhook_guard.check(checked)
    except (ForbiddenAddress, Unreachable) as error:
        raise InvalidFields(FieldProblem(field="url", message=error.message)) from None
    return checked


def _parse_id(shown: str) -> UUID:
    parts = _ID.fullmatch(shown)
    if parts is None:
        raise UnknownWebhook
    return UUID(hex=parts[1])


def _parse_delivery_id(shown: str) -> UUID:
    parts = _DELIVERY_ID.fullmatch(shown)
    if parts is None:
        raise UnknownDelivery
    return UUID(hex=parts[1])


def _cursor_of(row: DeliveryRow) -> str:
    return f"{(row.created_at - _EPOCH) // timedelta(microseconds=1)}-{row.id.hex}"


def _parse_cursor(cursor: str) -> Place:
    microseconds, _, shown = cursor.partition("-")
    return Place(created_at=_EPOCH + timedelta(microseconds=int(microseconds)), id=UUID(hex=shown))


def _shown(body: BaseModel, status: int = 200) -> Response:
    return http.json_response(body.model_dump(mode="json"), status)
