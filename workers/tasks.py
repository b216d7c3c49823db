"""The tasks, as thin as paper: the work is in `runner` and in `app.retention`."""

from uuid import UUID

from app import retention
from app.broker import RUN_JOB
from workers.celery import app, process


@app.task(name=RUN_JOB, acks_late=True, ignore_result=True)
def run_job(job_id: str) -> None:
    """Work on this job if it is there for the taking."""
    process().runner.run(UUID(job_id))


@app.task(name="purge", acks_late=True, ignore_result=True)
def purge() -> None:
    """Delete what expired."""
    held = process()
    retention.purge(held.settings, database=held.database, storage=held.storage)


@app.task(name="sweep", acks_late=True, ignore_result=True)
def sweep() -> None:
    """Delete rows nobody needs: silent workers, old Idempotency-Keys."""
    held = process()
    retention.sweep(held.database)
