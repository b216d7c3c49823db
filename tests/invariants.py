"""What must hold of database and store whatever happened before, once nothing runs any more.

A job that was accepted has one row, ends once, and shows the outputs of exactly one attempt, each with its
object. What was not accepted may be there all the same: an answer can get lost after the commit.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, pairwise
from typing import Any, Final
from uuid import UUID

from sqlalchemy.engine import Connection, Row

from app.db import Database
from app.domain.job import TRANSITIONS, Reason, Status
from app.errors import DarkroomError
from app.storage import Storage

TERMINAL: Final = frozenset(status for status, following in TRANSITIONS.items() if not following)


def assert_all_hold(database: Database, storage: Storage, *, accepted: Iterable[UUID]) -> None:
    """Fail with one line for everything that is broken.

    Args:
        accepted: ids of the jobs that the test was promised.
    """
    problems = broken(database, storage, accepted=accepted)
    assert not problems, f"{len(problems)} invariants are broken:\n" + "\n".join(problems[:40])


def broken(database: Database, storage: Storage, *, accepted: Iterable[UUID]) -> list[str]:
    """Give a sentence for everything that is broken; empty when all is well."""
    with database.transaction() as tx:
        problems = [*_lost(tx, set(accepted)), *_asked(tx), *_timelines(tx)]
        outputs = _rows(tx, "SELECT key, size, sha256 FROM outputs WHERE state = 'live'")
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda row: _damage(storage, row), outputs)
        return problems + [problem for problem in found if problem]


def _rows(tx: Connection, statement: str) -> list[Row[Any]]:
    return list(tx.exec_driver_sql(statement))


def _lost(tx: Connection, accepted: set[UUID]) -> Iterator[str]:
    there = {row.id for row in _rows(tx, "SELECT id FROM jobs")}
    return (f"{job_id} was accepted and has no row" for job_id in accepted - there)


_QUESTIONS: Final = {
    "has not ended": "SELECT id FROM jobs WHERE status IN ('queued', 'processing')",
    "is completed without exactly the images asked for": """
        SELECT id FROM jobs WHERE status = 'completed'
        AND ARRAY(SELECT index FROM outputs o WHERE o.job_id = jobs.id ORDER BY index)
            <> ARRAY(SELECT generate_series(0, (spec->>'num_images')::int - 1))""",
    "shows an output of another attempt than the one that won": """
        SELECT j.id FROM jobs j JOIN outputs o ON o.job_id = j.id
        WHERE o.attempt <> j.attempt OR o.account_id <> j.account_id""",
    "shows outputs without being completed": """
        SELECT j.id FROM jobs j JOIN outputs o ON o.job_id = j.id WHERE j.status <> 'completed'""",
    "has failed and does not say why": "SELECT id FROM jobs WHERE status = 'failed' AND error_code IS NULL",
    "met a bug of ours (internal_error)": """
        SELECT id FROM jobs WHERE error_code = 'internal_error'
        UNION SELECT job_id FROM job_events WHERE detail->>'error_code' = 'internal_error'""",
    "was charged more attempts than it has": "SELECT id FROM jobs WHERE failures > max_attempts",
    "is the job of a purged output that somebody keeps": """
        SELECT job_id FROM outputs WHERE persisted_at IS NOT NULL AND state <> 'live'""",
    "has events and no row": """
        SELECT job_id FROM job_events e WHERE NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id = e.job_id)""",
    "has no events": """
        SELECT id FROM jobs j WHERE NOT EXISTS (SELECT 1 FROM job_events e WHERE e.job_id = j.id)""",
}
"""What nobody may be found to be: each statement gives the ids of jobs that are."""


def _asked(tx: Connection) -> Iterator[str]:
    for says, statement in _QUESTIONS.items():
        yield from (f"{row[0]} {says}" for row in _rows(tx, statement))


def _timelines(tx: Connection) -> Iterator[str]:
    events = _rows(
        tx,
        "SELECT e.job_id, e.from_status, e.to_status, e.attempt, e.reason, j.status, j.attempt AS claims "
        "FROM job_events e JOIN jobs j ON j.id = e.job_id ORDER BY e.job_id, e.id",
    )
    for job_id, group in groupby(events, key=lambda event: event.job_id):
        timeline = list(group)
        path = " ".join(f"{event.reason}({event.attempt})" for event in timeline)
        for is_well, says in _TIMELINE_RULES:
            if not is_well(timeline):
                yield f"{job_id} {says}: {path}"


def _begins_with_its_submission(timeline: list[Row[Any]]) -> bool:
    first = timeline[0]
    return (first.from_status, first.to_status, first.attempt) == (None, Status.QUEUED, 0)


def _is_a_legal_path(timeline: list[Row[Any]]) -> bool:
    return all(
        then.from_status == before.to_status
        and (Status(then.to_status) in TRANSITIONS[Status(before.to_status)] or _goes_to_another_target(then))
        for before, then in pairwise(timeline)
    )


def _goes_to_another_target(event: Row[Any]) -> bool:
    """The one event that changes no status: a queued job is moved, and no attempt is begun or ended by it."""
    return (event.from_status, event.to_status, event.reason) == (
        Status.QUEUED,
        Status.QUEUED,
        Reason.REROUTED,
    )


def _counts_its_claims(timeline: list[Row[Any]]) -> bool:
    claims = [event.attempt for event in timeline if event.reason == Reason.CLAIMED]
    return claims == list(range(1, len(claims) + 1)) and timeline[0].claims == len(claims)


def _settles_each_attempt_once(timeline: list[Row[Any]]) -> bool:
    settled = [event.attempt for event in timeline if event.from_status == Status.PROCESSING]
    return len(settled) == len(set(settled))


def _ends_once(timeline: list[Row[Any]]) -> bool:
    ends = [event.to_status for event in timeline if event.to_status in TERMINAL]
    return ends == [timeline[-1].to_status] and timeline[-1].to_status == timeline[0].status


_TIMELINE_RULES: Final[tuple[tuple[Callable[[list[Row[Any]]], bool], str], ...]] = (
    (_begins_with_its_submission, "does not begin with its submission"),
    (_is_a_legal_path, "took a step that no job may take"),
    (_counts_its_claims, "was claimed under other numbers than 1, 2, 3"),
    (_settles_each_attempt_once, "settled one attempt twice"),
    (_ends_once, "did not end once, in the status of its row"),
)


def _damage(storage: Storage, output: Row[Any]) -> str | None:
    try:
        data = storage.get(output.key)
    except DarkroomError as error:
        return f"{output.key} is served and its object is not to be had: {error.message}"
    if (len(data), hashlib.sha256(data).hexdigest()) != (output.size, output.sha256):
        return f"{output.key} has other bytes than its row says"
    return None
