"""WSGI servers compared on the accept path, alone and with 50 open waits, and in their manners."""

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from bench import manners
from bench.accept import BUSY, SLICE
from bench.client import Client
from bench.load import Measured, drive
from bench.numbers import Table, interleaved, ratios, series
from bench.programs import Running, free_port, wait_until
from bench.run import Run
from bench.serve import SERVERS, is_installed

WAITS: Final = 50
APPLICATION: Final = "bench.waits:application"


@dataclass(frozen=True)
class _Side:
    server: str
    waits: int
    port: int
    program: Running


@dataclass(frozen=True)
class _Round:
    seen: Measured
    cpu: float
    memory: int


def measure(run: Run) -> list[Table]:
    """Give the table of the speeds and that of the manners; servers that are not installed are left out."""
    installed = [server for server in SERVERS if is_installed(server)]
    missing = [server for server in SERVERS if server not in installed]
    note = [f"Not installed here and left out: {', '.join(missing)}."] if missing else []
    with ExitStack() as started:
        sides = []
        for server in installed:
            run.say(f"wsgi: starting {server}")
            port = free_port()
            program = run.house.start_server(
                f"web {server}", server=server, application=APPLICATION, port=port
            )
            started.enter_context(program)
            sides += [_Side(server, waits, port, program) for waits in (0, WAITS)]
        for side in sides:
            drive(run.house.request(), port=side.port, connections=BUSY, seconds=SLICE).only(202)
        found: dict[tuple[str, int], list[_Round]] = {(side.server, side.waits): [] for side in sides}
        for number, side in interleaved(run.rounds, sides):
            run.say(f"wsgi, round {number + 1} of {run.rounds}: {side.server}, {side.waits} waits")
            run.house.empty()
            found[side.server, side.waits].append(_measure(run, side))
    speeds = _table(found)
    speeds.notes += note
    return [speeds, _manners(run, installed)]


def _measure(run: Run, side: _Side) -> _Round:
    with _waiting(side, seconds=run.seconds):
        before = side.program.cpu()
        seen = drive(run.house.request(), port=side.port, connections=BUSY, seconds=run.seconds).only(202)
        cpu = (side.program.cpu() - before) / len(seen.latencies)
        return _Round(seen=seen, cpu=cpu, memory=side.program.memory())


@contextmanager
def _waiting(side: _Side, *, seconds: float) -> Iterator[None]:
    """Hold as many streams as the side asks for, from when the first piece of each is there."""
    path = f"/bench/wait?seconds={math.ceil(seconds) + 2}"
    clients = [Client(side.port) for _ in range(side.waits)]
    for client in clients:
        client.get(path)
    for client in clients:
        client.receive()
    yield
    for client in clients:
        client.close()
    time.sleep(0.1)  # until the server has seen them leave
    if clients:  # a thread may notice only with its next line that nobody reads
        wait_until(lambda: manners.open_waits(side.port) == 0, within=timedelta(seconds=seconds + 5))


def _table(found: dict[tuple[str, int], list[_Round]]) -> Table:
    table = Table(
        f"WSGI servers: accepted requests on {BUSY} connections, alone and beside {WAITS} open streams",
        ("", "requests/s", "÷ granian", "p50 ms", "p99 ms", "CPU µs", "RSS MB"),
    )
    rates = {side: series(rounds, lambda one: one.seen.rate) for side, rounds in found.items()}
    for (server, waits), rounds in found.items():
        rate = rates[server, waits]
        table.rows.append(
            (
                f"{server}, {waits} waits",
                rate.show(),
                ratios(rate, rates["granian", waits]).show(".2f"),
                series(rounds, lambda one: one.seen.latency(0.50)).show(".1f"),
                series(rounds, lambda one: one.seen.latency(0.99)).show(".0f"),
                series(rounds, lambda one: one.cpu * 1e6).show(),
                f"{max(one.memory for one in rounds) / 1e6:.0f}",
            )
        )
    return table


def _manners(run: Run, servers: list[str]) -> Table:
    table = Table("WSGI servers: manners", ("", *servers))
    answers = []
    for server in servers:
        run.say(f"wsgi: manners of {server}")
        answers.append(manners.examine(run.house, server=server, application=APPLICATION))
    for question in answers[0]:
        table.rows.append((question, *(answer[question] for answer in answers)))
    return table
