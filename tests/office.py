"""The post office of webhook tests: jobs that end, deliveries released and posted in this process."""

import queue
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from app import safe_http, webhooks
from app.broker import DELIVER, WEBHOOKS, Broker
from app.db import Database, bell, connect, jobs, outbox, workers
from app.domain.webhook import ENDS, DeliveryStatus, Event, Form
from app.outbox import Outbox
from app.safe_http.gate import ask_system
from app.settings import Settings
from app.vault import Vault
from app.webhooks import Registered
from tests import rows
from tests.conftest import Account
from workers.deliverer import Deliverer

LOCAL: dict[str, Any] = {"webhook_allow": ("127.0.0.1",), "webhook_timeout": timedelta(seconds=5)}
"""Settings under which a receiver on loopback may be posted to."""
SLOTS = 8


@dataclass
class Office:
    """What a webhook test works with."""

    settings: Settings
    database: Database
    account: Account
    vault: Vault
    deliverer: Deliverer

    def register(
        self,
        url: str,
        *,
        form: Form = Form.JOBS,
        events: Sequence[Event] = ENDS,
        account: Account | None = None,
    ) -> Registered:
        """Have an account told of all its jobs at a URL."""
        return webhooks.register(
            self.database,
            self.vault,
            account_id=(account or self.account).id,
            url=url,
            form=form,
            events=events,
        )

    def complete(self, number: int = 1, *, account: Account | None = None, **columns: Any) -> list[uuid.UUID]:
        """Have jobs end well, each with one image; gives their ids."""
        return [self._complete((account or self.account).id, columns) for _ in range(number)]

    def _complete(self, account_id: uuid.UUID, columns: dict[str, Any]) -> uuid.UUID:
        job_id = rows.insert_job(self.database, account_id, **columns)
        output = {
            "id": str(uuid.uuid4()),
            "index": 0,
            "key": f"outputs/{job_id}",
            "sha256": "0" * 64,
            "size": 3,
            "width": 1,
            "height": 1,
            "format": "png",
            "seed": 1,
        }
        minute = timedelta(minutes=1)
        with self.database.autocommit() as tx:
            claim = jobs.claim(tx, job_id, worker="w1", lease=minute, deadline=minute)
            assert claim is not None
            done = jobs.settle_completed(
                tx, job_id, attempt=1, worker="w1", outputs=[output], retention=timedelta(days=1), detail={}
            )
        assert done
        return job_id

    def release(self, *, batch: int = 100) -> list[uuid.UUID]:
        """Release what is due, as a relay does; gives the ids of the deliveries."""
        with self.database.transaction() as tx:
            return outbox.release(tx, queue=WEBHOOKS, batch=batch)

    def deliver_due(self) -> list[DeliveryStatus | None]:
        """Post what is due, one after the other, and give how each stands then."""
        return [self.deliverer.deliver(each) for each in self.release()]

    def later(self, by: timedelta) -> None:
        """Let so much time pass, by moving all that is due or believed back."""
        rows.execute(
            self.database,
            "UPDATE deliveries SET run_at = run_at - %(by)s, lease_until = lease_until - %(by)s, "
            "dispatched_at = dispatched_at - %(by)s",
            by=by,
        )
        rows.execute(
            self.database,
            "UPDATE webhook_endpoints SET opened_until = opened_until - %(by)s, "
            "previous_until = previous_until - %(by)s",
            by=by,
        )

    def deliveries(self) -> list[rows.Look]:
        """All deliveries, oldest first."""
        return rows.query(self.database, "SELECT * FROM deliveries ORDER BY created_at, id")

    def delivery(self) -> rows.Look:
        """The only delivery."""
        (found,) = self.deliveries()
        return found

    def attempts(self) -> list[rows.Look]:
        """All tries, in the order of writing."""
        return rows.query(self.database, "SELECT * FROM delivery_attempts ORDER BY id")

    def endpoint(self, registered: Registered) -> rows.Look:
        """An endpoint's row as it stands."""
        (found,) = rows.query(
            self.database,
            "SELECT *, opened_until - now() AS opened_for FROM webhook_endpoints WHERE id = %(id)s",
            id=registered.endpoint.id,
        )
        return found

    def all_ended(self) -> bool:
        """Whether nothing is pending any more."""
        return not rows.query(self.database, "SELECT 1 AS one FROM deliveries WHERE status = 'pending'")

    def delivered(self, url: str) -> int:
        """How many deliveries to a URL have arrived."""
        (found,) = rows.query(
            self.database,
            "SELECT count(*) AS number FROM deliveries d JOIN webhook_endpoints e ON e.id = d.endpoint_id "
            "WHERE e.url = %(url)s AND d.status = 'delivered'",
            url=url,
        )
        return int(found.number)


