"""The broker as the bench sees it: messages pushed as fast as Valkey takes them, and how many are left."""

import base64
import uuid
from types import TracebackType
from typing import Any, Final, Self

import orjson
from redis import Redis

from app.settings import Settings

BARE_QUEUE: Final = "bench.bare"
BARE_TASK: Final = "bench_nothing"
"""Queue and task of the baseline, `bench.plain_worker`."""
_BATCH: Final = 100


class Broker:
    """A connection to Valkey that speaks kombu's format."""

    def __init__(self, settings: Settings) -> None:
        self._client: Any = Redis.from_url(settings.broker_url.get_secret_value())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def push(self, queue: str, *, count: int) -> None:
        """Push messages that a worker gets to see all at once."""
        pipeline = self._client.pipeline(transaction=True)
        for _ in range(count):
            pipeline.lpush(queue, message(queue))
        pipeline.execute()

    def push_batches(self, queue: str, *, count: int) -> None:
        """Push messages in pipelines of 100, the fastest way there is."""
        for _ in range(count // _BATCH):
            pipeline = self._client.pipeline(transaction=False)
            for _ in range(_BATCH):
                pipeline.lpush(queue, message(queue))
            pipeline.execute()

    def unfinished(self, queue: str) -> int:
        """Count a queue's messages, with those that any worker holds unacknowledged."""
        waiting, held = self._client.pipeline().llen(queue).hlen("unacked").execute()
        return int(waiting) + int(held)

    def empty(self, queue: str) -> int:
        """Delete a queue's messages; gives how many there were."""
        count, _ = self._client.pipeline().llen(queue).delete(queue).execute()
        return int(count)


def message(queue: str) -> bytes:
    """Give a call of the bare task: Celery's protocol 2 in kombu's envelope for Redis."""
    task_id = str(uuid.uuid4())
    body = orjson.dumps([[task_id], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    return orjson.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {
                "lang": "py",
                "task": BARE_TASK,
                "id": task_id,
                "root_id": task_id,
                "parent_id": None,
                "group": None,
                "retries": 0,
                "timelimit": [None, None],
                "eta": None,
                "expires": None,
                "argsrepr": "",
                "kwargsrepr": "",
                "ignore_result": True,
            },
            "properties": {
                "correlation_id": task_id,
                "reply_to": "",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": task_id,
            },
        }
    )
