"""The tasks, as thin as paper: the work is in `runner`, `deliverer`, `copying` and `app.retention`."""

from uuid import UUID

from app import retention
from app.broker import DELIVER, RUN_JOB
from workers.celery import app, process


@app.task(name=RUN_JOB, acks_late=True, ignore_result=True)
def run_job(job_id: str) -> None:
    """Work on this job if it is there for the taking."""
    process().runner.run(UUID(job_id))


@app.task(name=DELIVER, acks_late=True, ignore_result=True)
def deliver(delivery_id: str) -> None:
    """Post this webhook if it is there for the taking."""
    process().deliverer.deliver(UUID(delivery_id))


@app.task(name="purge", acks_late=True, ignore_result=True)
def purge() -> None:
    """Delete what expired."""
    held = process()
    retention.purge(held.settings, database=held.database, storage=held.storage)


@app.task(name="sweep", acks_late=True, ignore_result=True)
def sweep() -> None:
    """Delete what nobody needs: silent workers, old Idempotency-Keys, credentials of former buckets."""
    held = process()
    retention.sweep(held.database)


@app.task(name="copy_outputs", acks_late=True, ignore_result=True)
def copy_outputs() -> None:
    """Try again what did not reach a customer's own bucket."""
    process().copier.retry_due()
