"""What one of our processes asks of the kernel."""

import ctypes
import os
import signal
import threading
from collections.abc import Callable
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
"""From <linux/prctl.h>."""


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent ends, however that ends.

    Servers that fork (Celery's prefork pool, the WSGI server) leave their children behind when they are
    killed. Call it in such a child; if the parent is dead already, the signal comes at once.
    """
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def when_asked_to_end(callback: Callable[[], None]) -> None:
    """Call back, from a thread of its own, as soon as this process gets SIGTERM or SIGINT; at most once.

    For a process whose server handles these signals itself: Python's own handlers run only between two steps
    of the main thread, which that server keeps busy, but every signal is told to the wake-up descriptor at
    once. Call it from the main thread.
    """
    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)

    def listen() -> None:
        while number := os.read(heard, 1):
            if number[0] in {signal.SIGTERM, signal.SIGINT}:
                callback()
                return

    threading.Thread(target=listen, name="asked to end", daemon=True).start()
