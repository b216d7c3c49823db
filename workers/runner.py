"""Jobs from claim to settled: claim → read inputs → generate → encode and store → settle.

Knows no Celery; a test just calls `Runner.run`. An attempt ends in one `Outcome`, which the settler writes
down. Outputs become visible only with the settle, which the attempt number fences. A provider that draws
several jobs in one call (`BatchProvider`) gets those that fit together, claimed when its device is free.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

import structlog

from app.buckets import Buckets
from app.db import Database, bell, jobs, queues, siblings
from app.db.jobs import Claim
from app.errors import DarkroomError, ProviderError
from app.log import get_logger
from app.settings import Settings
from app.storage import Storage
from workers.copying import Copier
from workers.finishing import Finisher, Stored
from workers.leases import Leases
from workers.outcomes import Kind, Outcome, outcome_of
from workers.placing import Placing
from workers.providers.base import BatchProvider, Picture, Provider
from workers.safety import open_checker
from workers.settling import Settler
from workers.work import Work

__all__ = ["Kind", "Runner"]

_FINISHERS: Final = 2
"""Threads that encode and upload beside the next image. At 60 ms per image they raised the use of a
simulated GPU from 57 to 97 percent; a third brought nothing."""
_READERS: Final = 4
"""Threads that read the inputs of a batch. Not the finishers': while those wait for a slow store, the GPU
would wait too."""
_WAITING: Final = 4
"""Drawn images a job may have waiting for a finisher before drawing pauses; bounds memory."""
_PATIENCE: Final = timedelta(seconds=10)
"""How long a job whose model is not in memory lets those go first whose model is. Bringing one in takes 1 to
50 s (research: performance.md B3), the time of 10 to 500 images."""

log = get_logger(__name__)


class Runner:
    """Runs jobs in this process; thread-safe, one per process.

    Args:
        providers: gives the provider of a name.
        placing: what jobs cost, and where they go when a provider fails them; None: nowhere.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        storage: Storage,
        providers: Callable[[str], Provider],
        leases: Leases,
        doorbell: bell.Doorbell,
        copier: Copier | None = None,
        placing: Placing | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._storage = storage
        self._providers = providers
        self._leases = leases
        self._doorbell = doorbell
        self._placing = placing
        self._copier = copier or Copier(
            settings, database=database, storage=storage, buckets=Buckets(settings, database)
        )
        self._settler = Settler(settings, database=database, storage=storage, worker=leases.worker)
        self._finisher = Finisher(storage, checker=open_checker(settings))
        self._finishers = ThreadPoolExecutor(_FINISHERS, thread_name_prefix="finisher")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="reader")

    def run(self, job_id: UUID) -> Kind | None:
        """Work on a job if it is there for the taking; None when it is not, which is nobody's fault.

        Raises:
            DatabaseDown: nothing was claimed, or the answer to the claim got lost; then its lease runs out.
        """
        if self._leases.draining or not self._leases.slots:
            with self._database.autocommit() as tx:
                queues.take_back(tx, [job_id])
            return None
        claim = self._claim(job_id)
        if claim is None:
            log.debug("nothing_to_claim", job_id=str(job_id))
            return None
        bound = structlog.contextvars.bound_contextvars(job_id=str(claim.job_id), attempt=claim.attempt)
        with bound, self._working(claim) as work:
            return self._run(work)

    def close(self) -> None:
        """Wait for the uploads under way and end the threads."""
        self._finishers.shutdown(wait=True)
        self._readers.shutdown(wait=True)

    def _claim(self, job_id: UUID) -> Claim | None:
        with self._database.autocommit() as tx:
            if warm := self._leases.warm_models():
                better = siblings.prefer_warm(tx, job_id, warm=warm, patience=_PATIENCE)
                if better is not None:
                    queues.take_back(tx, [job_id])
                    self._doorbell.ring(bell.JOBS)
                    job_id = better
            return jobs.claim(
                tx,
                job_id,
                worker=self._leases.worker,
                lease=self._settings.lease,
                deadline=self._settings.job_deadline,
                queues=self._leases.queues,
            )

    @contextmanager
    def _working(self, claim: Claim) -> Iterator[Work]:
        """Keep a claimed job's lease until the context ends."""
        held = self._leases.hold(claim)
        self._doorbell.ring(bell.PROGRESS)
        try:
            yield Work(claim=claim, held=held)
        finally:
            self._leases.drop(held)
            self._doorbell.ring(bell.JOBS, bell.PROGRESS)

    def _run(self, work: Work) -> Kind:
        found: list[Provider] = []

        def prepare() -> None:
            work.read(self._storage)
            found.append(self._providers(work.claim.provider))

        error = _error_of(prepare)
        if error is not None:
            return self._fail(work, error)
        (provider,) = found
        if isinstance(provider, BatchProvider) and work.spec.transform is None:
            return self._run_together(work, provider)
        error = _error_of(lambda: self._draw(work, provider))
        return self._complete(work) if error is None else self._fail(work, error)

    def _draw(self, work: Work, provider: Provider) -> None:
        """Draw every image, encoding and uploading each beside the next; appends what is stored, in order."""
        work.held.at("generating")
        pictures = provider.generate(work.spec, work.inputs, work.attempt)
        waiting: deque[Future[Stored]] = deque()
        try:
            for index, picture in enumerate(work.watch.each("generate", pictures)):
                waiting.append(self._finish(work, index, picture))
                if len(waiting) > _WAITING:
                    work.stored.append(work.watch.time("finish", waiting.popleft().result))
            self._store(work, waiting)
        finally:
            # After an error the uploads under way still end, so that their objects are known and deleted.
            work.stored.extend(_ended_well(waiting))

    def _run_together(self, first: Work, provider: BatchProvider) -> Kind:
        """Draw a job and those that fit in the same call; each is settled on its own."""
        works: list[Work] = [first]
        unreadable: list[tuple[Work, Exception]] = []
        drawn: list[list[Picture] | DarkroomError] = []
        with ExitStack() as stack:

            def draw() -> None:
                started = time.monotonic()
                with provider.turn(first.attempt):
                    first.watch.add("wait", time.monotonic() - started)
                    for work, fault in self._siblings(first, provider, stack):
                        if fault is None:
                            works.append(work)
                        else:
                            unreadable.append((work, fault))
                    drawn.extend(self._draw_all(works, provider))

            error = _error_of(draw)
            for work, fault in unreadable:
                self._fail(work, fault)
            if error is not None:
                kinds = [self._fail(work, error, shared=len(works) > 1) for work in works]
                return kinds[0]
            # All uploads are on their way before the first is waited for.
            waiting = [
                pictures
                if isinstance(pictures, DarkroomError)
                else deque(self._finish(work, index, picture) for index, picture in enumerate(pictures))
                for work, pictures in zip(works, drawn, strict=True)
            ]
            kinds = [self._end(work, what) for work, what in zip(works, waiting, strict=True)]
            return kinds[0]

    def _draw_all(
        self, works: Sequence[Work], provider: BatchProvider
    ) -> list[list[Picture] | DarkroomError]:
        for work in works:
            work.held.at("generating")
        started = time.monotonic()
        try:
            return provider.draw_together([work.share for work in works])
        finally:
            for work in works:
                work.watch.add("generate", time.monotonic() - started)

    def _siblings(
        self, first: Work, provider: BatchProvider, stack: ExitStack
    ) -> list[tuple[Work, Exception | None]]:
        """Claim what fits in the same call; gives each with what was wrong when its inputs were read."""
        if self._leases.draining or first.claim.batch_key is None:
            return []
        room = provider.room(first.spec, first.attempt.model) - first.spec.num_images
        with self._database.autocommit() as tx:
            claims = siblings.claim_siblings(
                tx,
                first.claim,
                images=room,
                worker=self._leases.worker,
                lease=self._settings.lease,
                deadline=self._settings.job_deadline,
            )
        works = [stack.enter_context(self._working(claim)) for claim in claims]
        errors = self._readers.map(lambda work: _error_of(lambda: work.read(self._storage)), works)
        return list(zip(works, errors, strict=True))

    def _finish(self, work: Work, index: int, picture: Picture) -> Future[Stored]:
        return self._finishers.submit(self._finisher.finish, work.claim, work.spec, index, picture)

    def _end(self, work: Work, waiting: deque[Future[Stored]] | DarkroomError) -> Kind:
        if isinstance(waiting, DarkroomError):
            return self._fail(work, waiting)
        try:
            error = _error_of(lambda: self._store(work, waiting))
        finally:
            work.stored.extend(_ended_well(waiting))
        return self._complete(work) if error is None else self._fail(work, error)

    def _store(self, work: Work, waiting: deque[Future[Stored]]) -> None:
        """Wait for the uploads, and copy the outputs into their customer's own bucket if there is one."""
        work.held.at("storing")
        while waiting:
            work.stored.append(work.watch.time("finish", waiting.popleft().result))
        work.held.check()
        if work.claim.storage_target_id is not None:
            work.watch.time("copy", lambda: self._copy(work.claim, work.stored))

    def _copy(self, claim: Claim, stored: list[Stored]) -> None:
        """Try once to copy the outputs into their customer's bucket, and note in their rows how it went."""
        assert claim.storage_target_id is not None
        added = self._copier.copy_now(
            claim.storage_target_id,
            [one.row for one in stored],
            prefix=claim.output_prefix,
            as_text=bool((claim.echo or {}).get("base64")),
        )
        for one, columns in zip(stored, added, strict=True):
            one.row.update(columns)

    def _complete(self, work: Work) -> Kind:
        outcome = Outcome(kind=Kind.COMPLETED, stored=tuple(work.stored), detail=work.detail)
        cost = self._placing.cost_of(work.claim, images=len(work.stored)) if self._placing else None
        return self._settle(work, outcome, cost=cost)

    def _fail(self, work: Work, error: Exception, *, shared: bool = False) -> Kind:
        outcome = outcome_of(work.claim, error, shared=shared)
        if self._placing is not None and isinstance(error, ProviderError):
            outcome = self._placing.moved(work.claim, work.spec, outcome)
        detail = {**work.notes, **outcome.detail}
        return self._settle(work, replace(outcome, stored=tuple(work.stored), detail=detail))

    def _settle(self, work: Work, outcome: Outcome, *, cost: Decimal | None = None) -> Kind:
        settled = self._settler.settle(work.claim, outcome, warnings=work.warnings, cost=cost)
        log.info(
            "attempt_ended", job_id=str(work.claim.job_id), attempt=work.claim.attempt, kind=settled.value
        )
        return settled


def _error_of(do: Callable[[], None]) -> Exception | None:
    """Do something, and give what went wrong: the one place where any exception of an attempt ends."""
    try:
        do()
    except DarkroomError as error:
        return error
    except Exception as error:
        log.exception("attempt_broke")
        return error
    return None


def _ended_well(waiting: deque[Future[Stored]]) -> Iterator[Stored]:
    for future in waiting:
        if future.exception() is None:
            yield future.result()
