"""Celery's Valkey transport, with one hole closed: an acknowledgement that fails still frees its slot.

kombu 5.7 counts a message against the worker's prefetch limit until the acknowledgement has reached the
broker. When all slots are taken it does not look at its connection either. So a worker whose jobs all end
while the broker is away logs "Couldn't ack" and is deaf for ever, alive and with a fresh heartbeat. With the
slot freed it looks, finds the connection broken and opens a new one. The message is delivered once more
when its visibility timeout is over, which is harmless: it is only a wake-up.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from kombu.transport import redis, virtual


class QoS(redis.QoS):
    """Which messages this worker holds."""

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message; when that fails it is no longer held all the same."""
        with self._freed_on_failure(delivery_tag):
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Give a message back or drop it; when that fails it is no longer held all the same."""
        with self._freed_on_failure(delivery_tag):
            super().reject(delivery_tag, requeue)

    @contextmanager
    def _freed_on_failure(self, delivery_tag: str) -> Iterator[None]:
        try:
            yield
        except BaseException:
            virtual.QoS.ack(self, delivery_tag)
            raise


class Channel(redis.Channel):
    """A session with the broker."""

    QoS = QoS


class Transport(redis.Transport):
    """What `broker_transport` names."""

    Channel = Channel
