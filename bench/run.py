"""What a section is given: the house, how long to measure, and whom to tell."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.house import House


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of the bench."""

    house: House
    rounds: int
    seconds: float
    """How long one measurement takes, roughly."""
    say: Callable[[str], None]
