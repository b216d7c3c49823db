"""Rows put straight into the tables, in any state a test needs."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from uuid_utils.compat import uuid7

from app.db import Database
from app.db.jobs import to_json
from app.domain.spec import JobSpec, Operation


def make_spec(**changes: Any) -> JobSpec:
    """A small text-to-image spec for the sketch model."""
    fields: dict[str, Any] = {
        "operation": Operation.TEXT_TO_IMAGE,
        "model": "sketch",
        "prompt": "a red hill under stars",
        "width": 32,
        "height": 24,
        "num_inference_steps": 2,
        "guidance_scale": 7.5,
        "seed": 1,
    }
    return JobSpec(**{**fields, **changes})


def insert_job(database: Database, account_id: UUID, *, spec: JobSpec | None = None, **columns: Any) -> UUID:
    """A queued job that is due, unless `columns` say otherwise; times are given as SQL text."""
    spec = spec or make_spec()
    values: dict[str, Any] = {
        "id": uuid7(),
        "account_id": account_id,
        "dialect": "realm",
        "operation": spec.operation.value,
        "model": spec.model,
        "provider": "sketch",
        "queue": "cpu",
        "status": "queued",
        "spec": to_json(spec.model_dump(mode="json")),
        "output_prefix": uuid4(),
        "max_attempts": 5,
        **columns,
    }
    times = {name: value for name, value in values.items() if name.endswith(("_at", "_until"))}
    plain = {name: value for name, value in values.items() if name not in times}
    names = ", ".join([*plain, *times])
    slots = ", ".join([*(f"%({name})s" for name in plain), *times.values()])
    with database.transaction() as tx:
        tx.exec_driver_sql(f"INSERT INTO jobs ({names}) VALUES ({slots})", plain)
    job_id = values["id"]
    assert isinstance(job_id, UUID)
    return job_id


def insert_output(
    database: Database, job_id: UUID, *, key: str, index: int = 0, expires_in: timedelta, **columns: Any
) -> UUID:
    """A live output of a job, expiring that long from now (negative: ago)."""
    values: dict[str, Any] = {
        "id": uuid7(),
        "attempt": 1,
        "index": index,
        "key": key,
        "sha256": "0" * 64,
        "size": 3,
        "width": 1,
        "height": 1,
        "format": "png",
        "seed": 1,
        **columns,
    }
    names = ", ".join(values)
    slots = ", ".join(f"%({name})s" for name in values)
    with database.transaction() as tx:
        tx.exec_driver_sql(
            f"INSERT INTO outputs (job_id, account_id, expires_at, {names}) "
            f"SELECT id, account_id, now() + %(expires_in)s, {slots} FROM jobs WHERE id = %(job_id)s",
            {**values, "job_id": job_id, "expires_in": expires_in},
        )
    output_id = values["id"]
    assert isinstance(output_id, UUID)
    return output_id


@dataclass(frozen=True)
class Look:
    """A row as a test looks at it: `look.status`, `look.attempt` …"""

    columns: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        return self.columns[name]


def job(database: Database, job_id: UUID) -> Look:
    """The job's row as it stands."""
    return query(database, "SELECT * FROM jobs WHERE id = %(id)s", id=job_id)[0]


def reasons(database: Database, job_id: UUID) -> list[str]:
    """Why each transition of the job happened, in order."""
    rows = query(database, "SELECT reason FROM job_events WHERE job_id = %(id)s ORDER BY id", id=job_id)
    return [row.reason for row in rows]


def query(database: Database, sql: str, **parameters: Any) -> list[Look]:
    """All rows of a statement."""
    with database.autocommit() as tx:
        return [Look(dict(row._mapping)) for row in tx.exec_driver_sql(sql, parameters)]


def execute(database: Database, sql: str, **parameters: Any) -> None:
    """Run a statement in a transaction of its own."""
    with database.transaction() as tx:
        tx.exec_driver_sql(sql, parameters)
