"""Copies of outputs into their customers' own buckets; knows no Celery, a test just calls it.

A failing bucket never loses an image and never fails a job: the runner tries once, right before it settles,
and what did not succeed is kept by us and tried again by `retry_due`, for three days.
"""

import base64
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from app.buckets import Buckets, public_link
from app.db import Database
from app.db import buckets as rows
from app.db.buckets import DueCopy, TargetRow
from app.domain.copies import COPY_LEASE, COPY_PATIENCE, copy_wait, object_name
from app.domain.job import CopyState
from app.domain.spec import ImageFormat
from app.errors import BucketDown, BucketError, DarkroomError
from app.log import get_logger
from app.settings import Settings
from app.storage import Storage

NOW_WITHIN: Final = timedelta(seconds=10)
"""Longest that the bucket may hold up a job that is otherwise done, all its images together."""
_RETRY_WITHIN: Final = timedelta(seconds=30)
"""Longest that one later try may take at the bucket; a slow line takes its time."""
_PASS: Final = timedelta(seconds=20)
"""How long `retry_due` goes on to begin tries; what is left is for the next pass of the timetable."""
_AT_ONCE: Final = 4
"""Tries at a time, so that one silent bucket does not hold up the other customers."""
_REST: Final = timedelta(seconds=30)
"""How long jobs do not try a bucket that did not answer; each would wait for it in vain."""

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Retried:
    """What `retry_due` did: copies that arrived, that wait again, and that were given up."""

    copied: int = 0
    waiting: int = 0
    given_up: int = 0