def opened(
    settings: Settings,
    database: Database,
    account: Account,
    *,
    slots: int = SLOTS,
    resolver: safe_http.Resolver = ask_system,
) -> Office:
    """Give an office, with a live worker of so many slots announced."""
    local = settings.model_copy(update=LOCAL)
    announce(database, slots=slots)
    vault = Vault(local)
    deliverer = Deliverer(
        local,
        database=database,
        guard=safe_http.for_webhooks(local, resolver=resolver),
        vault=vault,
        doorbell=bell.Doorbell(database),
    )
    return Office(local, database, account, vault, deliverer)


def announce(database: Database, *, slots: int = SLOTS) -> None:
    """Have a worker of the queue `webhooks` be alive for the next half minute."""
    with database.autocommit() as tx:
        workers.beat(
            tx,
            "postman",
            queues=[WEBHOOKS],
            slots=slots,
            busy=0,
            warm_models=[],
            version="test",
            draining=False,
        )


class LocalBroker(Broker):
    """A broker within this process."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.waiting: queue.Queue[uuid.UUID] = queue.Queue()

    def publish(self, queue: str, ids: Sequence[uuid.UUID], *, task: str = "") -> None:
        """Keep the wake-ups."""
        assert (queue, task) == (WEBHOOKS, DELIVER)
        for each in ids:
            self.waiting.put(each)

    def depth(self, queue: str) -> int:
        """Give how many wait."""
        assert queue == WEBHOOKS
        return self.waiting.qsize()


@dataclass
class Crew:
    """Relays and workers in threads, from `start` to `stop`."""

    office: Office
    slots: int = SLOTS
    relays: int = 1
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Begin to release and to post."""
        settings = self.office.settings
        self._database = connect(settings, pool_size=self.slots + self.relays, application_name="crew")
        self._doorbell = bell.Doorbell(self._database)
        self._doorbell.start()
        self._broker = LocalBroker(settings)
        self._deliverer = Deliverer(
            settings,
            database=self._database,
            guard=safe_http.for_webhooks(settings),
            vault=self.office.vault,
            doorbell=self._doorbell,
        )
        targets = [self._relay] * self.relays + [self._work] * self.slots
        self._threads = [threading.Thread(target=target, daemon=True) for target in targets]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let what is under way end, and begin nothing more."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=20)
            assert not thread.is_alive()
        self._doorbell.stop()
        self._database.close()

    def _relay(self) -> None:
        box = Outbox(self.office.settings, self._database, self._broker)
        while not self._stop.is_set():
            if not box.release_due():
                self._stop.wait(0.01)

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                delivery_id = self._broker.waiting.get(timeout=0.05)
            except queue.Empty:
                continue
            self._deliverer.deliver(delivery_id)


@contextmanager
def crew(office: Office, *, slots: int = SLOTS, relays: int = 1) -> Iterator[None]:
    """Have threads release and post for as long as the context lasts."""
    made = Crew(office, slots=slots, relays=relays)
    made.start()
    try:
        yield
    finally:
        made.stop()
