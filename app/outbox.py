"""The relay's part for webhooks: releases due deliveries, rescues those of silent workers, repairs.

Like jobs, deliveries are marked before their wake-ups are published, and Celery's message is only a wake-up.
"""

import time
from datetime import timedelta
from typing import Final

from app.broker import DELIVER, WEBHOOKS, Broker
from app.db import Database, outbox
from app.errors import BrokerDown
from app.log import get_logger
from app.settings import Settings

_QUICK: Final = 0.005
"""Seconds that a look may take for which we do not rest. It takes 5 µs for each endpoint that something
waits for: thousands, when customers put an order's number into each URL of a host that is dead."""
_REST: Final = 10
"""How many times as long as a slow look took we rest after it, so that jobs do not wait for webhooks."""
_GIVE_UP_EVERY: Final = 60.0
"""Seconds between two searches for what waits in vain."""

log = get_logger(__name__)


class Outbox:
    """One relay process's view of the deliveries; several relays may look at once."""

    def __init__(self, settings: Settings, database: Database, broker: Broker) -> None:
        self._settings = settings
        self._database = database
        self._broker = broker
        self._next_look = 0.0
        self._next_giving_up = 0.0

    @property
    def rest(self) -> timedelta:
        """How long it is until the next look, zero unless the last one was slow."""
        return timedelta(seconds=max(0.0, self._next_look - time.monotonic()))

    def release_due(self) -> int:
        """Release what is due, up to one batch; gives how many. One statement when nothing is.

        Raises:
            BrokerDown: the deliveries are due again.
        """
        if self.rest or not self._look():
            return 0
        with self._database.transaction() as tx:
            delivery_ids = outbox.release(tx, queue=WEBHOOKS, batch=self._settings.relay_batch)
        if not delivery_ids:
            return 0
        try:
            self._broker.publish(WEBHOOKS, delivery_ids, task=DELIVER)
        except BrokerDown:
            with self._database.autocommit() as tx:
                outbox.take_back(tx, delivery_ids)
            raise
        log.debug("deliveries_released", deliveries=len(delivery_ids))
        return len(delivery_ids)

    def _look(self) -> bool:
        began = time.monotonic()
        with self._database.autocommit() as tx:
            due = outbox.any_due(tx)
        now = time.monotonic()
        if now - began > _QUICK:
            self._next_look = now + (now - began) * _REST
        return due

    def rescue(self) -> int:
        """Make due again what workers were posting that fell silent; gives how many."""
        with self._database.autocommit() as tx:
            rescued = outbox.rescue(tx)
        if rescued:
            log.warning("deliveries_rescued", deliveries=rescued)
        return rescued

    def repair(self) -> int:
        """Make due again the deliveries whose wake-up the broker no longer has; gives how many.

        Raises:
            BrokerDown: the broker cannot be asked.
        """
        with self._database.autocommit() as tx:
            found = outbox.outstanding(tx, older_than=self._settings.redispatch_after)
        missing = found.wake_ups - self._broker.depth(WEBHOOKS) if found else 0
        if found is None or missing <= 0:
            return 0
        lost = found.stale[:missing]
        with self._database.autocommit() as tx:
            outbox.take_back(tx, lost)
        log.warning("wake_ups_missing", queue=WEBHOOKS, deliveries=len(lost))
        return len(lost)

    def give_up_now_and_then(self) -> None:
        """Fail what waits in vain, at most once a minute."""
        now = time.monotonic()
        if now < self._next_giving_up:
            return
        self._next_giving_up = now + _GIVE_UP_EVERY
        with self._database.autocommit() as tx:
            given_up = outbox.give_up_hopeless(tx)
        if given_up:
            log.warning("deliveries_given_up", deliveries=given_up)
