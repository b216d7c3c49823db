"""A worker inside the test's own process: takes queued jobs off the table and runs them, without a broker."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.db import Database, bell, workers
from app.errors import DatabaseDown
from app.settings import Settings
from app.storage import Storage
from tests import rows
from workers import providers
from workers.leases import Leases
from workers.providers.base import Provider
from workers.runner import Runner

_DUE = "SELECT id FROM jobs WHERE status = 'queued' AND run_at <= now() ORDER BY priority DESC, id LIMIT 20"
_PAUSE = 0.02


def announce(database: Database, *, queue: str = "cpu") -> None:
    """Have a worker of a queue be alive for the next half minute, as far as the tables know."""
    with database.autocommit() as tx:
        workers.beat(
            tx,
            "announced",
            queues=[queue],
            slots=1,
            busy=0,
            warm_models=[],
            version="test",
            draining=False,
        )


@contextmanager
def drawing(
    settings: Settings,
    database: Database,
    storage: Storage,
    *,
    provider: Callable[[str], Provider] = providers.load,
) -> Iterator[Runner]:
    """Run whatever is submitted until the context ends, one job after the other.

    Args:
        provider: gives the provider of a name; a test may put one of its own in place.
    """
    stop = threading.Event()
    doorbell = bell.Doorbell(database)
    leases = Leases(settings, database, queues=["cpu"], slots=1, is_draining=stop.is_set, doorbell=doorbell)
    runner = Runner(
        settings, database=database, storage=storage, providers=provider, leases=leases, doorbell=doorbell
    )

    def work() -> None:
        while not stop.is_set():
            try:
                due = rows.query(database, _DUE)
                for row in due:
                    if not stop.is_set():
                        runner.run(row.id)
            except DatabaseDown:
                due = []
            if not due:
                stop.wait(_PAUSE)

    thread = threading.Thread(target=work, name="drawing", daemon=True)
    doorbell.start()
    leases.start()
    thread.start()
    try:
        yield runner
    finally:
        stop.set()
        thread.join(timeout=30)
        runner.close()
        leases.stop()
        doorbell.stop()
