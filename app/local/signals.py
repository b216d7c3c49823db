"""SIGINT and SIGTERM as something to look at, for loops that must not be torn apart by them."""

import signal
import threading
from types import FrameType
from typing import Self


class Signals:
    """While entered, SIGINT and SIGTERM only set `seen`; off the main thread it does nothing."""

    def __init__(self) -> None:
        self.seen = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note) or signal.SIG_DFL
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # it came from signal.signal

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.seen = True
