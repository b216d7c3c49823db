"""Statements about worker processes: their heartbeat rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy.engine import Connection

_BEAT: Final = """
INSERT INTO workers (id, queues, slots, busy, warm_models, version, draining_since)
VALUES (%(id)s, %(queues)s, %(slots)s, %(busy)s, %(warm_models)s, %(version)s,
        CASE WHEN %(draining)s THEN now() END)
ON CONFLICT (id) DO UPDATE SET seen_at = now(), slots = excluded.slots, busy = excluded.busy,
    warm_models = excluded.warm_models,
    draining_since = coalesce(workers.draining_since, excluded.draining_since)
"""


def beat(
    tx: Connection,
    worker: str,
    *,
    queues: Sequence[str],
    slots: int,
    busy: int,
    warm_models: Sequence[str],
    version: str,
    draining: bool,
) -> None:
    """Say that a worker process lives, and what it can take."""
    parameters = {
        "id": worker,
        "queues": list(queues),
        "slots": slots,
        "busy": busy,
        "warm_models": list(warm_models),
        "version": version,
        "draining": draining,
    }
    tx.exec_driver_sql(_BEAT, parameters)


def leave(tx: Connection, worker: str) -> None:
    """Delete the row of a worker that ends in an orderly way."""
    tx.exec_driver_sql("DELETE FROM workers WHERE id = %(id)s", {"id": worker})


def forget_silent(tx: Connection, *, older_than: timedelta) -> int:
    """Delete the rows of workers silent for that long; gives how many."""
    return tx.exec_driver_sql(
        "DELETE FROM workers WHERE seen_at < now() - %(age)s", {"age": older_than}
    ).rowcount


@dataclass(frozen=True, kw_only=True)
class WorkerRow:
    """A worker process as an operator sees it."""

    id: str
    queues: list[str]
    slots: int
    busy: int
    warm_models: list[str]
    version: str
    silent_seconds: float
    draining: bool


def list_workers(tx: Connection) -> list[WorkerRow]:
    """Give all known worker processes, the most recently seen first."""
    rows = tx.exec_driver_sql(
        "SELECT id, queues, slots, busy, warm_models, version, "
        "extract(epoch FROM now() - seen_at)::float AS silent_seconds, "
        "draining_since IS NOT NULL AS draining FROM workers ORDER BY seen_at DESC"
    )
    return [WorkerRow(**row._mapping) for row in rows]
