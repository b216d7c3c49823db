"""One delivery from claim to settled: claim → make its body → post it through the guard → settle.

Knows no Celery; a test just calls `Deliverer.deliver`. The body is kept before it is posted, so that every
try sends the same bytes, and a worker that dies in between leaves a lease behind that runs out.
"""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import structlog

from app import webhooks
from app.db import Database, bell, deliveries, history, outbox, outputs
from app.db.deliveries import Claim, Try
from app.domain.webhook import DeliveryStatus, Event, Verdict, judge, parse_retry_after
from app.errors import DarkroomError, DatabaseDown, SetupError
from app.log import get_logger
from app.safe_http import Answer, Guard
from app.settings import Settings
from app.vault import Vault
from app.webhooks import Told
from workers.leases import wait_between

_KEPT: Final = 1024
"""Characters kept of an answer's body."""

log = get_logger(__name__)


class Deliverer:
    """Posts deliveries; thread-safe, one per process.

    Args:
        is_draining: once True, nothing more is claimed.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        guard: Guard,
        vault: Vault,
        doorbell: bell.Doorbell,
        is_draining: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings = settings
        self._database = database
        self._guard = guard
        self._vault = vault
        self._doorbell = doorbell
        self._is_draining = is_draining
        # Posting ends within its timeout; the rest is for a database that is slow.
        self._lease = settings.webhook_timeout + settings.lease

    def deliver(self, delivery_id: UUID) -> DeliveryStatus | None:
        """Try a delivery if it is there for the taking; gives how it stands then.

        None when it was not, or when its row moved on meanwhile; both are nobody's fault.

        Raises:
            DatabaseDown: then its lease runs out, and relay has it tried again.
        """
        if self._is_draining():
            with self._database.autocommit() as tx:
                outbox.take_back(tx, [delivery_id])
            return None
        with self._database.autocommit() as tx:
            claim = deliveries.claim(tx, delivery_id, lease=self._lease)
        if claim is None:
            log.debug("nothing_to_deliver", delivery_id=str(delivery_id))
            return None
        with structlog.contextvars.bound_contextvars(delivery_id=str(delivery_id), attempt=claim.attempt):
            return self._deliver_claimed(claim)

    def _deliver_claimed(self, claim: Claim) -> DeliveryStatus | None:
        body = self._body(claim)
        if body is None:
            return None
        outcome = self._try(claim, body.encode())
        status = self._settle(claim, outcome)
        self._doorbell.ring()
        log.info(
            "delivery_tried",
            verdict=outcome.verdict.value,
            http_status=outcome.status,
            seconds=round(outcome.seconds, 3),
            stands=status.value if status else "moved on",
        )
        return status

    def _body(self, claim: Claim) -> str | None:
        """The body, made and kept by the first try; None when the delivery moved on."""
        if claim.body is not None:
            return claim.body
        body = webhooks.render(claim.form, self._told(claim))
        with self._database.autocommit() as tx:
            kept = deliveries.keep_body(tx, claim.id, attempt=claim.attempt, body=body)
        return body if kept else None

    def _told(self, claim: Claim) -> Told:
        if claim.job_id is None:
            return Told(delivery_id=claim.id, event=claim.event, at=claim.created_at, job=None)
        with self._database.autocommit() as tx:
            job = history.find_job(tx, claim.job_id, account_id=claim.account_id)
            rows = outputs.of_job(tx, claim.job_id) if claim.event is Event.COMPLETED else []
        assert job is not None, "a job's row is never deleted"
        return Told(
            delivery_id=claim.id,
            event=claim.event,
            at=claim.created_at,
            job=job,
            outputs=rows,
            base_url=(self._settings.public_url or job.base_url or "").rstrip("/"),
        )

    def _try(self, claim: Claim, body: bytes) -> Try:
        began = time.monotonic()
        try:
            answer = self._post(claim, body)
        except DarkroomError as error:
            seconds = time.monotonic() - began
            return Try(verdict=Verdict.RETRY, seconds=seconds, error=_told_of(error))
        seconds = time.monotonic() - began
        retry_after = parse_retry_after(answer.headers.get("Retry-After"), now=datetime.now(UTC))
        verdict = judge(answer.status, retry_after=retry_after)
        return Try(
            verdict=verdict,
            seconds=seconds,
            status=answer.status,
            error=None if verdict is Verdict.DELIVERED else _why(answer),
            # Postgres cannot hold NUL.
            response=answer.body.decode(errors="replace").replace("\0", "\ufffd")[:_KEPT],
            retry_after=retry_after,
        )

    def _post(self, claim: Claim, body: bytes) -> Answer:
        headers = webhooks.headers(
            [self._vault.decrypt(secret) for secret in claim.secrets],
            delivery_id=claim.id,
            at=datetime.now(UTC),
            body=body,
            form=claim.form,
        )
        return self._guard.post(claim.url, body=body, headers=headers, timeout=self._settings.webhook_timeout)

    def _settle(self, claim: Claim, outcome: Try) -> DeliveryStatus | None:
        """Write down what came of a try, again and again while Postgres is away, for as long as a lease.

        Raises:
            DatabaseDown: it stays away; then the delivery is tried once more, though it may have arrived.
        """
        until = time.monotonic() + self._lease.total_seconds()
        failures = 0
        chance = random.random()  # noqa: S311 - jitter
        while True:
            try:
                with self._database.transaction() as tx:
                    return deliveries.settle(tx, claim, outcome, chance=chance)
            except DatabaseDown:
                failures += 1
                if time.monotonic() > until:
                    raise
                time.sleep(wait_between(failures).total_seconds())  # while Postgres is away


def _told_of(error: DarkroomError) -> str:
    """What an endpoint's owner is told; of a secret that we cannot read, who can do something about it."""
    if isinstance(error, SetupError):
        log.error("webhook_secret_unreadable", message=error.message)
        return "Darkroom cannot read this webhook's signing secret; rotate it, or tell the operator."
    return error.public_message


def _why(answer: Answer) -> str:
    if 300 <= answer.status < 400:  # noqa: PLR2004 - redirects
        return f"It answered HTTP {answer.status}; redirects are not followed: register where it leads."
    return f"It answered HTTP {answer.status}."