class Copier:
    """Copies outputs for the jobs and the timetable of one process; thread-safe.

    Args:
        is_draining: once True, no further due copy is tried.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        storage: Storage,
        buckets: Buckets,
        is_draining: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings = settings
        self._database = database
        self._storage = storage
        self._buckets = buckets
        self._is_draining = is_draining
        self._silent = _Silent()

    def copy_now(
        self, target_id: UUID, outputs: Iterable[Mapping[str, object]], *, prefix: UUID, as_text: bool
    ) -> list[dict[str, object]]:
        """Try once to copy a job's outputs; give for each, in order, the columns that the settle adds.

        Either `copy_state` copied and `copy_url`, or `copy_state` pending with `copy_wait_seconds` and
        `copy_error`, and then the settle has to keep the output (`persisted_at`). `copy_attempts` is 0 where
        nothing was tried, because the bucket just failed or the time was over. Raises nothing of ours, and
        takes at most `NOW_WITHIN` at the bucket.

        Args:
            outputs: rows of table outputs to be, whose objects lie in our store.
            prefix: the job's `output_prefix`.
            as_text: whether the bucket gets base64 text in place of the image.
        """
        until = time.monotonic() + NOW_WITHIN.total_seconds()
        failed: DarkroomError | None = None
        added = []
        for row in outputs:
            left = timedelta(seconds=until - time.monotonic())
            if failed is None and (self._silent.is_silent(target_id) or left <= timedelta(0)):
                failed = BucketDown("The bucket did not answer in time a moment ago, so it was not tried.")
            if failed is not None:
                added.append(_pending(failed, attempts=0))
                continue
            try:
                _, url = self._copy(
                    target_id, _Object.of_row(row, prefix=prefix, as_text=as_text), within=left
                )
            except DarkroomError as error:
                failed = error
                log.warning("copy_failed", target_id=str(target_id), error=error.code)
                added.append(_pending(error, attempts=1))
            else:
                added.append({"copy_state": CopyState.COPIED.value, "copy_url": url, "copy_attempts": 1})
        return added

    def retry_due(self) -> Retried:
        """Try the copies that are due, for some 20 s, and give what became of them.

        Any number of processes may do so at once: each copy is tried by one of them at a time. One that dies
        in the middle of a try is repeated by another within three minutes.

        Raises:
            DatabaseDown: what was tried and not written down is tried again.
        """
        until = time.monotonic() + _PASS.total_seconds()
        works: dict[UUID, TargetRow] = {}
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="copier") as pool:
            working = [pool.submit(self._work_off, until, works) for _ in range(_AT_ONCE)]
        done = [state for each in working for state in each.result()]
        for target in works.values():
            with self._database.autocommit() as tx:
                rows.hurry(tx, target, wait=COPY_LEASE)
        retried = Retried(
            copied=done.count(CopyState.COPIED),
            waiting=done.count(CopyState.PENDING),
            given_up=done.count(CopyState.GIVEN_UP),
        )
        if done:
            log.info("copies_retried", **vars(retried))
        return retried

    def _work_off(self, until: float, works: dict[UUID, TargetRow]) -> list[CopyState | None]:
        """Try one due copy after the other; notes the buckets that work."""
        states = []
        while time.monotonic() < until and not self._is_draining():
            with self._database.autocommit() as tx:
                copy = rows.claim_copy(tx, lease=COPY_LEASE)
            if copy is None:
                break
            states.append(self._retry(copy, works))
        return states

    def _retry(self, copy: DueCopy, works: dict[UUID, TargetRow]) -> CopyState | None:
        try:
            target, url = self._copy(copy.target_id, _Object.of_copy(copy), within=_RETRY_WITHIN)
        except DarkroomError as error:
            return self._write_failure(copy, error)
        with self._database.autocommit() as tx:
            settled = rows.settle_copied(tx, copy, url=url, retention=self._settings.retention)
        works[target.id] = target
        return CopyState.COPIED if settled else None

    def _write_failure(self, copy: DueCopy, error: DarkroomError) -> CopyState | None:
        wait = _wait(copy.attempts)
        told = error.public_message
        with self._database.autocommit() as tx:
            state = rows.settle_failed(
                tx,
                copy,
                error=told,
                last_error=f"{told} Darkroom tried for {COPY_PATIENCE.days} days and keeps the image itself.",
                wait=wait,
                patience=COPY_PATIENCE,
            )
            if isinstance(error, BucketError):
                rows.postpone(tx, copy.target_id, wait=wait)
        log.warning(
            "copy_failed",
            output_id=str(copy.output_id),
            target_id=str(copy.target_id),
            error=error.code,
            attempts=copy.attempts,
            state=state,
        )
        return None if state is None else CopyState(state)

    def _copy(self, target_id: UUID, what: "_Object", *, within: timedelta) -> tuple[TargetRow, str]:
        """Copy one object, and give the bucket it went to and its public link."""
        data = self._storage.get_verified(what.key, sha256=what.sha256)
        try:
            bucket, target = self._buckets.open(target_id)
            bucket.put(
                what.name,
                base64.b64encode(data) if what.as_text else data,
                media_type="text/plain" if what.as_text else what.image_format.media_type,
                within=within,
            )
        except BucketError as error:
            self._buckets.close(target_id)
            if isinstance(error, BucketDown):
                self._silent.note(target_id)
            raise
        self._silent.forget(target_id)
        return target, public_link(target, what.name)


@dataclass(frozen=True, kw_only=True)
class _Object:
    """What is copied, and under which name."""

    key: str
    sha256: str
    image_format: ImageFormat
    name: str
    as_text: bool

    @classmethod
    def of_row(cls, row: Mapping[str, object], *, prefix: UUID, as_text: bool) -> "_Object":
        image_format, index = ImageFormat(str(row["format"])), int(str(row["index"]))
        return cls(
            key=str(row["key"]),
            sha256=str(row["sha256"]),
            image_format=image_format,
            name=object_name(prefix, index, image_format=image_format, as_text=as_text),
            as_text=as_text,
        )

    @classmethod
    def of_copy(cls, copy: DueCopy) -> "_Object":
        return cls.of_row(vars(copy), prefix=copy.output_prefix, as_text=copy.as_text)


class _Silent:
    """Buckets that did not answer a moment ago."""

    def __init__(self) -> None:
        self._until: dict[UUID, float] = {}
        self._lock = threading.Lock()

    def is_silent(self, target_id: UUID) -> bool:
        with self._lock:
            return self._until.get(target_id, 0.0) > time.monotonic()

    def note(self, target_id: UUID) -> None:
        now = time.monotonic()
        with self._lock:
            self._until = {known: until for known, until in self._until.items() if until > now}
            self._until[target_id] = now + _REST.total_seconds()

    def forget(self, target_id: UUID) -> None:
        with self._lock:
            self._until.pop(target_id, None)


def _pending(error: DarkroomError, *, attempts: int) -> dict[str, object]:
    return {
        "copy_state": CopyState.PENDING.value,
        "copy_attempts": attempts,
        "copy_wait_seconds": _wait(attempts).total_seconds(),
        "copy_error": error.public_message,
    }


def _wait(attempts: int) -> timedelta:
    return copy_wait(attempts, chance=random.random())  # noqa: S311 - jitter
