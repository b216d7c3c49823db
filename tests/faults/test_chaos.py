"""Minutes of random kills under load; only with `--long` (`make faults`)."""

import os
import random
import secrets
import signal
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from tests.faults.brokers import BrokerServer
from tests.faults.clients import submitting
from tests.faults.house import House
from tests.servers.processes import Process

PLAN = Counter(worker=8, child=7, relay=4, broker=4, postgres=2, store=2, freeze=4)
"""How often each is hit; all but `freeze` die at once."""
GAP = timedelta(seconds=5)
QUIET_WITHIN = 120.0
"""Seconds from the last hit until all jobs must have ended."""
POISON = 3


@pytest.fixture(scope="module")
def broker_server(either_broker: BrokerServer) -> BrokerServer:
    return either_broker


@dataclass
class Chaos:
    """Everything that runs, and the hand that hits it; what dies is started again, as Kubernetes would."""

    house: House
    chance: random.Random
    workers: list[Process] = field(default_factory=list)
    relays: list[Process] = field(default_factory=list)
    thaws: list[threading.Timer] = field(default_factory=list)

    def start(self) -> None:
        self.workers = [self._worker(n) for n in range(3)]
        self.relays = [self.house.processes.relay() for _ in range(2)]
        self.house.processes.await_workers(*self.workers)

    def hit(self, what: str) -> None:
        hits: dict[str, Callable[[], None]] = {
            "worker": self._kill_worker,
            "child": self._kill_child,
            "relay": self._kill_relay,
            "broker": self.house.broker.kill,
            "postgres": lambda: self._kill_server("postgres", signal.SIGQUIT),
            "store": lambda: self._kill_server("s3", signal.SIGKILL),
            "freeze": self._freeze_worker,
        }
        hits[what]()
        if what == "broker":
            self.house.broker.bring_back()

    def _worker(self, number: int) -> Process:
        return self.house.worker(slots=2, pool="threads" if number == 0 else "prefork")

    def _kill_worker(self) -> None:
        number = self.chance.randrange(len(self.workers))
        self.workers[number].kill()
        self.workers[number] = self._worker(number)

    def _kill_child(self) -> None:
        children = [pid for worker in self.workers[1:] for pid in worker.family()[1:]]
        if children:
            os.kill(self.chance.choice(children), signal.SIGKILL)

    def _kill_relay(self) -> None:
        number = self.chance.randrange(len(self.relays))
        self.relays[number].kill()
        self.relays[number] = self.house.processes.relay()

    def _kill_server(self, name: str, number: signal.Signals) -> None:
        pid = self.house.stack.supervisor.pid(name)
        if pid is not None:
            os.kill(pid, number)

    def _freeze_worker(self) -> None:
        victim = self.chance.choice(self.workers)
        victim.freeze()
        thaw = threading.Timer(self.house.settings.lease.total_seconds() * 2, victim.thaw)
        thaw.start()
        self.thaws.append(thaw)


@pytest.mark.timeout(600)
def test_hundreds_of_jobs_survive_dozens_of_random_kills(
    house: House, request: pytest.FixtureRequest
) -> None:
    if not request.config.getoption("--long"):
        pytest.skip("takes three minutes; run it with `make faults` or `pytest tests/faults --long`")
    seed = secrets.randbelow(10**6)
    chaos = Chaos(house, random.Random(seed))  # noqa: S311 - repeatable on purpose
    hits = list(PLAN.elements())
    chaos.chance.shuffle(hits)
    print(f"seed {seed}: {' '.join(hits)}")  # noqa: T201 - the tally of a long run - shown when it fails
    _, url = house.processes.web()
    chaos.start()
    house.processes.await_web(url)
    with submitting(url, house.account.headers, pause=0.3) as customers:
        for number, what in enumerate(hits):
            house.stack.supervisor.watch(until=lambda: False, within=GAP)
            chaos.hit(what)
            if number < POISON:
                house.submit_when_possible("poison")
    for thaw in chaos.thaws:
        thaw.join()
    house.accepted += customers.accepted
    house.ends_well(within=QUIET_WITHIN)
    print(house.tally(), f"{len(customers.accepted)} accepted, {len(customers.refused)} refused")  # noqa: T201 - the tally of a long run
    assert len(customers.accepted) >= 300
    assert customers.broken == []
    assert {refusal.status for refusal in customers.refused} <= {503}
    assert set(house.tally()) <= {"completed", "worker_crashed"}
    assert house.tally()["completed"] >= len(house.accepted) * 0.98
