"""One job from claim to settled: claim → read inputs → generate → encode and store → settle.

Knows no Celery; a test just calls `Runner.run`. An attempt ends in one `Outcome`, and `_settle` has one
branch for each kind. Outputs become visible only with the settle, which the attempt number fences.
"""

import random
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeVar
from uuid import UUID

import structlog
from PIL import Image

from app import imaging
from app.buckets import Buckets
from app.db import Database, bell, jobs
from app.db.jobs import Claim
from app.domain.job import Reason, Status, is_charged, may_retry, retry_delay
from app.domain.spec import JobSpec, StoredImage
from app.errors import (
    AttemptEnded,
    CancelRequested,
    DarkroomError,
    DatabaseDown,
    DeadlineExceeded,
    Unavailable,
)
from app.log import get_logger
from app.settings import Settings
from app.storage import Storage
from workers.copying import Copier
from workers.finishing import Finisher, Stored
from workers.leases import Held, Leases, wait_between
from workers.providers.base import Attempt, Inputs, Provider
from workers.safety import open_checker

_FINISHERS: Final = 2
"""Threads that encode and upload beside the next image. At 60 ms per image they raised the use of a
simulated GPU from 57 to 97 percent; a third brought nothing."""
_WAITING: Final = 4
"""Drawn images a job may have waiting for a finisher before drawing pauses; bounds memory."""
_LONGEST_TRACEBACK: Final = 8000

log = get_logger(__name__)
T = TypeVar("T")


class Kind(StrEnum):
    """How an attempt can end."""

    COMPLETED = "completed"
    RETRY = "retry"
    FAILED = "failed"
    CANCELLED = "cancelled"
    GONE = "gone"
    """The row is somebody else's by now: given back, rescued, or settled by a successor."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt ended, with everything the settle needs."""

    kind: Kind
    stored: tuple[Stored, ...] = ()
    error: DarkroomError | None = None
    detail: dict[str, object] = field(default_factory=dict)


