"""Wake-ups to Celery's queues: built once, published in batches, confirmed in windows.

RabbitMQ: publisher confirms awaited per window instead of per message (16 times the rate), and
`mandatory`, so that a queue that does not exist is an error instead of silence. Valkey: one pipeline per
batch. Every socket has a timeout, as a frozen broker otherwise holds a publish for over 40 s.
"""

import os
import socket
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import Any, Final, Literal

from kombu import Connection, Exchange, Producer, Queue
from kombu.exceptions import KombuError

from app.errors import BrokerDown
from app.settings import Settings

RUN_JOB: Final = "run_job"
"""Name of the Celery task that works on one job; its only argument is the job's id."""
DELIVER: Final = "deliver"
"""Name of the Celery task that posts one webhook; its only argument is the delivery's id."""
WEBHOOKS: Final = "webhooks"
"""Queue of the deliveries."""
UPKEEP: Final = "upkeep"
"""Queue of the periodic tasks."""
WINDOW: Final = 64
"""Messages published before their confirms are awaited; 32 to 256 measured alike."""
_TIMEOUT: Final = 5.0
"""Seconds until a broker that does not answer counts as down."""


def declared_queue(name: str, *, queue_type: Literal["classic", "quorum"]) -> Queue:
    """Give a queue as relay and workers both declare it: durable, on the default exchange."""
    return Queue(
        name,
        Exchange(""),
        routing_key=name,
        durable=True,
        queue_arguments={"x-queue-type": queue_type},
    )


def transport_options(url: str, *, visibility_timeout: timedelta) -> dict[str, object]:
    """Give kombu's options for the transport of `url`: timeouts, and for Valkey its redelivery.

    Args:
        visibility_timeout: Valkey only: when an unacknowledged message is delivered again. Longer than any
            job may run; a job's rescue does not wait for it, the lease is shorter.
    """
    if url.startswith("amqp"):
        return {"read_timeout": _TIMEOUT, "write_timeout": _TIMEOUT, "connect_timeout": _TIMEOUT}
    return {
        "socket_timeout": _TIMEOUT,
        "socket_connect_timeout": _TIMEOUT,
        "visibility_timeout": visibility_timeout.total_seconds(),
        # Without these kombu looks for unacknowledged messages only every 100 s.
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
    }


