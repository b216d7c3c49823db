"""The core of all upstream providers: which images are ordered, in which calls, and on whose account."""

from collections.abc import Iterator, Mapping

from app.db import Database, upstreams
from app.domain.capabilities import CAPABILITIES, Capability
from app.domain.catalog import Catalog, Target
from app.domain.spec import JobSpec, Operation
from app.domain.upstreams import Upstream
from app.errors import ProviderDenied, ProviderError, ProviderRefused
from app.failpoints import failpoint
from app.safe_http import Guard
from workers.providers.base import Attempt, Inputs, Picture
from workers.providers.upstream.adapters import adapter_of
from workers.providers.upstream.health import Health
from workers.providers.upstream.promise import Order
from workers.providers.upstream.purchases import Means, Purchase, Visit


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
        self._health = Health(database, upstream.name)
        self._means = Means(
            account=upstream,
            adapter=adapter_of(upstream, guard=guard, key=key or ""),
            database=database,
            guard=guard,
            health=self._health,
        )
        with database.autocommit() as tx:
            upstreams.ensure(tx, self.name)

    def generate(self, spec: JobSpec, inputs: Inputs, attempt: Attempt) -> Iterator[Picture]:
        """See `Provider`. An image that was paid for in an earlier attempt is asked for, not bought again.

        Raises:
            Deferred: the rate limit lets it go only later, what became of a lost call is known only later, or
                the deadline is near and another attempt goes on with what is paid.
            UpstreamAmbiguous: a call of an earlier attempt may have been charged, and none is made twice.
            ProviderError: it was paid for as often as the job has attempts, and brought nothing.
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
            self._health.failed(denied)
            raise denied
        with self._database.autocommit() as tx:
            known = upstreams.newest_calls(tx, attempt.job_id, provider=self.name)
        visit = Visit()
        for order in _orders(spec, inputs, attempt, capability, known):
            call = known.get(order.index)
            purchase = Purchase(self._means, order, attempt, target.cost_per_image, visit=visit)
            try:
                pictures = purchase.resumed(call) if call is not None else purchase.bought()
            except ProviderError as error:
                self._health.failed(error)
                raise
            self._health.succeeded()
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


def _unchanged(spec: JobSpec, inputs: Inputs) -> Iterator[Picture]:
    assert inputs.image is not None
    for index in range(spec.num_images):
        yield Picture(image=inputs.image.copy(), seed=spec.seed_of(index))
