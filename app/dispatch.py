"""The relay: releases due jobs to Celery's queues, rescues those of silent workers, repairs lost wake-ups.

It does the same for webhooks' deliveries, see `app/outbox.py`, and moves jobs between the targets of their
model, see `app/pool.py`.

It is a plain loop, not a Celery worker, because it must go on while the broker is down. Several may run:
SKIP LOCKED gives each job to one of them.

A job is marked as dispatched before its wake-up is published, so that no row is locked while a socket is
waited for. When the broker refuses, the mark is taken back; when relay dies in between, the row looks
dispatched without a message, which is what `_repair` finds and undoes.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from app.broker import UPKEEP, WEBHOOKS, Broker
from app.db import Database, bell, jobs, queues, upstreams
from app.domain.breaker import room
from app.domain.catalog import Catalog
from app.errors import BrokerDown, DatabaseDown, Unavailable
from app.log import get_logger
from app.outbox import Outbox
from app.pool import Pool
from app.settings import Settings

log = get_logger(__name__)


def all_queues(catalog: Catalog) -> list[str]:
    """Give the names of all queues there are: those the catalogue's targets name, `upkeep` and `webhooks`."""
    return sorted({*catalog.queues(), UPKEEP, WEBHOOKS})


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What one pass of the relay did."""

    released: int
    """Jobs and deliveries."""
    more: bool
    """Whether a queue filled its batch, so that the next pass should follow at once."""
    wait: timedelta
    """When the next pass should follow if nobody rings and there is no more."""


class Relay:
    """One relay process's state; `run` is its loop, the other methods are single steps of it."""

    def __init__(self, settings: Settings, database: Database, broker: Broker, catalog: Catalog) -> None:
        self._settings = settings
        self._database = database
        self._broker = broker
        self._queues = catalog.queues()
        self._upstreams = {upstream.queue: upstream for upstream in catalog.upstreams}
        self._outbox = Outbox(settings, database, broker)
        self._pool = Pool(settings, database, catalog)
        self._next_check = 0.0
        self._rescue_from = 0.0
        self._failures = 0

    def run(self, stop: threading.Event, *, on_ready: Callable[[], None] = lambda: None) -> None:
        """Release jobs until `stop` is set; wakes up when rung, and once per `relay_poll`.

        Outages of Postgres or the broker are logged and waited out, with a pause that grows to 5 s.
        """
        while not stop.is_set():
            try:
                with bell.wake_up_calls(self._database, bell.JOBS) as wait:
                    on_ready()
                    self._run_while_connected(stop, wait)
            except DatabaseDown as error:
                self._pause(stop, error)

    def _run_while_connected(self, stop: threading.Event, wait: Callable[[timedelta], set[str]]) -> None:
        while not stop.is_set():
            try:
                self.check_now_and_then()
                done = self.release_due()
            except BrokerDown as error:
                self._pause(stop, error)
                continue
            self._failures = 0
            if not done.more:
                wait(done.wait)

    def release_due(self) -> Pass:
        """Release what is due on every queue, up to one batch each; deliveries last.

        Raises:
            BrokerDown: the jobs, or deliveries, of the failed batch are due again.
        """
        batch = self._settings.relay_batch
        counts = [self._release(queue, batch) for queue in self._queues]
        counts.append(self._outbox.release_due())
        wait = min(self._settings.relay_poll, self._outbox.rest or self._settings.relay_poll)
        return Pass(released=sum(counts), more=batch in counts, wait=wait)

    def _release(self, queue: str, batch: int) -> int:
        job_ids = self._mark(queue, batch)
        if not job_ids:
            return 0
        try:
            self._broker.publish(queue, job_ids)
        except BrokerDown:
            with self._database.autocommit() as tx:
                queues.take_back(tx, job_ids)
            raise
        log.debug("jobs_released", queue=queue, jobs=len(job_ids))
        return len(job_ids)

    def _mark(self, queue: str, batch: int) -> list[UUID]:
        upstream = self._upstreams.get(queue)
        if upstream is None:
            with self._database.autocommit() as tx:
                return queues.release(tx, queue, batch=batch)
        with self._database.autocommit() as tx:
            if not queues.any_due(tx, queue):
                return []
        # Its row is kept until the jobs are marked, so that relays together stay within its limits.
        with self._database.transaction() as tx:
            condition = upstreams.locked(tx, upstream.name, calls_per_minute=upstream.calls_per_minute)
            free = room(condition, concurrency=upstream.concurrency, occupied=queues.occupied(tx, queue))
            return queues.release(tx, queue, batch=min(batch, free)) if free else []

    def check_now_and_then(self) -> None:
        """Rescue, repair and reroute, at most once per `relay_poll`."""
        now = time.monotonic()
        if now < self._next_check:
            return
        self._next_check = now + self._settings.relay_poll.total_seconds()
        if now >= self._rescue_from:
            self.rescue()
            self._outbox.rescue()
        self._pool.reroute_now_and_then()
        self.repair()
        self._outbox.repair()
        self._outbox.give_up_now_and_then()

    def rescue(self) -> jobs.Rescued:
        """Give back the jobs of workers that fell silent."""
        with self._database.autocommit() as tx:
            rescued = jobs.rescue(tx)
        if rescued.requeued or rescued.failed:
            log.warning("jobs_rescued", requeued=rescued.requeued, failed=rescued.failed)
        return rescued

    def repair(self) -> int:
        """Make due again the jobs whose wake-up the broker no longer has; gives how many.

        A wake-up may rightly wait longer than `redispatch_after` behind long jobs. It counts as missing
        only if the queue holds fewer messages than the table believes to be out.

        Raises:
            BrokerDown: the broker cannot be asked.
        """
        with self._database.autocommit() as tx:
            suspects = queues.outstanding(tx, older_than=self._settings.redispatch_after)
        repaired = 0
        for suspect in suspects:
            missing = suspect.wake_ups - self._broker.depth(suspect.queue)
            if missing > 0:
                lost = suspect.stale[:missing]
                with self._database.autocommit() as tx:
                    queues.take_back(tx, lost)
                log.warning("wake_ups_missing", queue=suspect.queue, jobs=len(lost))
                repaired += len(lost)
        return repaired

    def _pause(self, stop: threading.Event, error: Unavailable) -> None:
        self._failures += 1
        seconds = min(5.0, 0.1 * 2**self._failures)
        log.warning("relay_waits", error=error.code, message=error.message, seconds=seconds)
        if isinstance(error, DatabaseDown):
            # The workers could not renew their leases either; they get the time of one to do so.
            self._rescue_from = time.monotonic() + self._settings.lease.total_seconds()
            self._pool.give_time()
        # Leases run out also while the broker is away; only Postgres is needed to give the jobs back.
        if isinstance(error, BrokerDown):
            with suppress(DatabaseDown):
                self.rescue()
        stop.wait(seconds)
