"""Waiting in tests: for a condition and never for a time."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from app.errors import Unavailable

T = TypeVar("T")
_PAUSE = 0.03


def eventually(condition: Callable[[], T], *, within: float, told: Callable[[], str] = lambda: "") -> T:
    """Give the condition's first true value; fails after `within` seconds, saying what `told` gives then."""
    end, never = time.monotonic() + within, threading.Event()
    while not (value := unless_away(condition)):
        assert time.monotonic() < end, f"not within {within:g} s\n{told()}"
        never.wait(_PAUSE)
    return value


def unless_away(condition: Callable[[], T]) -> T | None:
    """Give the condition's value, None while a server that it asks is away."""
    try:
        return condition()
    except Unavailable:
        return None
