"""Statements about webhooks as their owners see them: endpoints, the log of deliveries, replays.

Nothing here tells of another account's: a foreign id is as unknown as one that never was.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy.engine import Connection, Row

from app.domain.webhook import Event, Form, Scope

DELETED: Final = "deleted"
"""Why an endpoint is disabled that its owner deleted: it is shown no more, and told of nothing."""

_ENDPOINT: Final = (
    "id, account_id, url, form, scope, events, created_at, disabled_at, disabled_reason, failures, "
    "CASE WHEN opened_until > now() THEN opened_until END AS paused_until, "
    "CASE WHEN previous_until > now() THEN previous_until END AS previous_until"
)
_NOT_DELETED: Final = f"disabled_reason IS DISTINCT FROM '{DELETED}'"


@dataclass(frozen=True, kw_only=True)
class EndpointRow:
    """An endpoint as its owner sees it, without its secrets.

    Attributes:
        paused_until: when something is sent to it again; None: at once.
        previous_until: until when the secret before the latest rotation signs too; None: it does not.
    """

    id: UUID
    account_id: UUID
    url: str
    form: Form
    scope: Scope
    events: list[Event]
    created_at: datetime
    disabled_at: datetime | None
    disabled_reason: str | None
    failures: int
    paused_until: datetime | None
    previous_until: datetime | None


def _endpoint(row: Row[Any] | None) -> EndpointRow | None:
    if row is None:
        return None
    told = {"form": Form(row.form), "scope": Scope(row.scope), "events": [Event(it) for it in row.events]}
    return EndpointRow(**{**row._mapping, **told})


def lock_endpoints_of(tx: Connection, account_id: UUID) -> None:
    """Let nobody else make endpoints of this account until the transaction ends."""
    tx.exec_driver_sql(
        "SELECT pg_advisory_xact_lock(hashtextextended('darkroom webhooks of ' || %(id)s::text, 0))",
        {"id": account_id},
    )


def find_by_url(
    tx: Connection, *, account_id: UUID, scope: Scope, form: Form, url: str
) -> EndpointRow | None:
    """Give the endpoint of a URL, also a deleted one."""
    row = tx.exec_driver_sql(
        f"SELECT {_ENDPOINT} FROM webhook_endpoints WHERE account_id = %(account_id)s "
        "AND scope = %(scope)s AND form = %(form)s AND url = %(url)s",
        {"account_id": account_id, "scope": scope.value, "form": form.value, "url": url},
    ).first()
    return _endpoint(row)


def find_endpoint(tx: Connection, endpoint_id: UUID, *, account_id: UUID) -> EndpointRow | None:
    """Give an account's endpoint; None when there is none, it is somebody else's, or it was deleted."""
    row = tx.exec_driver_sql(
        f"SELECT {_ENDPOINT} FROM webhook_endpoints WHERE id = %(id)s AND account_id = %(account_id)s "
        f"AND {_NOT_DELETED}",
        {"id": endpoint_id, "account_id": account_id},
    ).first()
    return _endpoint(row)


def list_endpoints(
    tx: Connection, *, account_id: UUID, scope: Scope, before: UUID | None, limit: int
) -> list[EndpointRow]:
    """Give an account's newest endpoints of a scope, those older than `before`."""
    older = "AND id < %(before)s" if before else ""
    rows = tx.exec_driver_sql(
        f"SELECT {_ENDPOINT} FROM webhook_endpoints WHERE account_id = %(account_id)s AND scope = %(scope)s "
        f"AND {_NOT_DELETED} {older} ORDER BY id DESC LIMIT %(limit)s",
        {"account_id": account_id, "scope": scope.value, "before": before, "limit": limit},
    )
    return [found for row in rows if (found := _endpoint(row)) is not None]


def count_endpoints(tx: Connection, *, account_id: UUID) -> int:
    """Count an account's endpoints of its own, those that requests named aside."""
    return int(
        tx.exec_driver_sql(
            f"SELECT count(*) FROM webhook_endpoints WHERE account_id = %(account_id)s "
            f"AND scope = '{Scope.ACCOUNT}' AND {_NOT_DELETED}",
            {"account_id": account_id},
        ).scalar_one()
    )


@dataclass(frozen=True, kw_only=True)
class NewEndpoint:
    """An endpoint about to be written down; `secret` is encrypted."""

    id: UUID
    account_id: UUID
    url: str
    form: Form
    scope: Scope
    events: list[Event]
    secret: str


