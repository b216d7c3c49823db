"""One pool of all targets of a model: where a job goes when its target fails it, is gone, or is too full."""

import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from app.db import Database, moves
from app.db.jobs import Claim
from app.db.moves import Move
from app.domain.catalog import Catalog, Model, Target
from app.domain.routing import Option, Scene, pick
from app.domain.spec import JobSpec
from app.errors import (
    ContentRefused,
    DarkroomError,
    DatabaseDown,
    Deferred,
    ProviderError,
    UnknownModel,
    UpstreamAmbiguous,
)
from app.log import get_logger
from app.lookout import Lookout
from app.rerouting import Rerouted, Rerouting, move_to
from app.settings import Settings

__all__ = ["Move", "Pool", "Rerouted"]

log = get_logger(__name__)

EVERY: Final = timedelta(seconds=2)
"""How often a relay looks for jobs to move: as old as the numbers are by which the door chooses."""


class Pool:
    """The targets of all models; thread-safe but for `reroute_now_and_then`, which a relay's loop calls.

    Args:
        clock: seconds that only go on.
        chance: gives random numbers in [0, 1), for weighted routing.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        catalog: Catalog,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._lookout = Lookout(settings, catalog)
        self._clock = clock
        self._chance = chance
        self._beat = settings.lease.total_seconds()
        self._rerouting = Rerouting(settings, database, catalog, clock=clock, chance=chance)
        self._next_pass = clock() + self._beat

    def after_failure(self, claim: Claim, spec: JobSpec, error: DarkroomError) -> Move | None:
        """Give where a job goes whose provider failed it; None: nowhere else, so it is repeated or fails.

        Another target is asked once, with the same spec and seed; never one that failed this job before, and
        one that was merely too busy not within a minute. Not
        for content that was refused, nor where money may have been spent that a repetition would save: a call
        that the provider took is resumed there. A job that only has to wait for its turn at a provider moves
        where it need not wait at all.
        """
        if not isinstance(error, ProviderError) or isinstance(error, ContentRefused | UpstreamAmbiguous):
            return None
        try:
            model = self._catalog.find(claim.model)
        except UnknownModel:
            return None
        if len(model.targets) == 1:
            return None
        try:
            chosen = self._elsewhere(claim, spec, model, error)
        except DatabaseDown:
            log.warning("failover_not_looked_for", job_id=str(claim.job_id))
            return None
        if chosen is None:
            return None
        return move_to(
            self._catalog,
            spec,
            chosen,
            left=f"{claim.provider}/{claim.target_model or claim.model}",
            left_queue=claim.queue,
            why=error.public_message,
            error_code=error.code,
        )

    def _elsewhere(self, claim: Claim, spec: JobSpec, model: Model, error: ProviderError) -> Target | None:
        waits = isinstance(error, Deferred)
        with self._database.autocommit() as tx:
            if error.retryable and moves.is_bought(tx, claim.job_id, provider=claim.provider):
                return None
            depths = moves.depths(tx, sorted({target.queue for target in model.targets}))
            scene = self._lookout.look(tx, depths=depths)
            left = moves.left_queues(tx, claim.job_id)
        options = [
            option
            for option in self._lookout.options(model, scene, spec)
            if not _is_where(option, claim)
            and option.target.label not in claim.tried
            and option.target.queue not in left
        ]
        if waits:
            options = [option for option in options if _is_free(option, scene)]
        chosen = pick(model, [one for one in options if one.problem is None], chance=self._chance())
        return None if chosen is None else chosen.target

    def reroute_now_and_then(self) -> Rerouted:
        """Move jobs whose target is gone or too full, give up those that nobody can draw; every 2 s at most.

        Nothing is judged before workers had the time of one lease to show themselves, counted from when this
        was made, or from `give_time`.
        """
        now = self._clock()
        if now < self._next_pass:
            return Rerouted()
        self._next_pass = now + EVERY.total_seconds()
        done = self._rerouting.run()
        if done.moved or done.given_up:
            log.warning("jobs_rerouted", moved=done.moved, given_up=done.given_up)
        return done

    def give_time(self) -> None:
        """Judge nobody for the time of one lease: Postgres was away, so no heartbeat can have arrived."""
        self._next_pass = self._clock() + self._beat


def _is_where(option: Option, claim: Claim) -> bool:
    at = (option.target.queue, option.target.provider, option.target.model)
    return at == (claim.queue, claim.provider, claim.target_model or option.target.model)


def _is_free(option: Option, scene: Scene) -> bool:
    """Whether a job starts there at once."""
    state = scene.state(option.target.queue)
    return option.wait <= timedelta(0) and state.condition.calls_left != 0
