"""Statements of a worker that posts a delivery: claim, keep its body, settle.

As with jobs, each repeats its condition and says whether it held, and what a worker writes carries `attempt`
as the fence. Whoever locks an endpoint and deliveries locks the endpoint first.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.engine import Connection

from app.domain.webhook import (
    Breaker,
    DeliveryStatus,
    Event,
    Form,
    Verdict,
    after_try,
    has_recovered,
    next_try,
)

DISABLED: Final = "the endpoint is disabled: "
"""How the reason of a delivery begins that was not tried; the trigger `owe_deliveries` writes the same."""
GONE: Final = "it answered 410 Gone"
"""Why an endpoint is disabled that wants nothing more."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A delivery that this process posts now, with all that is needed for it but a body not yet made.

    Attributes:
        attempt: which try this is, from 1; the fence.
        tries: which it is since the first, or since the latest replay.
        body: None until the first try has made it.
        secrets: encrypted, the current one first; with the one before while that still signs.
    """

    id: UUID
    account_id: UUID
    endpoint_id: UUID
    job_id: UUID | None
    event: Event
    attempt: int
    tries: int
    body: str | None
    created_at: datetime
    url: str
    form: Form
    secrets: tuple[str, ...]


_CLAIM: Final = """
UPDATE deliveries d SET
    attempts = CASE WHEN blocked THEN attempts ELSE attempts + 1 END,
    lease_until = CASE WHEN blocked THEN NULL ELSE now() + %(lease)s END,
    dispatched_at = CASE WHEN blocked THEN NULL ELSE dispatched_at END
FROM (
    SELECT id, url, form, secret,
           CASE WHEN previous_until > now() THEN previous_secret END AS previous_secret,
           disabled_at IS NOT NULL OR coalesce(opened_until > now(), false) AS blocked
    FROM webhook_endpoints
) AS e
WHERE d.id = %(id)s AND e.id = d.endpoint_id AND d.status = 'pending' AND d.dispatched_at IS NOT NULL
      AND d.lease_until IS NULL AND d.run_at <= now()
RETURNING d.id, d.account_id, d.endpoint_id, d.job_id, d.event, d.attempts AS attempt,
          d.attempts - d.attempts_before_replay AS tries, d.body, d.created_at, e.url, e.form, e.secret,
          e.previous_secret, e.blocked