# One that was deleted comes to life again as if it were new, but for its id and its deliveries.
_INSERT: Final = f"""
INSERT INTO webhook_endpoints AS known (id, account_id, url, form, scope, events, secret)
VALUES (%(id)s, %(account_id)s, %(url)s, %(form)s, %(scope)s, %(events)s, %(secret)s)
ON CONFLICT (account_id, scope, form, url) DO UPDATE SET
    events = excluded.events, secret = excluded.secret, previous_secret = NULL, previous_until = NULL,
    disabled_at = NULL, disabled_reason = NULL, failures = 0, opened_until = NULL, created_at = now()
    WHERE known.disabled_reason = '{DELETED}'
RETURNING {_ENDPOINT}
"""
_INHERITED: Final = f"""
SELECT secret FROM webhook_endpoints WHERE account_id = %(account_id)s AND scope = '{Scope.REQUEST}' LIMIT 1
"""


def insert_endpoint(tx: Connection, new: NewEndpoint) -> EndpointRow:
    """Write an endpoint down, or revive a deleted one of the same URL; lock the account's endpoints first."""
    values = {**vars(new), "events": [str(event) for event in new.events]}
    found = _endpoint(tx.exec_driver_sql(_INSERT, values).first())
    assert found is not None
    return found


def secret_of_requests(tx: Connection, *, account_id: UUID) -> str | None:
    """Give the encrypted secret that all the URLs share which an account's requests name; None before any."""
    return tx.exec_driver_sql(_INHERITED, {"account_id": account_id}).scalar()


def change_events(tx: Connection, endpoint_id: UUID, *, events: list[Event]) -> EndpointRow:
    """Tell an endpoint of other events from now on."""
    row = tx.exec_driver_sql(
        f"UPDATE webhook_endpoints SET events = %(events)s WHERE id = %(id)s RETURNING {_ENDPOINT}",
        {"id": endpoint_id, "events": [str(event) for event in events]},
    ).one()
    found = _endpoint(row)
    assert found is not None
    return found


def enable(tx: Connection, endpoint_id: UUID, *, account_id: UUID) -> EndpointRow | None:
    """Send to an endpoint again, at once; None when there is none."""
    row = tx.exec_driver_sql(
        "UPDATE webhook_endpoints SET disabled_at = NULL, disabled_reason = NULL, failures = 0, "
        "opened_until = NULL WHERE id = %(id)s AND account_id = %(account_id)s "
        f"AND {_NOT_DELETED} RETURNING {_ENDPOINT}",
        {"id": endpoint_id, "account_id": account_id},
    ).first()
    return _endpoint(row)


def delete(tx: Connection, endpoint_id: UUID, *, account_id: UUID) -> bool:
    """Send nothing to an endpoint any more and show it no more; False when there is none.

    Its row stays, as jobs and deliveries name it. What waits for it is for `deliveries.fail_waiting`.
    """
    row = tx.exec_driver_sql(
        "UPDATE webhook_endpoints SET disabled_at = coalesce(disabled_at, now()), "
        f"disabled_reason = '{DELETED}', events = '{{}}' "
        f"WHERE id = %(id)s AND account_id = %(account_id)s AND {_NOT_DELETED} RETURNING id",
        {"id": endpoint_id, "account_id": account_id},
    ).first()
    return row is not None


_ROTATE: Final = f"""
UPDATE webhook_endpoints e SET
    secret = %(secret)s,
    previous_secret = CASE WHEN %(keep)s > '0'::interval THEN e.secret END,
    previous_until = CASE WHEN %(keep)s > '0'::interval THEN now() + %(keep)s END
FROM (SELECT id, scope FROM webhook_endpoints
      WHERE id = %(id)s AND account_id = %(account_id)s AND {_NOT_DELETED}) AS named
WHERE e.account_id = %(account_id)s AND (e.id = named.id OR e.scope = 'request' AND named.scope = 'request')
"""


def rotate(tx: Connection, endpoint_id: UUID, *, account_id: UUID, secret: str, keep: timedelta) -> bool:
    """Sign with a new secret, and for a while with the one before too; False when there is no such endpoint.

    All the URLs that an account's requests name share a secret, so they all get the new one.

    Args:
        secret: the new one, encrypted.
        keep: how long the one before signs too; zero: not at all.
    """
    parameters = {"id": endpoint_id, "account_id": account_id, "secret": secret, "keep": keep}
    return tx.exec_driver_sql(_ROTATE, parameters).rowcount > 0
