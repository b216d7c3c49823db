"""What a job costs where it is drawn, and where it goes when a provider fails it."""

from dataclasses import replace
from decimal import Decimal

from app.db.jobs import Claim
from app.domain.catalog import Catalog
from app.domain.job import Reason
from app.domain.spec import JobSpec
from app.errors import UnknownModel
from app.pool import Pool
from workers.outcomes import Kind, Outcome


class Placing:
    """Knows the targets of all models; thread-safe."""

    def __init__(self, catalog: Catalog, pool: Pool) -> None:
        self._catalog = catalog
        self._pool = pool

    def cost_of(self, claim: Claim, *, images: int) -> Decimal | None:
        """Give what images drawn by a provider of our own cost; None: unknown.

        A call to an upstream is written down with its cost when it is made, so nothing is added for one.
        """
        if self._catalog.upstream(claim.provider) is not None:
            return None
        try:
            targets = self._catalog.find(claim.model).targets
        except UnknownModel:
            return None
        each = {(one.provider, one.model): one.cost_per_image for one in targets}
        cost = each.get((claim.provider, claim.target_model or ""))
        return None if cost is None else cost * images

    def moved(self, claim: Claim, spec: JobSpec, outcome: Outcome) -> Outcome:
        """Give the outcome that moves the job to another target, if one can cure it; else the same one.

        A move is not charged: a target that failed the job is not asked again; one that was merely busy may
        be, after a minute.
        """
        assert outcome.error is not None
        move = self._pool.after_failure(claim, spec, outcome.error)
        if move is None:
            return outcome
        return replace(
            outcome,
            kind=Kind.RETRY,
            reason=Reason.REROUTED,
            charged=False,
            move=move.place,
            detail={**outcome.detail, **move.detail},
        )