class Broker:
    """One long-lived connection of the relay to the broker; not thread-safe, reconnects by itself."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.broker_url.get_secret_value()
        self._queue_type = settings.broker_queue_type
        self._options = transport_options(self._url, visibility_timeout=settings.job_deadline * 2)
        # Any: the stubs of kombu end before 5.7 (no Producer.batch) and know no transport's own channel.
        self._connection: Any = None
        self._producer: Any = None
        self._declared: set[str] = set()
        self._unconfirmed: set[int] = set()
        self._published = 0
        self._problem: str | None = None
        self._origin = f"{os.getpid()}@{socket.gethostname()}"

    def publish(self, queue: str, ids: Sequence[uuid.UUID], *, task: str = RUN_JOB) -> None:
        """Send one wake-up per job, or per delivery, and return when the broker has taken them all.

        Args:
            task: RUN_JOB or DELIVER.

        Raises:
            BrokerDown: it did not take all of them; some may have arrived, which is harmless.
        """
        with self._errors_translated():
            producer = self._ready_producer(queue)
            for start in range(0, len(ids), WINDOW):
                with producer.batch(max_size=WINDOW):
                    for each in ids[start : start + WINDOW]:
                        self._send(producer, queue, task, each)
                self._await_confirms()

    def depth(self, queue: str) -> int:
        """Give how many messages are ready in a queue; those a worker holds do not count.

        Raises:
            BrokerDown: the broker does not answer.
        """
        with self._errors_translated():
            channel = self._ready_producer(queue).channel
            bound: Any = declared_queue(queue, queue_type=self._queue_type)(channel)
            # Not passive: kombu's Redis transport takes an empty queue for one that does not exist.
            return int(bound.queue_declare().message_count)

    def ping(self) -> str:
        """Give the broker's name and version.

        Raises:
            BrokerDown: the broker does not answer.
        """
        with self._errors_translated():
            self._ready_producer(UPKEEP)
            if self._is_amqp:
                properties: dict[str, Any] = self._connection.connection.server_properties
                return f"{properties.get('product')} {properties.get('version')}"
            info: dict[str, Any] = self._connection.default_channel.client.info("server")
            return f"{info.get('server_name', 'redis')} {info.get('valkey_version', info['redis_version'])}"

    def close(self) -> None:
        """Drop the connection; the next call opens a new one."""
        connection, self._connection, self._producer = self._connection, None, None
        self._declared.clear()
        self._unconfirmed.clear()
        self._published = 0
        self._problem = None
        if connection is not None:
            connection.collect(socket_timeout=1)

    @property
    def _is_amqp(self) -> bool:
        return self._url.startswith("amqp")

    def _ready_producer(self, queue: str) -> Any:
        if self._connection is None or self._producer is None:
            self._connection = Connection(
                self._url,
                transport_options=self._options,
                connect_timeout=_TIMEOUT,
                heartbeat=0,  # a dead peer shows at the next publish, within the socket's timeout
            )
            # Not `connect()`, which sleeps for two seconds before its second and last try.
            self._connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
            channel = self._connection.default_channel
            if self._is_amqp:
                channel.confirm_select()
                channel.events["basic_ack"].add(self._on_ack)
                channel.events["basic_nack"].add(self._on_nack)
                channel.events["basic_return"].add(self._on_return)
            self._producer = Producer(channel, serializer="json", auto_declare=False)
        if queue not in self._declared:
            declared_queue(queue, queue_type=self._queue_type)(self._producer.channel).declare()
            self._declared.add(queue)
        return self._producer

    def _send(self, producer: Any, queue: str, task: str, argument: uuid.UUID) -> None:
        task_id = str(uuid.uuid4())
        self._published += 1
        if self._is_amqp:
            self._unconfirmed.add(self._published)
        producer.publish(
            ([str(argument)], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}),
            exchange="",
            routing_key=queue,
            headers={**_HEADERS, "task": task, "id": task_id, "root_id": task_id, "origin": self._origin},
            correlation_id=task_id,
            reply_to="",
            delivery_mode=2,
            mandatory=True,
        )

    def _await_confirms(self) -> None:
        while self._unconfirmed and self._problem is None:
            self._connection.drain_events(timeout=_TIMEOUT)
        if self._problem is not None:
            raise BrokerDown(self._problem)

    def _on_ack(self, delivery_tag: int, multiple: bool) -> None:  # noqa: FBT001 - amqp's signature
        if multiple:
            self._unconfirmed -= {tag for tag in self._unconfirmed if tag <= delivery_tag}
        else:
            self._unconfirmed.discard(delivery_tag)

    def _on_nack(self, delivery_tag: int, multiple: bool) -> None:  # noqa: FBT001 - amqp's signature
        self._problem = f"The broker refused message {delivery_tag} (multiple={multiple})."

    def _on_return(self, exception: Exception, _exchange: str, routing_key: str, _message: object) -> None:
        self._problem = f"The broker has no queue {routing_key!r}: {exception}"

    @contextmanager
    def _errors_translated(self) -> Iterator[None]:
        try:
            yield
        except BrokerDown:
            self.close()
            raise
        except self._foreign_errors as error:
            self.close()
            raise BrokerDown(f"The broker does not answer: {error}") from error

    @cached_property
    def _foreign_errors(self) -> tuple[type[BaseException], ...]:
        transport = Connection(self._url).transport
        return (*transport.connection_errors, *transport.channel_errors, KombuError, OSError)


_HEADERS: Final[dict[str, object]] = {
    "lang": "py",
    "shadow": None,
    "eta": None,
    "expires": None,
    "group": None,
    "group_index": None,
    "retries": 0,
    "timelimit": [None, None],
    "parent_id": None,
    "argsrepr": "",
    "kwargsrepr": "",
    "ignore_result": True,
    "replaced_task_nesting": 0,
    "stamped_headers": None,
    "stamps": {},
}
"""Celery's message protocol 2 (docs.celeryq.dev/en/stable/internals/protocol.html); its own message
building costs five times what kombu needs, so the constant part is written down once."""