class Runner:
    """Runs jobs in this process; thread-safe, one per process."""

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
    ) -> None:
        self._settings = settings
        self._database = database
        self._storage = storage
        self._providers = providers
        self._leases = leases
        self._doorbell = doorbell
        self._copier = copier or Copier(
            settings, database=database, storage=storage, buckets=Buckets(settings, database)
        )
        self._finisher = Finisher(storage, checker=open_checker(settings))
        self._finishers = ThreadPoolExecutor(_FINISHERS, thread_name_prefix="finisher")

    def run(self, job_id: UUID) -> Kind | None:
        """Work on a job if it is there for the taking; None when it is not, which is nobody's fault.

        Raises:
            DatabaseDown: nothing was claimed, or the answer to the claim got lost; then its lease runs out.
        """
        if self._leases.draining:
            with self._database.autocommit() as tx:
                jobs.hand_back(tx, job_id)
            return None
        with self._database.autocommit() as tx:
            claim = jobs.claim(
                tx,
                job_id,
                worker=self._leases.worker,
                lease=self._settings.lease,
                deadline=self._settings.job_deadline,
            )
        if claim is None:
            log.debug("nothing_to_claim", job_id=str(job_id))
            return None
        with structlog.contextvars.bound_contextvars(job_id=str(job_id), attempt=claim.attempt):
            return self._run_claimed(claim)

    def close(self) -> None:
        """Wait for the uploads under way and end the finishers."""
        self._finishers.shutdown(wait=True)

    def _run_claimed(self, claim: Claim) -> Kind:
        held = self._leases.hold(claim)
        self._doorbell.ring(bell.PROGRESS)
        started = time.monotonic()
        try:
            outcome = self._attempt(claim, held)
            settled = self._settle(claim, outcome)
        finally:
            self._leases.drop(held)
            self._doorbell.ring(bell.JOBS, bell.PROGRESS)
        log.info("attempt_ended", kind=settled.value, seconds=round(time.monotonic() - started, 3))
        return settled

    def _attempt(self, claim: Claim, held: Held) -> Outcome:
        watch = _Stopwatch()
        stored: list[Stored] = []
        try:
            spec = JobSpec.model_validate(claim.spec)
            inputs = watch.time("read", lambda: self._read_inputs(spec))
            self._draw(claim, spec, inputs, held, into=stored, watch=watch)
            held.check()
            if claim.storage_target_id is not None:
                watch.time("copy", lambda: self._copy(claim, stored))
            return Outcome(kind=Kind.COMPLETED, stored=tuple(stored), detail={"seconds": watch.seconds})
        except CancelRequested as error:
            return Outcome(kind=Kind.CANCELLED, stored=tuple(stored), error=error)
        except DeadlineExceeded as error:
            return Outcome(kind=Kind.FAILED, stored=tuple(stored), error=error)
        except AttemptEnded as error:
            return Outcome(kind=Kind.GONE, stored=tuple(stored), error=error)
        except DarkroomError as error:
            failures = claim.failures + _charge(claim, error)
            retry = may_retry(retryable=error.retryable, failures=failures, max_attempts=claim.max_attempts)
            return Outcome(kind=Kind.RETRY if retry else Kind.FAILED, stored=tuple(stored), error=error)
        except Exception:
            unknown = DarkroomError(
                "Something in Darkroom went wrong; the operator finds it under this job's id."
            )
            trace = traceback.format_exc()[-_LONGEST_TRACEBACK:]
            log.exception("attempt_broke")
            return Outcome(kind=Kind.FAILED, stored=tuple(stored), error=unknown, detail={"traceback": trace})

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

    def _read_inputs(self, spec: JobSpec) -> Inputs:
        if spec.image is None:
            return Inputs()
        if spec.transform is not None:
            return Inputs(
                image=self._read(spec.image, field="image", keep_alpha=True),
                watermarks=tuple(
                    self._read(each, field="watermarks", keep_alpha=True) for each in spec.watermarks
                ),
            )
        size = {"width": spec.width, "height": spec.height}
        original = self._read(spec.image, field="image")
        image = imaging.prepare_image(original, **size)
        if spec.mask_image is None:
            return Inputs(image=image)
        by_alpha = spec.mask_from_alpha
        decoded = self._read(spec.mask_image, field="mask", keep_alpha=by_alpha)
        mask = imaging.prepare_mask(decoded, image_size=original.size, **size, from_alpha=by_alpha)
        return Inputs(image=image, mask_image=mask)

    def _read(self, stored: StoredImage, *, field: str, keep_alpha: bool = False) -> Image.Image:
        data = self._storage.get_verified(stored.key, sha256=stored.sha256)
        return imaging.decode(data, field=field, keep_alpha=keep_alpha)

    def _draw(
        self,
        claim: Claim,
        spec: JobSpec,
        inputs: Inputs,
        held: Held,
        *,
        into: list[Stored],
        watch: "_Stopwatch",
    ) -> None:
        """Draw every image, encoding and uploading each beside the next; appends what is stored, in order."""
        provider = self._providers(claim.provider)
        held.at("generating")
        pictures = provider.generate(
            spec,
            inputs,
            Attempt(check=held.check, progress=held.progress, step=held.at_step, stage=held.at),
        )
        waiting: deque[Future[Stored]] = deque()
        try:
            for index, picture in enumerate(watch.each("generate", pictures)):
                waiting.append(self._finishers.submit(self._finisher.finish, claim, spec, index, picture))
                if len(waiting) > _WAITING:
                    into.append(watch.time("finish", waiting.popleft().result))
            held.at("storing")
            while waiting:
                into.append(watch.time("finish", waiting.popleft().result))
        finally:
            # After an error the uploads under way still end, so that their objects are known and deleted.
            into.extend(_ended_well(waiting))

    def _settle(self, claim: Claim, outcome: Outcome) -> Kind:
        settled: bool | None
        match outcome.kind:
            case Kind.COMPLETED:
                settled = self._until_answered(lambda: self._write_completed(claim, outcome))
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

    def _write_completed(self, claim: Claim, outcome: Outcome) -> bool:
        with self._database.autocommit() as tx:
            won = jobs.settle_completed(
                tx,
                claim.job_id,
                attempt=claim.attempt,
                worker=self._leases.worker,
                outputs=[stored.row for stored in outcome.stored],
                retention=self._settings.retention,
                detail=outcome.detail,
            )
            # The answer to an earlier try may have been lost after its commit.
            return won or jobs.attempt_won(tx, claim.job_id, attempt=claim.attempt)

    def _write_retry(self, claim: Claim, outcome: Outcome) -> bool:
        error = outcome.error
        assert error is not None
        charged = _charge(claim, error)
        failures = claim.failures + 1 if charged else claim.attempt
        delay = retry_delay(failures, chance=random.random(), retry_after=error.retry_after)  # noqa: S311 - jitter
        with self._database.autocommit() as tx:
            return jobs.end_attempt(
                tx,
                claim.job_id,
                attempt=claim.attempt,
                worker=self._leases.worker,
                to_status=Status.QUEUED,
                reason=Reason.RETRY,
                charge=charged,
                error_code=error.code,
                error_message=error.public_message,
                delay=delay,
                detail={**_told(error), "delay_seconds": round(delay.total_seconds(), 3)},
            )

    def _write_end(self, claim: Claim, outcome: Outcome, status: Status, reason: Reason) -> bool:
        error = outcome.error
        assert error is not None
        with self._database.autocommit() as tx:
            return jobs.end_attempt(
                tx,
                claim.job_id,
                attempt=claim.attempt,
                worker=self._leases.worker,
                to_status=status,
                reason=reason,
                charge=status is Status.FAILED,
                error_code=error.code,
                error_message=error.public_message,
                detail={**_told(error), **outcome.detail},
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
                time.sleep(wait_between(failures).total_seconds())

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


def _told(error: DarkroomError) -> dict[str, object]:
    """What an event keeps of an error, for the admin who reads it."""
    return {"error_code": error.code, "error_message": error.message}


def _charge(claim: Claim, error: DarkroomError) -> bool:
    return is_charged(ours_is_away=isinstance(error, Unavailable), attempt=claim.attempt)


def _ended_well(waiting: deque[Future[Stored]]) -> Iterator[Stored]:
    for future in waiting:
        if future.exception() is None:
            yield future.result()


class _Stopwatch:
    """Seconds spent per stage of an attempt; kept with the completed event."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def time(self, stage: str, work: Callable[[], T]) -> T:
        with self._running(stage):
            return work()

    def each(self, stage: str, items: Iterator[T]) -> Iterator[T]:
        while True:
            with self._running(stage):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    @contextmanager
    def _running(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            spent = self.seconds.get(stage, 0.0) + time.monotonic() - started
            self.seconds[stage] = round(spent, 4)
