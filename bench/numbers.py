"""Medians, ratios and tables: the arithmetic of the bench, without any measuring."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Series:
    """The same figure from several rounds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle round."""
        return statistics.median(self.values)

    def show(self, form: str = ",.0f") -> str:
        """Give the median with the smallest and the largest value, such as `1,200 [1,100-1,250]`."""
        low, high = min(self.values), max(self.values)
        return f"{self.median:{form}} [{low:{form}}-{high:{form}}]"


def series(rounds: Sequence[T], figure: Callable[[T], float]) -> Series:
    """Give one figure of every round."""
    return Series(tuple(figure(one) for one in rounds))


def ratios(ours: Series, base: Series) -> Series:
    """Give ours ÷ base round by round, so that what disturbed a whole round cancels out."""
    return Series(tuple(a / b for a, b in zip(ours.values, base.values, strict=True)))


def percentile(values: Sequence[float], share: float) -> float:
    """Give the smallest value that at least `share` (0 to 1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def steady_rate(times: Sequence[float], *, skip: float = 0.15) -> float:
    """Give the events per second after the first `skip` share of them: what a drain runs at once it runs.

    Args:
        times: when each event happened, in seconds, in any order; at least two.
        skip: share that is left out as start-up.
    """
    ordered = sorted(times)
    first = min(int(len(ordered) * skip), len(ordered) - 2)
    return (len(ordered) - 1 - first) / max(ordered[-1] - ordered[first], 1e-9)


def interleaved(rounds: int, sides: Sequence[T]) -> Iterator[tuple[int, T]]:
    """Give (round, side) for A, B, A, B, …, every second round in reverse: B, A."""
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            yield number, side


@dataclass
class Table:
    """What a section found."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """Give it as GitHub shows tables, numbers to the right."""
        lines = [
            f"### {self.title}",
            "",
            "| " + " | ".join(self.columns) + " |",
            "|" + "|".join(["---", *["---:"] * (len(self.columns) - 1)]) + "|",
            *("| " + " | ".join(row) + " |" for row in self.rows),
        ]
        notes = [line for note in self.notes for line in ("", note)]
        return "\n".join([*lines, *notes]) + "\n"


def against_goal(found: Series, *, at_least: float) -> str:
    """Give a ratio with its goal: `0.85 [0.80-0.90], goal 0.8: met`."""
    verdict = "met" if found.median >= at_least else "missed"
    return f"{found.show('.2f')}, goal {at_least:g}: {verdict}"
