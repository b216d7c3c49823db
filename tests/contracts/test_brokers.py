"""What Darkroom promises of its broker, on each that it is tested with."""

import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
import redis
from kombu import Connection
from pydantic import SecretStr

from app.broker import RUN_JOB, Broker, declared_queue
from app.errors import BrokerDown
from app.local import valkey
from app.local.machine import Machine
from app.settings import Settings
from tests.servers.processes import Process
from tests.servers.rabbitmq import RabbitMQ, why_not
from tests.waiting import eventually

ANSWERS_WITHIN = 10.0
"""Seconds within which a broker that is down or frozen must have become a BrokerDown."""
PASSWORD = "password-of-a-test-run"


class Server(Protocol):
    """A broker's process; what was confirmed outlives it."""

    url: str

    def start(self) -> None: ...
    def kill(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...
    def forget(self, queue: str) -> None: ...
    def await_durable(self, queue: str) -> None: ...
    def end(self) -> None: ...


class Valkey:
    """The local stack's broker with a folder and a port of its own."""

    def __init__(self, folder: Path) -> None:
        (folder / "logs").mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = valkey.url(port=port, password=PASSWORD)
        server = valkey.find(Machine())
        self._process = Process(valkey.program(server=server, state=folder, port=port, password=PASSWORD))
        self.kill, self.end = self._process.end, self._process.end
        self.freeze, self.thaw = self._process.freeze, self._process.thaw

    def start(self) -> None:
        self._process.start(ready=True)

    def await_durable(self, queue: str) -> None:
        """What it has answered is in its file."""

    def forget(self, queue: str) -> None:
        with redis.Redis.from_url(self.url) as client:
            client.delete(queue)


SERVERS: dict[str, type[Valkey | RabbitMQ]] = {"valkey": Valkey, "rabbitmq": RabbitMQ}


@pytest.fixture(params=["valkey", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)], scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if request.param == "rabbitmq" and (reason := why_not()):
        pytest.skip(reason)
    made = SERVERS[request.param](tmp_path_factory.mktemp(request.param))
    made.start()
    yield made
    made.end()


@pytest.fixture
def settings(server: Server) -> Settings:
    return Settings(
        database_url="postgresql://unused",
        broker_url=server.url,
        s3_endpoint="http://unused",
        s3_access_key="unused",
        s3_secret_key="unused",
        secret_key="x" * 32,
    )


@pytest.fixture
def broker(settings: Settings) -> Iterator[Broker]:
    opened = Broker(settings)
    yield opened
    opened.close()


@pytest.fixture
def queue() -> str:
    return f"conformance.{uuid.uuid4().hex}"


def some(number: int) -> list[uuid.UUID]:
    return [uuid.uuid4() for _ in range(number)]


def test_all_wake_ups_of_a_large_batch_are_counted(broker: Broker, queue: str) -> None:
    broker.publish(queue, some(200))
    assert broker.depth(queue) == 200
    broker.publish(queue, some(1))
    assert broker.depth(queue) == 201


def test_a_queue_nobody_wrote_to_is_empty(broker: Broker, queue: str) -> None:
    assert broker.depth(queue) == 0
    broker.publish(queue, [])
    assert broker.depth(queue) == 0


def test_a_wake_up_is_a_message_that_celery_understands(
    broker: Broker, queue: str, settings: Settings
) -> None:
    job_id = uuid.uuid4()
    broker.publish(queue, [job_id])
    with Connection(settings.broker_url.get_secret_value(), connect_timeout=5) as connection:
        bound = declared_queue(queue, queue_type=settings.broker_queue_type)(connection.default_channel)
        message = bound.get()
        assert message is not None
        message.ack()
        args, kwargs, _embedded = message.payload
        assert (args, kwargs) == ([str(job_id)], {})
        assert message.headers["task"] == RUN_JOB
        assert message.properties["correlation_id"] == message.headers["id"]
    assert broker.depth(queue) == 0


def test_a_wake_up_is_in_its_queue_even_if_that_was_deleted_meanwhile(
    server: Server, broker: Broker, queue: str
) -> None:
    broker.publish(queue, some(1))
    server.forget(queue)
    try:
        broker.publish(queue, some(1))
    except BrokerDown as error:
        assert f"no queue {queue!r}" in error.message  # noqa: PT017 - a broker may also declare it anew
        broker.publish(queue, some(1))
    assert broker.depth(queue) == 1


def test_the_broker_says_what_it_is(broker: Broker, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["server"]
    assert name in broker.ping().lower()


def test_a_killed_broker_is_down_at_once_and_keeps_what_it_took(
    server: Server, broker: Broker, queue: str
) -> None:
    broker.publish(queue, some(100))
    server.await_durable(queue)
    server.kill()
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(BrokerDown):
            broker.publish(queue, some(1))
        with pytest.raises(BrokerDown):
            broker.depth(queue)
    assert time.monotonic() - began < ANSWERS_WITHIN
    server.start()
    # RabbitMQ counts a quorum queue as empty until it has elected its leader anew.
    eventually(lambda: broker.depth(queue) == 100, within=ANSWERS_WITHIN)
    broker.publish(queue, some(1))
    assert broker.depth(queue) == 101


@pytest.mark.slow
def test_a_frozen_broker_is_down_within_seconds_and_usable_when_it_thaws(
    server: Server, broker: Broker, queue: str
) -> None:
    broker.publish(queue, some(1))
    server.freeze()
    try:
        began = time.monotonic()
        with pytest.raises(BrokerDown):
            broker.publish(queue, some(70))
        assert time.monotonic() - began < ANSWERS_WITHIN
    finally:
        server.thaw()
    broker.publish(queue, some(1))
    # What was on its way when the broker froze may have arrived or not.
    assert 2 <= broker.depth(queue) <= 72


def test_a_wrong_password_counts_as_down(settings: Settings, queue: str) -> None:
    user, _, rest = settings.broker_url.get_secret_value().rpartition("@")
    scheme = user.rpartition(":")[0]
    wrong = settings.model_copy(update={"broker_url": SecretStr(f"{scheme}:wrong@{rest}")})
    broker = Broker(wrong)
    with pytest.raises(BrokerDown):
        broker.publish(queue, some(1))
    broker.close()
