"""The baseline of the worker: a Celery app with one task that does nothing, on the same broker."""

from celery import Celery

from app.settings import load
from bench.messages import BARE_QUEUE, BARE_TASK

app = Celery("bench", broker=load().broker_url.get_secret_value(), set_as_current=False)
app.conf.update(
    task_default_queue=BARE_QUEUE,
    task_ignore_result=True,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name=BARE_TASK, ignore_result=True)
def do_nothing(job_id: str) -> None:
    """Do nothing; the argument is as long as a job's id."""
