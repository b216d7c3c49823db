"""The whole house for a fault test: real servers, a job that waits when told to, and what was promised."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.engine import Row

from app.broker import Broker
from app.db import Database, bell, connect
from app.dispatch import Relay
from app.domain import catalog
from app.domain.spec import Operation
from app.errors import Unavailable
from app.intake import Intake
from app.local.stack import Stack
from app.settings import Settings
from app.storage import Storage, output_key
from app.wish import Wish
from tests import invariants
from tests.conftest import Account
from tests.faults.brokers import BrokerServer
from tests.servers.processes import Process, Processes
from tests.waiting import unless_away
from workers import providers
from workers.leases import Leases
from workers.runner import Runner

QUEUE = "cpu"
WORKER_APP = "tests.faults.fault_worker"
T = TypeVar("T")


@dataclass
class House:
    """What a fault test works with; `accepted` are the jobs it was promised."""

    stack: Stack
    broker: BrokerServer
    settings: Settings
    database: Database
    storage: Storage
    account: Account
    processes: Processes
    intake: Intake
    gate: Path
    accepted: list[UUID] = field(default_factory=list)

    def submit(
        self, model: str = "sketch", *, images: int = 1, size: int = 64, prompt: str | None = None
    ) -> UUID:
        """Have a job accepted through the product's own intake; a `gated` one waits for `open_gate`."""
        wish = Wish(
            operation=Operation.TEXT_TO_IMAGE,
            model=model,
            prompt=prompt or str(self.gate),
            num_images=images,
            width=size,
            height=size,
            fields={},
        )
        job_id = self.intake.submit(wish, account_id=self.account.id, dialect="realm").job_id
        self.accepted.append(job_id)
        return job_id

    def submit_when_possible(self, model: str) -> UUID:
        """Submit, again and again while Postgres is away."""
        return self.until(lambda: self.submit(model))

    def open_gate(self) -> None:
        """Let the gated jobs go on."""
        self.gate.touch()

    def close_gate(self) -> None:
        """Let gated jobs wait again."""
        self.gate.unlink()

    def worker(self, **options: Any) -> Process:
        """Start a worker that knows the catalogue's three providers; returns at once."""
        return self.processes.worker(app=WORKER_APP, queue=QUEUE, **options)

    def until(self, condition: Callable[[], T], *, within: float = 20) -> T:
        """Wait for a condition, restarting the servers that die meanwhile; gives its value."""
        found: list[T] = []

        def holds() -> bool:
            if value := unless_away(condition):
                found.append(value)
            return bool(found)

        came = self.stack.supervisor.watch(until=holds, within=timedelta(seconds=within))
        assert came, f"not within {within:g} s\n{self.situation()}"
        return found[0]

    def job(self, job_id: UUID) -> Row[Any]:
        """Give a job's row."""
        with self.database.autocommit() as tx:
            return tx.exec_driver_sql("SELECT * FROM jobs WHERE id = %(id)s", {"id": job_id}).one()

    def outputs(self, job_id: UUID) -> list[Row[Any]]:
        """Give a job's outputs in order."""
        with self.database.autocommit() as tx:
            return list(
                tx.exec_driver_sql(
                    "SELECT * FROM outputs WHERE job_id = %(id)s ORDER BY index", {"id": job_id}
                )
            )

    def reasons(self, job_id: UUID) -> list[str]:
        """Give the reasons of a job's events in order."""
        with self.database.autocommit() as tx:
            rows = tx.exec_driver_sql(
                "SELECT reason FROM job_events WHERE job_id = %(id)s ORDER BY id", {"id": job_id}
            )
            return [row.reason for row in rows]

    def objects(self, job_id: UUID, *, attempt: int) -> list[str]:
        """Give the keys under which an attempt has objects in the store."""
        job = self.job(job_id)
        one = output_key(
            job.account_id,
            job.created_at.date(),
            job_id=job_id,
            attempt=attempt,
            index=0,
            sha256="0" * 16,
            extension="x",
        )
        return [found.key for found in self.storage.list(one.rpartition("/")[0] + "/")]

    def half_done(self, *, within: float = 30) -> tuple[UUID, Process]:
        """Submit a job of two images and return it when its first lies in the store; with who works on it."""
        job_id = self.submit("gated", images=2)
        self.until(lambda: self.objects(job_id, attempt=1), within=within)
        return job_id, self.processes.owner(self.job(job_id).lease_owner)

    def all_ended(self) -> bool:
        """Whether no job is queued or processing any more."""
        with self.database.autocommit() as tx:
            return not tx.exec_driver_sql(
                "SELECT 1 FROM jobs WHERE status IN ('queued', 'processing') LIMIT 1"
            ).first()

    def ends_well(self, *, within: float = 30) -> None:
        """Wait until every job has ended, then hold all invariants against database and store."""
        self.until(lambda: self.all_ended() and _answers(self.database, self.storage), within=within)
        invariants.assert_all_hold(self.database, self.storage, accepted=self.accepted)

    def all_completed(self) -> bool:
        """Whether every accepted job is completed."""
        return all(self.job(job_id).status == "completed" for job_id in self.accepted)

    def tally(self) -> Counter[str]:
        """Give how many jobs ended how: by status, and the failed ones by error code."""
        with self.database.autocommit() as tx:
            rows = tx.exec_driver_sql(
                "SELECT coalesce(error_code, status) AS outcome, count(*) AS jobs FROM jobs GROUP BY 1"
            )
            return Counter({row.outcome: row.jobs for row in rows})

    def situation(self) -> str:
        """Give what a failing test should show: unfinished jobs, and the last words of every process."""
        try:
            with self.database.autocommit() as tx:
                rows = tx.exec_driver_sql(
                    "SELECT id, status, attempt, failures, crashes, error_code, run_at - now() AS due_in, "
                    "now() - dispatched_at AS dispatched_ago, lease_until - now() AS lease FROM jobs "
                    "WHERE status NOT IN ('completed', 'failed', 'cancelled') LIMIT 20"
                )
                jobs = "\n".join(str(row._mapping) for row in rows)
        except Exception as error:  # noqa: BLE001 - whatever is broken must not hide the logs
            jobs = repr(error)
        return f"{jobs}\n{self.processes.last_words()}"


