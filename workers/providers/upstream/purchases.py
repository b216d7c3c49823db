"""One order at one account: resumed or bought, waited for, fetched and verified."""

import time
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

from app.db import Database, upstreams
from app.domain.calls import CallState, may_buy, settles_in
from app.domain.upstreams import Upstream
from app.errors import (
    AttemptEnded,
    CancelRequested,
    DarkroomError,
    Deferred,
    ProviderBusy,
    ProviderDown,
    ProviderError,
    ProviderRefused,
    UpstreamAmbiguous,
)
from app.failpoints import failpoint
from app.log import get_logger
from app.safe_http import Guard
from workers.providers.base import Attempt, Picture
from workers.providers.upstream.books import Books
from workers.providers.upstream.health import Health
from workers.providers.upstream.images import fetched, verified
from workers.providers.upstream.promise import (
    Adapter,
    AnswerLost,
    CallLost,
    FindingAdapter,
    Found,
    Order,
    Receipt,
)

_SLICE: Final = 0.2
"""Seconds between two looks at whether the attempt must stop."""
_WAIT_IN_SLOT: Final = 5.0
"""Seconds a job waits for its turn under the rate limit where it is; for longer it goes back to the queue."""
_TURN_AGAIN: Final = 1.0
"""Seconds after which it asks again whether it is its turn: a pause may be over early."""
_SHARE: Final = 0.9
"""Of the time left to an attempt, after which it gives a job back whose calls another can go on with."""
_AT_ONCE: Final = timedelta(seconds=1)
_FIRST_ASK, _LATEST_ASK, _SLOWER = 0.5, 5.0, 1.5
_LONGEST_FIRST_ASK: Final = 30.0

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Means:
    """What an order is carried out with."""

    account: Upstream
    adapter: Adapter
    database: Database
    guard: Guard
    health: Health


@dataclass
class Visit:
    """What the orders of one attempt share.

    Attributes:
        stays: whether the attempt has images in hand that a later one would have to pay for again: then it
            waits for its turn for as long as it takes.
        leaves_at: monotonic time at which it gives the job back, so that another attempt goes on with what is
            paid before the deadline would end the job; None: it bought nothing, and another would be no
            further.
    """

    stays: bool = False
    leaves_at: float | None = None

    def bought_with(self, left: float) -> None:
        """Note a purchase, made so many seconds before the deadline."""
        if self.leaves_at is None:
            self.leaves_at = time.monotonic() + _SHARE * left

    def check(self) -> None:
        """Return while the attempt should go on.

        Raises:
            Deferred: another should.
        """
        if self.leaves_at is not None and not self.stays and time.monotonic() > self.leaves_at:
            raise Deferred("The deadline is near; another attempt goes on.", retry_after=_AT_ONCE)


