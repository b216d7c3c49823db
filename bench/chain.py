"""The whole chain on no-op jobs, against a bare Celery no-op: same broker, same pool, same concurrency.

A drain starts with a backlog that appears at once (rows in one transaction, messages in one pipeline) and
is timed after its first 15 percent. The last side feeds the chain over HTTP while it runs.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta

from app.errors import SetupError
from bench.house import QUEUE, spec_of
from bench.load import drive
from bench.messages import BARE_QUEUE, Broker
from bench.numbers import Series, Table, against_goal, interleaved, ratios, series, steady_rate
from bench.programs import PYTHON, Running, free_port, wait_until
from bench.run import Run

GOAL = 0.50
POOLS = {"prefork, 2 processes": ("prefork", 2), "threads, 8": ("threads", 8)}
FEEDERS = 4
"""Connections that submit jobs while the chain works on them."""
_NOTE = (
    "bare: Celery with results ignored and no database. no image: claim and settle, two commits, "
    "nothing encoded or stored; compare it with bare."
)
_FIRST = 300
"""Jobs of the warm-up, from which the size of the rounds follows."""
_STUCK = timedelta(seconds=60)


@dataclass(frozen=True)
class _Drained:
    rate: float
    cpu: dict[str, float]
    """CPU milliseconds per job, by process."""


@dataclass(frozen=True)
class _Programs:
    web: Running
    web_port: int
    relay: Running
    worker: Running
    bare: Running


@dataclass(frozen=True)
class _Side:
    name: str
    drain: Callable[[int], _Drained]


def measure(run: Run) -> list[Table]:
    """Give a table for each kind of pool."""
    return [_measure_pool(run, name, pool=pool, slots=slots) for name, (pool, slots) in POOLS.items()]


def _measure_pool(run: Run, name: str, *, pool: str, slots: int) -> Table:
    run.say(f"end to end: starting the workers ({name})")
    with ExitStack() as started:
        programs = _start(run, started, pool=pool, slots=slots)
        broker = started.enter_context(Broker(run.house.settings))
        sides = (
            _Side("bare Celery no-op", lambda jobs: _drain_bare(run, programs, broker, jobs)),
            _Side("no-op, no image", lambda jobs: _drain(run, programs, jobs, model="nothing")),
            _Side("no-op, 16x16 PNG", lambda jobs: _drain(run, programs, jobs, model="pixel")),
            _Side("the same, fed over HTTP", lambda jobs: _feed(run, programs, jobs)),
        )
        jobs = {}
        for side in sides:
            began = time.monotonic()
            side.drain(_FIRST)
            jobs[side.name] = max(_FIRST, int(_FIRST / (time.monotonic() - began) * run.seconds))
        found: dict[str, list[_Drained]] = {side.name: [] for side in sides}
        for number, side in interleaved(run.rounds, sides):
            run.say(f"end to end ({name}), round {number + 1} of {run.rounds}: {side.name}")
            found[side.name].append(side.drain(jobs[side.name]))
    return _table(name, found)


def _start(run: Run, started: ExitStack, *, pool: str, slots: int) -> _Programs:
    house, port = run.house, free_port()
    flags = ("-P", pool, "-c", str(slots), "--without-gossip", "--without-mingle", "--loglevel=INFO")
    celery = [PYTHON, "-m", "celery", "-A"]
    bare_log = house.stack.state / "logs" / f"bare-worker-{pool}.log"
    worker = house.start(
        f"worker {pool}",
        [*celery, "bench.worker_app", "worker", "-Q", QUEUE, "-n", f"{pool}@%h", *flags],
        ready=lambda: house.live_slots() == slots,
    )
    bare = house.start(
        f"bare worker {pool}",
        [*celery, "bench.plain_worker", "worker", "-Q", BARE_QUEUE, "-n", f"bare-{pool}@%h", *flags],
        ready=lambda: bare_log.exists() and " ready." in bare_log.read_text(),
    )
    relay = house.start(
        f"relay {pool}",
        [PYTHON, "-c", "from app.cli import main; main()", "relay"],
        ready=lambda: True,
    )
    web = house.start_server(
        f"web {pool}", server="granian", application="app.web:from_environment", port=port
    )
    worker, bare, relay, web = (started.enter_context(one) for one in (worker, bare, relay, web))
    return _Programs(web=web, web_port=port, relay=relay, worker=worker, bare=bare)


def _drain(run: Run, programs: _Programs, jobs: int, *, model: str) -> _Drained:
    run.house.empty()
    before = _cpu(run, programs)
    run.house.add_jobs(jobs, spec_of(model))
    return _await_completion(run, programs, before)


def _feed(run: Run, programs: _Programs, jobs: int) -> _Drained:
    run.house.empty()
    before = _cpu(run, programs)
    drive(
        run.house.request(),
        port=programs.web_port,
        connections=FEEDERS,
        seconds=_STUCK.total_seconds(),
        most=jobs,
    ).only(202)
    return _await_completion(run, programs, before)


def _await_completion(run: Run, programs: _Programs, before: dict[str, float]) -> _Drained:
    if not wait_until(lambda: run.house.unfinished() == 0, within=_STUCK, every=0.1):
        raise SetupError(f"{run.house.unfinished()} jobs are not done after {_STUCK}; see the logs")
    after = _cpu(run, programs)
    times = run.house.completed_at()
    return _Drained(rate=steady_rate(times), cpu=_per_job(before, after, len(times)))


def _drain_bare(run: Run, programs: _Programs, broker: Broker, jobs: int) -> _Drained:
    before = _cpu(run, programs)
    broker.push(BARE_QUEUE, count=jobs)
    times: list[float] = []
    end = time.monotonic() + _STUCK.total_seconds()
    while len(times) < jobs:
        done = jobs - broker.unfinished(BARE_QUEUE)
        times.extend([time.monotonic()] * (done - len(times)))
        if time.monotonic() > end:
            raise SetupError(f"the bare worker did {done} of {jobs} tasks in {_STUCK}")
        time.sleep(0.01)  # a queue that runs dry rings no bell
    return _Drained(rate=steady_rate(times), cpu=_per_job(before, _cpu(run, programs), jobs))


def _cpu(run: Run, programs: _Programs) -> dict[str, float]:
    return {
        "worker": programs.worker.cpu() + programs.bare.cpu(),  # one of them is idle
        "relay": programs.relay.cpu(),
        "web": programs.web.cpu(),
        **{name: run.house.server_cpu(name) for name in ("postgres", "valkey", "s3")},
    }


def _per_job(before: dict[str, float], after: dict[str, float], jobs: int) -> dict[str, float]:
    return {name: (after[name] - before[name]) / jobs * 1000 for name in before}


def _table(pool: str, found: dict[str, list[_Drained]]) -> Table:
    table = Table(
        f"Chain, worker with {pool}: jobs per second until completed, CPU ms per job (medians)",
        ("", "jobs/s", "ratio to bare", "worker", "relay", "web", "PostgreSQL", "Valkey", "S3"),
        notes=[_NOTE],
    )
    base: Series | None = None
    for name, rounds in found.items():
        rate = series(rounds, lambda one: one.rate)
        base = base or rate
        ratio = "1.00" if rate is base else against_goal(ratios(rate, base), at_least=GOAL)
        costs = (statistics.median(one.cpu[process] for one in rounds) for process in rounds[0].cpu)
        table.rows.append((name, rate.show(), ratio, *(f"{cost:.2f}" for cost in costs)))
    return table