@contextmanager
def opened(
    stack: Stack,
    settings: Settings,
    database: Database,
    storage: Storage,
    account: Account,
    *,
    broker: BrokerServer,
    processes: Processes,
    folder: Path,
) -> Iterator[House]:
    """Give a house on these settings, and see to it that its servers live afterwards."""
    doorbell = bell.Doorbell(database)
    doorbell.start()
    intake = Intake(
        settings,
        database=database,
        storage=storage,
        catalog=catalog.load(settings.models_file),
        doorbell=doorbell,
    )
    try:
        yield House(
            stack=stack,
            broker=broker,
            settings=settings,
            database=database,
            storage=storage,
            account=account,
            processes=processes,
            intake=intake,
            gate=folder / "gate",
        )
    finally:
        # A test that failed in the middle of an outage must not take the next one with it.
        stack.supervisor.watch(until=lambda: _answers(database, storage), within=timedelta(seconds=20))
        doorbell.stop()


def _answers(database: Database, storage: Storage) -> bool:
    try:
        with database.autocommit() as tx:
            tx.exec_driver_sql("SELECT 1")
        storage.check()
    except Unavailable:
        return False
    return True


def work_off(house: House) -> None:
    """Run every queued job in this process: for tests that are not about workers."""
    doorbell = bell.Doorbell(house.database)
    leases = Leases(
        house.settings,
        house.database,
        queues=[QUEUE],
        slots=1,
        is_draining=lambda: False,
        doorbell=doorbell,
    )
    runner = Runner(
        house.settings,
        database=house.database,
        storage=house.storage,
        providers=providers.load,
        leases=leases,
        doorbell=doorbell,
    )
    leases.start()
    try:
        for job_id in house.accepted:
            runner.run(job_id)
    finally:
        runner.close()
        leases.stop()


@contextmanager
def relaying(house: House) -> Iterator[Relay]:
    """Run a relay in a thread of this process: for tests in which nothing happens to it."""
    database = connect(house.settings, pool_size=2, application_name="relay of a test")
    broker = Broker(house.settings)
    relay = Relay(house.settings, database, broker, catalog.load(house.settings.models_file))
    stop = threading.Event()
    thread = threading.Thread(target=relay.run, args=(stop,), name="relay")
    thread.start()
    try:
        yield relay
    finally:
        stop.set()
        thread.join(timeout=10)
        broker.close()
        database.close()
    assert not thread.is_alive()
