"""Seconds spent per stage of an attempt; kept with the event that ends it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Stopwatch:
    """Adds up the seconds of each stage, to a ten-thousandth."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def time(self, stage: str, work: Callable[[], T]) -> T:
        """Do some work, and count its seconds, whether it succeeds or not."""
        with self.running(stage):
            return work()

    def each(self, stage: str, items: Iterator[T]) -> Iterator[T]:
        """Give the items, and count the seconds until each is there, not those spent on it after that."""
        while True:
            with self.running(stage):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    @contextmanager
    def running(self, stage: str) -> Iterator[None]:
        """Count the seconds until the context ends."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.add(stage, time.monotonic() - started)

    def add(self, stage: str, seconds: float) -> None:
        """Count seconds that somebody else measured."""
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + seconds, 4)