"""


def claim(tx: Connection, delivery_id: UUID, *, lease: timedelta) -> Claim | None:
    """Take a released delivery; None when it is not there for the taking.

    When its endpoint was paused or disabled since it was released, it waits again.

    Args:
        lease: how long it stays ours; longer than posting it can take.
    """
    row = tx.exec_driver_sql(_CLAIM, {"id": delivery_id, "lease": lease}).first()
    if row is None or row.blocked:
        return None
    columns = {name: getattr(row, name) for name in Claim.__dataclass_fields__ if hasattr(row, name)}
    secrets = (row.secret,) if row.previous_secret is None else (row.secret, row.previous_secret)
    return Claim(**{**columns, "event": Event(row.event), "form": Form(row.form), "secrets": secrets})


def keep_body(tx: Connection, delivery_id: UUID, *, attempt: int, body: str) -> bool:
    """Keep the body that the first try made, before it is posted; False when the delivery moved on."""
    row = tx.exec_driver_sql(
        "UPDATE deliveries SET body = %(body)s WHERE id = %(id)s AND attempts = %(attempt)s "
        "AND lease_until IS NOT NULL RETURNING id",
        {"id": delivery_id, "attempt": attempt, "body": body},
    ).first()
    return row is not None


@dataclass(frozen=True, kw_only=True)
class Try:
    """What came of a try.

    Attributes:
        status: the answer's HTTP status; None when there was no answer.
        error: why it failed; None when it was delivered.
        response: the beginning of the answer's body.
        retry_after: what the answer asked for.
    """

    verdict: Verdict
    seconds: float
    status: int | None = None
    error: str | None = None
    response: str | None = None
    retry_after: timedelta | None = None


_LOCK: Final = """
SELECT failures, greatest(opened_until - now(), '0'::interval) AS closed_for, disabled_reason
FROM webhook_endpoints WHERE id = %(id)s FOR NO KEY UPDATE
"""
_SETTLE: Final = """
WITH settled AS (
    UPDATE deliveries SET
        status = %(to)s, dispatched_at = NULL, lease_until = NULL,
        finished_at = CASE WHEN %(to)s = 'pending' THEN NULL ELSE now() END,
        run_at = now() + %(wait)s, last_status = %(status)s, last_error = %(error)s
    WHERE id = %(id)s AND attempts = %(attempt)s AND status = 'pending' AND lease_until IS NOT NULL
    RETURNING id, attempts
), noted AS (
    INSERT INTO delivery_attempts (delivery_id, number, at, seconds, status_code, error, response)
    SELECT id, attempts, now() - make_interval(secs => %(seconds)s), %(seconds)s, %(status)s, %(error)s,
           %(response)s
    FROM settled
), endpoint AS (
    UPDATE webhook_endpoints SET
        failures = %(failures)s,
        opened_until = CASE WHEN %(closed_for)s > '0'::interval THEN now() + %(closed_for)s END,
        disabled_at = CASE WHEN %(gone)s THEN coalesce(disabled_at, now()) ELSE disabled_at END,
        disabled_reason = CASE WHEN %(gone)s THEN coalesce(disabled_reason, %(gone_reason)s)
                               ELSE disabled_reason END
    FROM settled WHERE webhook_endpoints.id = %(endpoint_id)s
)
SELECT count(*) FROM settled
"""


def settle(tx: Connection, claim: Claim, outcome: Try, *, chance: float) -> DeliveryStatus | None:
    """Write down a try: the attempt, the delivery and its endpoint's breaker; gives the delivery's status.

    None when the delivery moved on without this try. In a transaction, so that all of it happens or nothing.
    After an outage what waits for the endpoint is due at once; after 410 it fails.

    Args:
        chance: a random number in [0, 1), for the jitter of the next try.
    """
    endpoint = tx.exec_driver_sql(_LOCK, {"id": claim.endpoint_id}).one()
    before = Breaker(failures=endpoint.failures, closed_for=endpoint.closed_for or timedelta(0))
    after = after_try(before, outcome.verdict, retry_after=outcome.retry_after)
    ended = endpoint.disabled_reason is not None or outcome.verdict is Verdict.GONE
    wait = None if ended else _wait(claim, outcome, chance=chance)
    status = _status_after(outcome.verdict, wait)
    parameters = {
        "id": claim.id,
        "attempt": claim.attempt,
        "endpoint_id": claim.endpoint_id,
        "to": status.value,
        "wait": wait or timedelta(0),
        "status": outcome.status,
        "error": outcome.error,
        "seconds": outcome.seconds,
        "response": outcome.response,
        "failures": after.failures,
        "closed_for": after.closed_for,
        "gone": outcome.verdict is Verdict.GONE,
        "gone_reason": GONE,
    }
    if not tx.exec_driver_sql(_SETTLE, parameters).scalar_one():
        return None
    if has_recovered(before, outcome.verdict):
        _bring_forward(tx, claim.endpoint_id)
    if outcome.verdict is Verdict.GONE:
        fail_waiting(tx, claim.endpoint_id, reason=GONE)
    return status


def _wait(claim: Claim, outcome: Try, *, chance: float) -> timedelta | None:
    """How long until the next try; a test has only one, since somebody is looking at it."""
    if claim.event is Event.TEST:
        return None
    asked = outcome.retry_after if outcome.verdict is Verdict.PAUSE else None
    return next_try(claim.tries, chance=chance, retry_after=asked)


def _status_after(verdict: Verdict, wait: timedelta | None) -> DeliveryStatus:
    if verdict is Verdict.DELIVERED:
        return DeliveryStatus.DELIVERED
    return DeliveryStatus.FAILED if wait is None else DeliveryStatus.PENDING


def _bring_forward(tx: Connection, endpoint_id: UUID) -> None:
    tx.exec_driver_sql(
        "UPDATE deliveries SET run_at = now() WHERE id IN ("
        "SELECT id FROM deliveries WHERE status = 'pending' AND dispatched_at IS NULL "
        "AND endpoint_id = %(id)s AND run_at > now() FOR UPDATE SKIP LOCKED)",
        {"id": endpoint_id},
    )


def fail_waiting(tx: Connection, endpoint_id: UUID, *, reason: str) -> int:
    """Fail all that waits for an endpoint which is disabled in this transaction; gives how many."""
    return tx.exec_driver_sql(
        "UPDATE deliveries SET status = 'failed', finished_at = now(), dispatched_at = NULL, "
        "last_error = %(error)s WHERE endpoint_id = %(id)s AND status = 'pending' AND lease_until IS NULL",
        {"id": endpoint_id, "error": DISABLED + reason},
    ).rowcount
