"""When a mood strikes, and when a rate limit does. Thread-safe."""

import threading
import time
from dataclasses import dataclass

from tests.upstreams.moods import Kind, Mood


class Script:
    """Moods in order, used up one per request of their kind, and moods for good."""

    def __init__(self) -> None:
        self._once: list[Mood] = []
        self._always: list[Mood] = []
        self._lock = threading.Lock()

    def add(self, mood: Mood) -> None:
        """Add one to be used up."""
        with self._lock:
            self._once.append(mood)

    def add_for_good(self, mood: Mood) -> None:
        """Add one for every request of its kind, in place of another for that kind."""
        with self._lock:
            self._always = [it for it in self._always if it.kind is not mood.kind] + [mood]

    def take(self, kind: Kind) -> Mood | None:
        """Give the mood for a request of this kind, and use it up if it is not for good."""
        with self._lock:
            for index, mood in enumerate(self._once):
                if mood.kind is kind:
                    return self._once.pop(index)
            return next((mood for mood in self._always if mood.kind is kind), None)

    def left(self) -> list[Mood]:
        """Give the scripted moods that no request has used up."""
        with self._lock:
            return list(self._once)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._once, self._always = [], []


@dataclass(frozen=True)
class Wait:
    """What a refused request is told: how long, and in which form (the name of a 429's mood)."""

    seconds: float
    form: str


class Gate:
    """The vendor's rate limit: so many requests in each window, and none during a storm."""

    def __init__(self) -> None:
        self.allowed = self.refused = 0
        self._calls: int | None = None
        self._window = self._ends = self._storm_ends = 0.0
        self._left = 0
        self._form = ""
        self._lock = threading.Lock()

    def limit(self, calls: int, per_seconds: float, form: str) -> None:
        """Begin to count anew, with these windows."""
        with self._lock:
            self._calls, self._window, self._ends, self._form = calls, per_seconds, 0.0, form
            self.allowed = self.refused = 0

    def storm(self, until: float, form: str) -> None:
        """Begin to count anew, with a storm until this monotonic time."""
        with self._lock:
            self._storm_ends, self._form = until, form
            self.allowed = self.refused = 0

    def open(self) -> None:
        """Let everything pass; the counts stay."""
        with self._lock:
            self._calls, self._storm_ends = None, 0.0

    def ask(self) -> Wait | None:
        """Give None to a request that may pass, else what to tell it; counts it either way."""
        with self._lock:
            seconds = self._seconds_to_wait(time.monotonic())
            if seconds > 0:
                self.refused += 1
                return Wait(seconds, self._form)
            self.allowed += 1
            return None

    def _seconds_to_wait(self, now: float) -> float:
        if now < self._storm_ends:
            return self._storm_ends - now
        if self._calls is None:
            return 0.0
        if now >= self._ends:
            self._ends, self._left = now + self._window, self._calls
        self._left -= 1
        return 0.0 if self._left >= 0 else self._ends - now
