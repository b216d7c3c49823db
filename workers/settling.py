"""Settles an attempt: one guarded statement, repeated while Postgres is away; and what it leaves behind."""

import random
import time
from collections.abc import Callable
from decimal import Decimal

from app.db import Database, history, jobs
from app.db.jobs import Claim
from app.domain.job import Reason, Status, retry_delay
from app.errors import DarkroomError, DatabaseDown
from app.failpoints import failpoint
from app.log import get_logger
from app.settings import Settings
from app.storage import Storage
from workers.finishing import Stored
from workers.leases import wait_between
from workers.outcomes import Kind, Outcome, told

log = get_logger(__name__)


class Settler:
    """Writes down how attempts ended, under one worker's name; thread-safe."""

    def __init__(self, settings: Settings, *, database: Database, storage: Storage, worker: str) -> None:
        self._settings = settings
        self._database = database
        self._storage = storage
        self._worker = worker

    def settle(
        self, claim: Claim, outcome: Outcome, *, warnings: list[str], cost: Decimal | None = None
    ) -> Kind:
        """End the attempt; gives how it ended indeed: GONE when the row was somebody else's by then.

        Args:
            warnings: sentences for the customer, kept with a completed job.
            cost: what a completed job cost, unless that was written down while it ran.
        """
        failpoint("runner.before_settle")
        settled: bool | None
        match outcome.kind:
            case Kind.COMPLETED:
                settled = self._until_answered(lambda: self._write_completed(claim, outcome, warnings, cost))
            case Kind.GONE:
                settled = False
            case Kind.RETRY:
                settled = self._until_answered(lambda: self._write_retry(claim, outcome))
            case Kind.FAILED:
                settled = self._until_answered(
                    lambda: self._write_end(claim, outcome, Status.FAILED, Reason.FAILED)
                )
            case Kind.CANCELLED:
                settled = self._until_answered(
                    lambda: self._write_end(claim, outcome, Status.CANCELLED, Reason.CANCELLED)
                )
        # Unanswered (None) may still have been committed: then the objects are left alone.
        if settled is False or (settled and outcome.kind is not Kind.COMPLETED):
            self._delete(outcome.stored)
        return outcome.kind if settled else Kind.GONE

    def _write_completed(
        self, claim: Claim, outcome: Outcome, warnings: list[str], cost: Decimal | None
    ) -> bool:
        with self._database.autocommit() as tx:
            won = jobs.settle_completed(
                tx,
                claim.job_id,
                attempt=claim.attempt,
                worker=self._worker,
                outputs=[stored.row for stored in outcome.stored],
                retention=self._settings.retention,
                detail=outcome.detail,
                warnings=warnings,
                cost=cost,
            )
            # The answer to an earlier try may have been lost after its commit.
            return won or history.attempt_won(tx, claim.job_id, attempt=claim.attempt)

    def _write_retry(self, claim: Claim, outcome: Outcome) -> bool:
        error = outcome.error
        assert error is not None
        failures = claim.failures + 1 if outcome.charged else claim.attempt
        chance = random.random()  # noqa: S311 - jitter
        delay = retry_delay(failures, chance=chance, retry_after=error.retry_after)
        if outcome.move is not None:
            delay *= 0  # the other target has done nothing to be left alone for
        with self._database.autocommit() as tx:
            return jobs.end_attempt(
                tx,
                claim.job_id,
                attempt=claim.attempt,
                worker=self._worker,
                to_status=Status.QUEUED,
                reason=outcome.reason,
                charge=outcome.charged,
                error_code=error.code,
                error_message=error.public_message,
                delay=delay,
                detail={**told(error), "delay_seconds": round(delay.total_seconds(), 3), **outcome.detail},
                move=outcome.move,
                alone=outcome.alone,
            )

    def _write_end(self, claim: Claim, outcome: Outcome, status: Status, reason: Reason) -> bool:
        error = outcome.error
        assert error is not None
        with self._database.autocommit() as tx:
            return jobs.end_attempt(
                tx,
                claim.job_id,
                attempt=claim.attempt,
                worker=self._worker,
                to_status=status,
                reason=reason,
                charge=status is Status.FAILED,
                error_code=error.code,
                error_message=error.public_message,
                detail={**told(error), **outcome.detail},
            )

    def _until_answered(self, write: Callable[[], bool]) -> bool | None:
        """Repeat a guarded statement while Postgres is away; the fence makes a repetition harmless.

        Gives up after two leases with None, which leaves open whether it was committed: the row decides,
        and if it was not, a rescue has the picture drawn again.
        """
        until = time.monotonic() + self._settings.lease.total_seconds() * 2
        failures = 0
        while True:
            try:
                return write()
            except DatabaseDown:
                failures += 1
                if time.monotonic() > until:
                    log.warning("settle_given_up", tries=failures)
                    return None
                time.sleep(wait_between(failures).total_seconds())  # while Postgres is away

    def _delete(self, stored: tuple[Stored, ...]) -> None:
        """Delete the objects of an attempt that did not win; what fails stays behind, served to nobody."""
        if not stored:
            return
        try:
            left = self._storage.delete([one.key for one in stored])
        except DarkroomError as error:
            left = {one.key: error.code for one in stored}
        if left:
            log.warning("objects_left_behind", objects=len(left))
