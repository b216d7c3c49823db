"""The rows of the paid calls that are made for one order: written before, and kept up whatever happens."""

import time
from collections.abc import Callable
from decimal import Decimal
from typing import Final, TypeVar
from uuid import UUID

from app.db import Database, upstreams
from app.domain.calls import CallState, Spent
from app.domain.upstreams import Upstream
from app.errors import CancelRequested, DarkroomError, DatabaseDown, Lost
from app.log import get_logger
from workers.leases import wait_between
from workers.providers.base import Attempt
from workers.providers.upstream.promise import Order, Receipt

_PATIENCE: Final = 30.0
"""Seconds for which what a vendor said is kept in hand while Postgres is away: about a lease, after which the
job is another attempt's."""

_T = TypeVar("_T")

log = get_logger(__name__)


class Books:
    """The calls of one job to one account; see `app.db.upstreams`."""

    def __init__(self, database: Database, account: Upstream, attempt: Attempt) -> None:
        self._database = database
        self._account = account
        self._attempt = attempt

    def spent(self, order: Order) -> Spent:
        """Give what was bought for these images before."""
        with self._database.autocommit() as tx:
            return upstreams.spent(
                tx,
                self._attempt.job_id,
                provider=self._account.name,
                first_index=order.index,
                reference=order.reference,
                idempotent=self._account.idempotent,
            )

    def begin(self, order: Order) -> tuple[UUID, float]:
        """Write down a call that is about to be made; gives its id and the seconds left to the attempt.

        Raises:
            Lost, CancelRequested: it must not be made, whatever the last heartbeat said.
        """
        with self._database.autocommit() as tx:
            begun = upstreams.begin_call(
                tx,
                self._attempt.job_id,
                attempt=self._attempt.number,
                provider=self._account.name,
                first_index=order.index,
                images=order.images,
                reference=order.reference,
            )
        if begun.id is None:
            raise CancelRequested if begun.is_cancelled else Lost
        return begun.id, begun.left

    def accept(self, call_id: UUID, receipt: Receipt, cost: Decimal | None) -> None:
        """Save the vendor's own id for a call."""
        upstream_id = receipt.upstream_id
        assert upstream_id is not None

        def write() -> None:
            with self._database.autocommit() as tx:
                upstreams.accept_call(tx, call_id, upstream_id=upstream_id, detail=receipt.detail, cost=cost)

        _until_written(write)

    def end(
        self,
        call_id: UUID,
        state: CallState,
        *,
        error: DarkroomError | None = None,
        cost: Decimal | None = None,
    ) -> bool:
        """End a call; False: it cannot end like this any more, as somebody else had an answer to it."""
        message = None if error is None else error.message

        def write() -> bool:
            with self._database.autocommit() as tx:
                return upstreams.end_call(tx, call_id, state, error=message, cost=cost)

        return _until_written(write)


def _until_written(write: Callable[[], _T]) -> _T:
    """Repeat a statement while Postgres is away; the call's state makes a repetition harmless.

    Raises:
        DatabaseDown: it was away for too long.
    """
    end = time.monotonic() + _PATIENCE
    failures = 0
    while True:
        try:
            return write()
        except DatabaseDown:
            failures += 1
            if time.monotonic() > end:
                log.warning("call_not_written", tries=failures)
                raise
            time.sleep(wait_between(failures).total_seconds())  # while Postgres is away