class Purchase:
    """One order, from deciding whether it must be paid for to its pictures.

    Args:
        cost: of one image; None: unknown.
    """

    def __init__(
        self, means: Means, order: Order, attempt: Attempt, cost: Decimal | None, *, visit: Visit
    ) -> None:
        self._means = means
        self._account = means.account
        self._adapter = means.adapter
        self._books = Books(means.database, means.account, attempt)
        self._order = order
        self._attempt = attempt
        self._cost = None if cost is None else cost * order.images
        self._visit = visit

    def resumed(self, call: upstreams.Call) -> list[Picture]:
        """Go on with a call of an earlier attempt, or find out that there is nothing to go on with."""
        if call.upstream_id is not None and call.state in {CallState.ACCEPTED, CallState.COMPLETED}:
            self._attempt.note("resumed", call.upstream_id)
            try:
                return self._awaited(
                    call.id, Receipt(upstream_id=call.upstream_id, detail=call.detail, wait=0)
                )
            except CallLost as error:
                self._books.end(call.id, CallState.FAILED, error=error)
                return self.bought(_next_reference(call.reference))
        if call.state in {CallState.SENDING, CallState.UNKNOWN}:
            return self._cleared(call)
        failed = call.state is CallState.FAILED
        return self.bought(_next_reference(call.reference) if failed else call.reference)

    def _cleared(self, call: upstreams.Call) -> list[Picture]:
        """Find out what became of a call whose answer got lost, as far as the vendor can be asked."""
        if isinstance(self._adapter, FindingAdapter):
            receipt = self._adapter.find(replace(self._order, reference=call.reference))
            if receipt is not None:
                self._books.accept(call.id, receipt, self._cost)
                return self._awaited(call.id, receipt)
            if (left := settles_in(call.age, timeout=self._account.timeout)) is not None:
                raise Deferred("The provider may still be at a call whose answer got lost.", retry_after=left)
            self._end_unless_answered(call, CallState.REFUSED)
            return self.bought(call.reference)
        if call.state is CallState.SENDING:
            self._end_unless_answered(call, CallState.UNKNOWN)
        return self.bought(call.reference)

    def _end_unless_answered(self, call: upstreams.Call, state: CallState) -> None:
        if not self._books.end(call.id, state):
            raise Deferred("An answer came while it was taken for lost.", retry_after=_AT_ONCE)

    def bought(self, reference: str | None = None) -> list[Picture]:
        """Make the call, once it is its turn, and give what comes of it.

        Args:
            reference: the one an earlier call for these images had: who honours Idempotency-Key takes the two
                for one. None: this is the first.

        Raises:
            UpstreamAmbiguous: it may have been paid for before, and the account never pays twice.
            ProviderError: it was paid for as often as the job has attempts.
        """
        order = self._order = replace(self._order, reference=reference or self._order.reference)
        self._check_purse()
        while True:
            self._await_turn()
            self._visit.check()
            pictures = self._paid(order)
            if pictures is not None:
                return pictures
            self._sleep(_TURN_AGAIN)  # the account's pause, and its breaker, say how much longer

    def _paid(self, order: Order) -> list[Picture] | None:
        with self._attempt.paying():
            call_id, left = self._books.begin(order)
            receipt = self._submitted(call_id, order)
            if receipt is None:
                return None
            failpoint("upstream.after_submit")
            if receipt.upstream_id is None:
                failpoint("upstream.after_id")
                self._visit.stays |= not self._account.idempotent
                return self._awaited(call_id, receipt)
            self._books.accept(call_id, receipt, self._cost)
            self._visit.bought_with(left)
        failpoint("upstream.after_id")
        return self._awaited(call_id, receipt)

    def _check_purse(self) -> None:
        spent = self._books.spent(self._order)
        if spent.is_counted:
            self._cost = None  # sent again it is the same call
        if may_buy(spent, ambiguous=self._account.ambiguous):
            if spent.purchases:
                self._attempt.note("bought_again", True)
            return
        if self._account.ambiguous == "fail":
            raise UpstreamAmbiguous(
                "The provider was paid for it, or may have been, and buying it twice was ruled out."
            )
        raise ProviderError(
            f"The provider brought nothing that could be used in {spent.purchases} paid calls."
        )

    def _submitted(self, call_id: UUID, order: Order) -> Receipt | None:
        """Make the call; None: the vendor is too busy, and the attempt stays until it is not."""
        failpoint("upstream.before_submit")
        try:
            return self._adapter.submit(order)
        except AnswerLost:
            raise  # the row says `sending`: the next attempt decides
        except ProviderError as error:
            self._books.end(call_id, CallState.REFUSED, error=error)
            if not (self._visit.stays and isinstance(error, ProviderBusy)):
                raise
            self._means.health.failed(error)
            return None

    def _await_turn(self) -> None:
        end = time.monotonic() + _WAIT_IN_SLOT
        while True:
            with self._means.database.autocommit() as tx:
                wait = upstreams.admit(
                    tx, self._account.name, calls_per_minute=self._account.calls_per_minute
                )
            if wait is None:
                return
            seconds = wait.total_seconds()
            if time.monotonic() + seconds > end and not self._visit.stays:
                raise Deferred(retry_after=wait)
            self._sleep(min(seconds, _TURN_AGAIN))

    def _awaited(self, call_id: UUID, receipt: Receipt) -> list[Picture]:
        """Ask until the images are there, and fetch them."""
        unnamed = receipt.upstream_id is None
        cost = self._cost if unnamed else None  # what has an id was charged when it was accepted
        try:
            receipt = self._until_found(receipt)
            pictures = self._pictures(receipt)
        except CancelRequested:
            self._cancel(call_id, receipt)
            raise
        except AttemptEnded:
            if unnamed:  # else the next attempt goes on with it
                self._books.end(call_id, CallState.COMPLETED, cost=cost)
            raise
        except DarkroomError as error:
            if unnamed or isinstance(error, CallLost | ProviderRefused):
                self._books.end(call_id, CallState.FAILED, error=error, cost=cost)
            raise
        self._books.end(call_id, CallState.COMPLETED, cost=cost)
        return pictures

    def _until_found(self, receipt: Receipt) -> Receipt:
        end = time.monotonic() + self._account.longest_wait.total_seconds()
        pause = min(max(receipt.wait, _FIRST_ASK if receipt.wait else 0.0), _LONGEST_FIRST_ASK)
        while receipt.found is None:
            if time.monotonic() > end:
                raise ProviderDown(f"The provider did not finish within {self._account.longest_wait}.")
            self._sleep(min(pause, max(0.0, end - time.monotonic())))
            pause = min(max(pause, _FIRST_ASK) * _SLOWER, _LATEST_ASK)
            assert receipt.upstream_id is not None
            asked = self._adapter.ask(receipt.upstream_id, receipt.detail)
            receipt = replace(receipt, found=asked.found)
        return receipt

    def _pictures(self, receipt: Receipt) -> list[Picture]:
        try:
            return self._fetched(receipt)
        except CallLost:
            if receipt.upstream_id is None:
                raise
            # Links run out; asked again the vendor may give fresh ones.
            return self._fetched(self._until_found(replace(receipt, found=None, wait=0)))

    def _fetched(self, receipt: Receipt) -> list[Picture]:
        found = (receipt.found or ())[: self._order.images]
        if len(found) < self._order.images:
            raise ProviderDown(f"The provider sent {len(found)} images instead of {self._order.images}.")
        return [self._picture(nth, one) for nth, one in enumerate(found)]

    def _picture(self, nth: int, found: Found) -> Picture:
        self._attempt.check()
        order = self._order
        data = fetched(found, self._means.guard)
        image = verified(data, order.spec, order.inputs, self._attempt)
        seed = order.spec.seed_of(order.index + nth) if found.seed is None else found.seed
        return Picture(image=image, seed=seed, notes={"engine": self._account.name, "model": order.model})

    def _cancel(self, call_id: UUID, receipt: Receipt) -> None:
        if receipt.upstream_id is not None:
            try:
                self._adapter.cancel(receipt.upstream_id, receipt.detail)
            except ProviderError as error:
                log.warning("upstream_cancel_failed", upstream=self._account.name, error=error.code)
        cost = None if receipt.upstream_id else self._cost
        self._books.end(call_id, CallState.FAILED, error=CancelRequested(), cost=cost)

    def _sleep(self, seconds: float) -> None:
        """Wait, in slices: whoever cancels the job is heard within one."""
        end = time.monotonic() + seconds
        self._attempt.check()
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(_SLICE, left))  # the vendor rings no bell
            self._attempt.check()
            self._visit.check()


def _next_reference(reference: str) -> str:
    """Give another one: a call that failed is not to be answered with its failure again."""
    job, index, *again = reference.split("-")
    return f"{job}-{index}-{int(again[0]) + 1 if again else 1}"
