"""The core of all upstream providers: resume or buy, wait, fetch, verify; paid calls are rows first."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final
from uuid import UUID

from app.db import Database, upstreams
from app.domain.calls import CallState
from app.domain.capabilities import CAPABILITIES, Capability
from app.domain.catalog import Catalog, Target
from app.domain.spec import JobSpec, Operation
from app.domain.upstreams import Upstream
from app.errors import (
    AttemptEnded,
    CancelRequested,
    DarkroomError,
    Deferred,
    ProviderBusy,
    ProviderDenied,
    ProviderDown,
    ProviderError,
    ProviderRefused,
    UpstreamAmbiguous,
)
from app.failpoints import failpoint
from app.log import get_logger
from app.safe_http import Guard
from workers.providers.base import Attempt, Inputs, Picture
from workers.providers.upstream.adapters import adapter_of
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
_FIRST_ASK, _LATEST_ASK, _SLOWER = 0.5, 5.0, 1.5
_LONGEST_FIRST_ASK: Final = 30.0

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Means:
    """What an order is carried out with."""

    account: Upstream
    adapter: Adapter
    database: Database
    guard: Guard


class UpstreamProvider:
    """Draws through an account at an upstream provider; threads share it.

    Args:
        upstream: the account, as the catalogue has it.
        key: its key; None: every job is denied.
        guard: fetches images from where the vendor says they are.
    """

    def __init__(
        self, *, upstream: Upstream, catalog: Catalog, key: str | None, database: Database, guard: Guard
    ) -> None:
        self.name = upstream.name
        self._account = upstream
        self._catalog = catalog
        self._key = key
        self._database = database
        self._means = _Means(
            account=upstream,
            adapter=adapter_of(upstream, guard=guard, key=key or ""),
            database=database,
            guard=guard,
        )
        with database.autocommit() as tx:
            upstreams.ensure(tx, self.name)

    def generate(self, spec: JobSpec, inputs: Inputs, attempt: Attempt) -> Iterator[Picture]:
        """See `Provider`. An image that was paid for in an earlier attempt is asked for, not bought again.

        Raises:
            Deferred: the rate limit lets it go only later.
            UpstreamAmbiguous: a call of an earlier attempt may have been charged, and none is made twice.
            ProviderDown, ProviderRefused, AttemptEnded: see `Provider`.
        """
        target = self._target(spec, attempt)
        capability = target.capability or CAPABILITIES[self._account.api]
        if problem := capability.problem_with(spec):
            raise ProviderRefused(f"The provider cannot do it: {problem}.")
        if spec.operation is Operation.IMAGE_TO_IMAGE and spec.strength == 0:
            yield from _unchanged(spec, inputs)
            return
        self._warn(spec, capability, attempt)
        if self._key is None:
            denied = ProviderDenied(f"No key is set for upstream {self.name}: DARKROOM_UPSTREAM_KEYS.")
            self._note_failure(denied)
            raise denied
        with self._database.autocommit() as tx:
            known = upstreams.newest_calls(tx, attempt.job_id, provider=self.name)
        for order in _orders(spec, inputs, attempt, capability, known):
            call = known.get(order.index)
            job = _Bought(self._means, order, attempt, target.cost_per_image)
            try:
                pictures = job.resumed(call) if call is not None else job.bought()
            except ProviderError as error:
                self._note_failure(error)
                raise
            self._note_success()
            failpoint("upstream.before_yield")
            attempt.progress((order.index + order.images) / spec.num_images)
            yield from pictures

    def _target(self, spec: JobSpec, attempt: Attempt) -> Target:
        for target in self._catalog.find(spec.model).targets:
            if (target.provider, target.model) == (self.name, attempt.model):
                return target
        raise ProviderRefused(f"The catalogue has no target {self.name}/{attempt.model} for {spec.model}.")

    def _warn(self, spec: JobSpec, capability: Capability, attempt: Attempt) -> None:
        for sentence in capability.ignored(spec, self._catalog.find(spec.model).defaults.model_dump()):
            attempt.warn(sentence)

    def _note_failure(self, error: ProviderError) -> None:
        if not isinstance(error, ProviderDown):
            return
        with self._database.autocommit() as tx:
            failed = upstreams.failed(
                tx,
                self.name,
                reason=error.message,
                pause=error.retry_after if isinstance(error, ProviderBusy) else None,
                at_once=isinstance(error, ProviderDenied),
            )
        if failed.opened:
            log.warning("breaker_opened", upstream=self.name, reason=error.message)
        if failed.unwell:
            # It is the provider that is not well, whatever job meets it.
            error.charged = False

    def _note_success(self) -> None:
        with self._database.autocommit() as tx:
            upstreams.succeeded(tx, self.name)


class _Bought:
    """One order, from deciding whether it must be paid for to its pictures."""

    def __init__(self, means: _Means, order: Order, attempt: Attempt, cost: Decimal | None) -> None:
        self._account = means.account
        self._adapter = means.adapter
        self._database = means.database
        self._guard = means.guard
        self._order = order
        self._attempt = attempt
        self._cost = None if cost is None else cost * order.images

    def resumed(self, call: upstreams.Call) -> list[Picture]:
        """Go on with a call of an earlier attempt, or find out that there is nothing to go on with."""
        if call.upstream_id is not None and call.state in {CallState.ACCEPTED, CallState.COMPLETED}:
            self._attempt.note("resumed", call.upstream_id)
            try:
                return self._awaited(
                    call.id, Receipt(upstream_id=call.upstream_id, detail=call.detail, wait=0)
                )
            except CallLost as error:
                self._end(call.id, CallState.FAILED, error=error)
                return self.bought(_next_reference(call.reference))
        if call.state is CallState.COMPLETED and self._account.idempotent:
            self._cost = None  # sent again it is the same call, whose cost was counted when it completed
        if call.state is not CallState.SENDING:
            failed = call.state is CallState.FAILED
            return self.bought(_next_reference(call.reference) if failed else call.reference)
        if isinstance(self._adapter, FindingAdapter):
            receipt = self._adapter.find(self._order)
            if receipt is not None:
                self._accept(call.id, receipt)
                return self._awaited(call.id, receipt)
            self._end(call.id, CallState.REFUSED)
            return self.bought(call.reference)
        self._end(call.id, CallState.UNKNOWN)
        if not self._account.idempotent:
            if self._account.ambiguous == "fail":
                raise UpstreamAmbiguous
            self._attempt.note("bought_again", True)
        return self.bought(call.reference)

    def bought(self, reference: str | None = None) -> list[Picture]:
        """Make the call, once it is its turn, and give what comes of it.

        Args:
            reference: the one an earlier call for these images had: who honours Idempotency-Key takes the two
                for one. None: this is the first.
        """
        self._await_turn()
        order = self._order = replace(self._order, reference=reference or self._order.reference)
        with self._database.autocommit() as tx:
            call_id = upstreams.begin_call(
                tx,
                self._attempt.job_id,
                attempt=self._attempt.number,
                provider=self._account.name,
                first_index=order.index,
                images=order.images,
                reference=order.reference,
            )
        failpoint("upstream.before_submit")
        try:
            receipt = self._adapter.submit(order)
        except AnswerLost:
            raise  # the row says `sending`: the next attempt decides
        except ProviderError as error:
            self._end(call_id, CallState.REFUSED, error=error)
            raise
        failpoint("upstream.after_submit")
        if receipt.upstream_id is not None:
            self._accept(call_id, receipt)
        failpoint("upstream.after_id")
        return self._awaited(call_id, receipt)

    def _await_turn(self) -> None:
        end = time.monotonic() + _WAIT_IN_SLOT
        while True:
            with self._database.autocommit() as tx:
                wait = upstreams.admit(
                    tx, self._account.name, calls_per_minute=self._account.calls_per_minute
                )
            if wait is None:
                return
            if time.monotonic() + wait.total_seconds() > end:
                raise Deferred(retry_after=wait)
            self._sleep(wait.total_seconds())

    def _awaited(self, call_id: UUID, receipt: Receipt) -> list[Picture]:
        """Ask until the images are there, and fetch them."""
        try:
            receipt = self._until_found(receipt)
            pictures = self._pictures(receipt)
        except CancelRequested:
            self._cancel(call_id, receipt)
            raise
        except AttemptEnded:
            raise  # the next attempt goes on with it
        except (CallLost, ProviderRefused) as error:
            self._end(call_id, CallState.FAILED, error=error)
            raise
        except DarkroomError as error:
            if receipt.upstream_id is None:
                self._end(call_id, CallState.FAILED, error=error, cost=self._cost)
            raise
        self._end(call_id, CallState.COMPLETED, cost=None if receipt.upstream_id else self._cost)
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
        found = (receipt.found or ())[: self._order.images]
        if len(found) < self._order.images:
            raise ProviderDown(f"The provider sent {len(found)} images instead of {self._order.images}.")
        try:
            return [self._picture(nth, one) for nth, one in enumerate(found)]
        except CallLost:
            if receipt.upstream_id is None:
                raise
            # Links run out; asked again the vendor may give fresh ones.
            again = self._until_found(replace(receipt, found=None, wait=0))
            return [self._picture(nth, one) for nth, one in enumerate(again.found or ())]

    def _picture(self, nth: int, found: Found) -> Picture:
        self._attempt.check()
        order = self._order
        data = fetched(found, self._guard)
        image = verified(data, order.spec, order.inputs, self._attempt)
        seed = order.spec.seed_of(order.index + nth) if found.seed is None else found.seed
        return Picture(image=image, seed=seed, notes={"engine": self._account.name, "model": order.model})

    def _accept(self, call_id: UUID, receipt: Receipt) -> None:
        assert receipt.upstream_id is not None
        with self._database.autocommit() as tx:
            upstreams.accept_call(
                tx, call_id, upstream_id=receipt.upstream_id, detail=receipt.detail, cost=self._cost
            )

    def _end(
        self,
        call_id: UUID,
        state: CallState,
        *,
        error: DarkroomError | None = None,
        cost: Decimal | None = None,
    ) -> None:
        with self._database.autocommit() as tx:
            upstreams.end_call(tx, call_id, state, error=None if error is None else error.message, cost=cost)

    def _cancel(self, call_id: UUID, receipt: Receipt) -> None:
        if receipt.upstream_id is not None:
            try:
                self._adapter.cancel(receipt.upstream_id, receipt.detail)
            except ProviderError as error:
                log.warning("upstream_cancel_failed", upstream=self._account.name, error=error.code)
        cost = None if receipt.upstream_id else self._cost
        self._end(call_id, CallState.FAILED, error=CancelRequested(), cost=cost)

    def _sleep(self, seconds: float) -> None:
        """Wait, in slices: whoever cancels the job is heard within one."""
        end = time.monotonic() + seconds
        self._attempt.check()
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(_SLICE, left))
            self._attempt.check()


def _orders(
    spec: JobSpec,
    inputs: Inputs,
    attempt: Attempt,
    capability: Capability,
    known: Mapping[int, upstreams.Call],
) -> Iterator[Order]:
    """Cut a job into calls, as earlier attempts did where they made some."""
    index = 0
    while index < spec.num_images:
        most = known[index].images if index in known else capability.images_per_call
        images = min(most, spec.num_images - index)
        yield Order(
            spec=spec,
            inputs=inputs,
            index=index,
            images=images,
            reference=f"{attempt.job_id.hex[8:]}-{index}",
            model=attempt.model,
            honours=capability.honours,
        )
        index += images


def _next_reference(reference: str) -> str:
    """Give another one: a call that failed is not to be answered with its failure again."""
    job, index, *again = reference.split("-")
    return f"{job}-{index}-{int(again[0]) + 1 if again else 1}"


def _unchanged(spec: JobSpec, inputs: Inputs) -> Iterator[Picture]:
    assert inputs.image is not None
    for index in range(spec.num_images):
        yield Picture(image=inputs.image.copy(), seed=spec.seed_of(index))
