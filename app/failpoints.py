"""Named points of the code at which a process can be made to die, so that tests find each gap for certain.

Random kills find the gaps that are wide. Nothing is armed unless DARKROOM_FAILPOINTS names it.
"""

import os
import signal
from collections.abc import Iterable

_armed: set[str] = set()


def arm(names: Iterable[str]) -> None:
    """Make this process kill itself at these points."""
    _armed.update(names)


def failpoint(name: str) -> None:
    """End this process as kill -9 would, if this point is armed."""
    if name in _armed:
        os.kill(os.getpid(), signal.SIGKILL)
