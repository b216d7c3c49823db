"""The door: accepted jobs per second over HTTP, against a bare Flask route doing one INSERT.

Both under the product's WSGI server with its settings, one process, on the same PostgreSQL.
"""

from dataclasses import dataclass, field

from bench import plain_route
from bench.house import BODY
from bench.load import Measured, drive, post
from bench.numbers import Series, Table, against_goal, interleaved, ratios, series
from bench.programs import Running, free_port
from bench.run import Run

GOAL = 0.80
_COSTS = ("CPU µs, web", "CPU µs, PostgreSQL", "p50 ms", "p99 ms")
BUSY = 8
"""Connections of the throughput measurement; inserts stop getting faster at about four in flight."""
CROWD = 32
"""Connections beyond that."""
SLICE = 0.5
"""Seconds a side is measured before the other one's turn."""


@dataclass(frozen=True)
class _Side:
    name: str
    port: int
    request: bytes
    server: Running


@dataclass(frozen=True, kw_only=True)
class _Round:
    alone: Measured = field(default_factory=Measured)
    busy: Measured = field(default_factory=Measured)
    crowd: Measured = field(default_factory=Measured)
    cpu: float = 0.0
    postgres_cpu: float = 0.0

    def __add__(self, other: "_Round") -> "_Round":
        return _Round(
            alone=self.alone + other.alone,
            busy=self.busy + other.busy,
            crowd=self.crowd + other.crowd,
            cpu=self.cpu + other.cpu,
            postgres_cpu=self.postgres_cpu + other.postgres_cpu,
        )

    def per_request(self, seconds: float) -> float:
        """Give microseconds per request."""
        return seconds / len(self.busy.latencies) * 1e6


def measure(run: Run) -> list[Table]:
    """Give the table of the door."""
    house, ports = run.house, (free_port(), free_port())
    ours = house.start_server("web", server="granian", application="app.web:from_environment", port=ports[0])
    bare = house.start_server(
        "bare route", server="granian", application="bench.plain_route:application", port=ports[1]
    )
    with ours, bare:
        sides = (
            _Side("POST /v1/images/generate", ports[0], house.request(), ours),
            _Side("bare Flask route, one INSERT", ports[1], post(plain_route.PATH, BODY, {}), bare),
        )
        for side in sides:
            drive(side.request, port=side.port, connections=BUSY, seconds=min(1.0, run.seconds)).only(202)
        found: dict[str, list[_Round]] = {side.name: [] for side in sides}
        for number in range(run.rounds):
            run.say(f"accept, round {number + 1} of {run.rounds}")
            house.empty()
            for name, one in _measure(run, sides).items():
                found[name].append(one)
    return [_table(found)]


def _measure(run: Run, sides: tuple[_Side, ...]) -> dict[str, _Round]:
    """One round: the sides take turns in slices of half a second, so that a neighbour's noise hits both."""
    sums = {side.name: _Round() for side in sides}
    for _, side in interleaved(max(2, round(run.seconds / SLICE)), sides):
        sums[side.name] += _slice(run, side)
    return sums


def _slice(run: Run, side: _Side) -> _Round:
    alone = drive(side.request, port=side.port, connections=1, seconds=SLICE / 2).only(202)
    before, postgres = side.server.cpu(), run.house.server_cpu("postgres")
    busy = drive(side.request, port=side.port, connections=BUSY, seconds=SLICE).only(202)
    cpu, postgres_cpu = side.server.cpu() - before, run.house.server_cpu("postgres") - postgres
    crowd = drive(side.request, port=side.port, connections=CROWD, seconds=SLICE / 2).only(202)
    return _Round(alone=alone, busy=busy, crowd=crowd, cpu=cpu, postgres_cpu=postgres_cpu)


def _table(found: dict[str, list[_Round]]) -> Table:
    table = Table(
        f"Door: accepted requests per second and their cost with {BUSY} in flight; latency of a single one",
        ("", f"{BUSY} in flight", f"{CROWD} in flight", *_COSTS),
    )
    figures = {name: _figures(rounds) for name, rounds in found.items()}
    for name, (rate, crowd, cpu, postgres, p50, p99) in figures.items():
        latencies = (p50.show(".2f"), p99.show(".2f"))
        table.rows.append((name, rate.show(), crowd.show(), cpu.show(), postgres.show(), *latencies))
    ours, bare = figures.values()
    rates, others = ours[:2], ours[2:]
    shown = [against_goal(ratios(a, b), at_least=GOAL) for a, b in zip(rates, bare, strict=False)]
    costs = [ratios(a, b).show(".2f") for a, b in zip(others, bare[2:], strict=True)]
    table.rows.append(("ratio", *shown, *costs))
    return table


def _figures(rounds: list[_Round]) -> tuple[Series, ...]:
    return (
        series(rounds, lambda one: one.busy.rate),
        series(rounds, lambda one: one.crowd.rate),
        series(rounds, lambda one: one.per_request(one.cpu)),
        series(rounds, lambda one: one.per_request(one.postgres_cpu)),
        series(rounds, lambda one: one.alone.latency(0.50)),
        series(rounds, lambda one: one.alone.latency(0.99)),
    )
