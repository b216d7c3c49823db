"""Where customers want to be told: endpoints made, listed, rotated and removed; deliveries sent once more."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.engine import Connection
from uuid_utils.compat import uuid7

from app.db import Database, bell, deliveries, delivery_log
from app.db import webhooks as rows
from app.db.delivery_log import DeliveryRow
from app.db.webhooks import EndpointRow, NewEndpoint
from app.domain.webhook import ENDS, DeliveryStatus, Event, Form, Scope, in_order
from app.errors import (
    ForbiddenAddress,
    StillDelivering,
    StillRotating,
    TooManyWebhooks,
    UnknownDelivery,
    UnknownWebhook,
    WebhookDisabled,
)
from app.safe_http.urls import MAX_URL
from app.vault import Vault
from app.webhooks.signing import new_secret

MAX_ENDPOINTS: Final = 20
"""Endpoints of an account, those that requests name aside."""


@dataclass(frozen=True, kw_only=True)
class Registered:
    """An endpoint, and its secret when that was made just now: it is shown this once."""

    endpoint: EndpointRow
    secret: str | None = field(repr=False)


def endpoint_of_request(database: Database, vault: Vault, *, account_id: UUID, url: str, form: Form) -> UUID:
    """Give the endpoint (scope `request`) for a URL that a request named; made when there is none.

    All such URLs of an account share one signing secret, since many carry an order's number and are used
    once. A disabled one stays disabled; one that its owner deleted comes to life again.

    Args:
        url: as `Guard.check` gave it.

    Raises:
        ForbiddenAddress: it is too long.
        DatabaseDown: nothing was made.
    """
    _refuse_too_long(url)
    with database.autocommit() as tx:
        known = _of_request(tx, account_id=account_id, url=url, form=form)
    if known is not None:
        return known
    with database.transaction() as tx:
        rows.lock_endpoints_of(tx, account_id)
        known = _of_request(tx, account_id=account_id, url=url, form=form)
        if known is not None:
            return known
        new = NewEndpoint(
            id=uuid7(),
            account_id=account_id,
            url=url,
            form=form,
            scope=Scope.REQUEST,
            events=list(ENDS),
            secret=rows.secret_of_requests(tx, account_id=account_id) or vault.encrypt(new_secret()),
        )
        return rows.insert_endpoint(tx, new).id


def _of_request(tx: Connection, *, account_id: UUID, url: str, form: Form) -> UUID | None:
    known = rows.find_by_url(tx, account_id=account_id, scope=Scope.REQUEST, form=form, url=url)
    return None if known is None or known.disabled_reason == rows.DELETED else known.id


def register(
    database: Database, vault: Vault, *, account_id: UUID, url: str, form: Form, events: Sequence[Event]
) -> Registered:
    """Give the account's endpoint for a URL, told of these events; made when there is none.

    Harmless when repeated: then it only changes the events.

    Raises:
        TooManyWebhooks: the account has as many as it may.
        ForbiddenAddress: the URL is too long.
    """
    _refuse_too_long(url)
    told = in_order(events)
    with database.transaction() as tx:
        rows.lock_endpoints_of(tx, account_id)
        known = rows.find_by_url(tx, account_id=account_id, scope=Scope.ACCOUNT, form=form, url=url)
        if known is not None and known.disabled_reason != rows.DELETED:
            return Registered(endpoint=rows.change_events(tx, known.id, events=told), secret=None)
        if rows.count_endpoints(tx, account_id=account_id) >= MAX_ENDPOINTS:
            raise TooManyWebhooks(f"This account has {MAX_ENDPOINTS} webhooks, the most allowed; delete one.")
        secret = new_secret()
        new = NewEndpoint(
            id=uuid7(),
            account_id=account_id,
            url=url,
            form=form,
            scope=Scope.ACCOUNT,
            events=told,
            secret=vault.encrypt(secret),
        )
        return Registered(endpoint=rows.insert_endpoint(tx, new), secret=secret)


def find(database: Database, endpoint_id: UUID, *, account_id: UUID) -> EndpointRow:
    """Give an account's endpoint, of either scope.

    Raises:
        UnknownWebhook: there is none, it is somebody else's, or it was deleted.
    """
    with database.autocommit() as tx:
        return _known(rows.find_endpoint(tx, endpoint_id, account_id=account_id))


def delete(database: Database, endpoint_id: UUID, *, account_id: UUID) -> None:
    """Send nothing to an endpoint any more; what waits for it fails.

    Raises:
        UnknownWebhook: see `find`.
    """
    with database.transaction() as tx:
        if not rows.delete(tx, endpoint_id, account_id=account_id):
            raise UnknownWebhook
        deliveries.fail_waiting(tx, endpoint_id, reason=rows.DELETED)


def enable(database: Database, endpoint_id: UUID, *, account_id: UUID) -> EndpointRow:
    """Send to a disabled endpoint again, and to a paused one at once; what failed meanwhile is for a replay.

    Raises:
        UnknownWebhook: see `find`.
    """
    with database.autocommit() as tx:
        return _known(rows.enable(tx, endpoint_id, account_id=account_id))


def rotate(
    database: Database, vault: Vault, endpoint_id: UUID, *, account_id: UUID, keep: timedelta
) -> Registered:
    """Give an endpoint a new secret; the one before signs too for as long as `keep`.

    The URLs that requests name share theirs.

    Args:
        keep: zero ends every secret before the new one, also one that was promised more time.

    Raises:
        UnknownWebhook: see `find`.
        StillRotating: the secret before the present one was promised more time, and only two can sign.
    """
    secret = new_secret()
    with database.transaction() as tx:
        # Else a URL that is named for the first time meanwhile keeps the secret that the others just lost.
        rows.lock_endpoints_of(tx, account_id)
        known = _known(rows.find_endpoint(tx, endpoint_id, account_id=account_id))
        if keep and known.previous_until is not None:
            raise StillRotating(
                "The secret before the present one signs until "
                f"{known.previous_until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}, as it was promised; wait, or "
                "send hours: 0 to have only the new one sign."
            )
        sealed = vault.encrypt(secret)
        if not rows.rotate(tx, endpoint_id, account_id=account_id, secret=sealed, keep=keep):
            raise UnknownWebhook
        endpoint = _known(rows.find_endpoint(tx, endpoint_id, account_id=account_id))
    return Registered(endpoint=endpoint, secret=secret)


def send_test(database: Database, endpoint_id: UUID, *, account_id: UUID) -> DeliveryRow:
    """Owe an endpoint a test delivery, which is tried once and at once.

    Raises:
        UnknownWebhook: see `find`.
        WebhookDisabled: it must be enabled first.
    """
    with database.transaction() as tx:
        _enabled(tx, endpoint_id, account_id=account_id)
        _wake_relay(tx)
        return delivery_log.insert_test(tx, endpoint_id)


def find_delivery(
    database: Database, delivery_id: UUID, *, account_id: UUID
) -> tuple[DeliveryRow, list[delivery_log.AttemptRow]]:
    """Give an account's delivery and its tries.

    Raises:
        UnknownDelivery: there is none, or it is somebody else's.
    """
    with database.autocommit() as tx:
        found = delivery_log.find(tx, delivery_id, account_id=account_id)
        if found is None:
            raise UnknownDelivery
        return found, delivery_log.attempts(tx, delivery_id)


def replay(database: Database, delivery_id: UUID, *, account_id: UUID) -> DeliveryRow:
    """Deliver again, from now on by the whole schedule, under the same id and to the byte the same.

    Raises:
        UnknownDelivery: there is none, or it is somebody else's.
        StillDelivering: it has neither been delivered nor given up.
        UnknownWebhook, WebhookDisabled: of its endpoint.
    """
    with database.transaction() as tx:
        found = delivery_log.find(tx, delivery_id, account_id=account_id)
        if found is None:
            raise UnknownDelivery
        _enabled(tx, found.endpoint_id, account_id=account_id)
        again = delivery_log.replay(tx, delivery_id)
        if again is None:
            raise StillDelivering
        _wake_relay(tx)
        return again


def replay_between(
    database: Database,
    endpoint_id: UUID,
    *,
    account_id: UUID,
    since: datetime,
    until: datetime,
    status: DeliveryStatus | None,
) -> int:
    """Replay what ended among an endpoint's events in [since, until); gives how many deliveries.

    Args:
        status: only those that ended like this; None: all that ended.

    Raises:
        UnknownWebhook, WebhookDisabled.
    """
    with database.transaction() as tx:
        _enabled(tx, endpoint_id, account_id=account_id)
        _wake_relay(tx)
        return delivery_log.replay_between(tx, endpoint_id, since=since, until=until, status=status)


def _known(found: EndpointRow | None) -> EndpointRow:
    if found is None:
        raise UnknownWebhook
    return found


def _enabled(tx: Connection, endpoint_id: UUID, *, account_id: UUID) -> None:
    if _known(rows.find_endpoint(tx, endpoint_id, account_id=account_id)).disabled_at is not None:
        raise WebhookDisabled


def _wake_relay(tx: Connection) -> None:
    """With the commit. These are requests of people, too few to need a `Doorbell`."""
    tx.exec_driver_sql(f'NOTIFY "{bell.JOBS}"')


def _refuse_too_long(url: str) -> None:
    # Percent-encoding can make it three times as long as what was sent, and then no index would hold it.
    if len(url.encode()) > MAX_URL:
        raise ForbiddenAddress(f"The URL may have at most {MAX_URL:,} characters, percent-encoded.")
