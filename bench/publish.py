"""The relay alone: due rows to wake-ups with the broker, against LPUSH in pipelines and against apply_async.

Valkey has no publisher confirms: one answered pipeline per batch stands for them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from celery import Celery

from app import broker
from app.db import workers
from app.dispatch import Relay
from app.domain import catalog
from bench.house import QUEUE, House, spec_of
from bench.messages import BARE_QUEUE, BARE_TASK, Broker
from bench.numbers import Table, interleaved, ratios, series
from bench.run import Run

_SLOTS = 1_000_000
"""Live slots of a worker that does not exist, so that the relay never waits for room."""
_ID = "0193f0a2-7c3b-7e4d-8a1b-2c3d4e5f6071"


@dataclass(frozen=True)
class _Published:
    rate: float
    cpu: float
    """Microseconds of this process's CPU per message."""


@dataclass(frozen=True)
class _Side:
    name: str
    publish: Callable[[int], object]
    count: int


def measure(run: Run) -> list[Table]:
    """Give the table of the relay."""
    house = run.house
    ours = broker.Broker(house.settings)
    relay = Relay(house.settings, house.database, ours, catalog.load(house.settings.models_file))
    celery = Celery(broker=house.settings.broker_url.get_secret_value(), set_as_current=False)
    with Broker(house.settings) as raw:
        sides = (
            _Side("relay: rows released and published", lambda count: _release(relay, count), 4000),
            _Side("Celery apply_async", lambda count: _apply(celery, count), 1000),
            _Side("LPUSH, pipelines of 100", lambda count: raw.push_batches(BARE_QUEUE, count=count), 20_000),
        )
        found: dict[str, list[_Published]] = {side.name: [] for side in sides}
        for number, side in interleaved(run.rounds + 1, sides):
            if number:  # the first round is the warm-up
                run.say(f"relay, round {number} of {run.rounds}: {side.name}")
            published = _measure(house, side)
            raw.empty(BARE_QUEUE)
            raw.empty(QUEUE)
            if number:
                found[side.name].append(published)
    ours.close()
    celery.close()
    house.empty()
    return [_table(found)]


def _measure(house: House, side: _Side) -> _Published:
    house.empty()
    house.add_jobs(side.count, spec_of("nothing"))
    with house.database.autocommit() as tx:
        workers.beat(
            tx, "bench", queues=[QUEUE], slots=_SLOTS, busy=0, warm_models=[], version="", draining=False
        )
    cpu, began = time.process_time(), time.perf_counter()
    side.publish(side.count)
    seconds = time.perf_counter() - began
    cpu = time.process_time() - cpu
    with house.database.autocommit() as tx:
        workers.leave(tx, "bench")
    return _Published(rate=side.count / seconds, cpu=cpu / side.count * 1e6)


def _release(relay: Relay, count: int) -> None:
    released = 0
    while released < count:
        released += relay.release_due().released


def _apply(celery: Celery, count: int) -> None:
    for _ in range(count):
        celery.send_task(BARE_TASK, args=(_ID,), queue=BARE_QUEUE, ignore_result=True)


def _table(found: dict[str, list[_Published]]) -> Table:
    table = Table(
        "Relay: wake-ups published per second, one connection",
        ("", "messages/s", "CPU µs", "relay ÷ this"),
        notes=["The relay also marks each row as dispatched and chooses the order; the others only publish."],
    )
    rates = {name: series(rounds, lambda one: one.rate) for name, rounds in found.items()}
    ours, *_ = rates
    for name, rounds in found.items():
        ratio = ratios(rates[ours], rates[name])
        shown = "" if name == ours else ratio.show(".2f")
        cpu = series(rounds, lambda one: one.cpu)
        table.rows.append((name, rates[name].show(), cpu.show(), shown))
    return table
