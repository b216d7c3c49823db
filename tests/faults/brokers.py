"""The brokers of the fault tests: each can be killed, brought back, and made to forget everything."""

import os
import signal
from datetime import timedelta
from typing import Protocol

import redis

from app.local.stack import Stack
from app.local.supervisor import Happened


class BrokerServer(Protocol):
    """A broker's process."""

    url: str

    def kill(self) -> None:
        """Kill it with SIGKILL."""

    def bring_back(self) -> None:
        """Return when it takes connections again."""

    def forget(self, queue: str) -> None:
        """Delete all messages, and whatever it knows of this queue."""


class StackValkey:
    """The session's Valkey, which its supervisor starts again while somebody watches."""

    def __init__(self, stack: Stack) -> None:
        self.url = stack.environment["DARKROOM_BROKER_URL"]
        self._stack = stack
        self._restarts = 0

    def kill(self) -> None:
        self._restarts = self._count()
        pid = self._stack.supervisor.pid("valkey")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def bring_back(self) -> None:
        back = self._stack.supervisor.watch(
            until=lambda: self._count() > self._restarts, within=timedelta(seconds=30)
        )
        assert back, "Valkey was not started again"

    def forget(self, queue: str) -> None:
        del queue  # it knows nothing of queues but their messages
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def _count(self) -> int:
        return sum(
            event.name == "valkey" and event.what is Happened.RESTARTED for event in self._stack.events
        )
