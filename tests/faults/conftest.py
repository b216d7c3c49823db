"""A whole house for each fault test, with nothing running in it yet but the servers."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.db import Database
from app.dispatch import Relay
from app.local.stack import Stack
from app.settings import Settings
from app.storage import Storage
from tests.conftest import Account
from tests.faults.brokers import BrokerServer, StackValkey
from tests.faults.house import House, opened, relaying
from tests.servers.processes import Processes
from tests.servers.rabbitmq import RabbitMQ, why_not


@pytest.fixture(scope="session")
def short_settings(base_settings: Settings) -> Settings:
    """Settings under which a silent worker loses its jobs, and a lost wake-up is missed, after seconds."""
    return base_settings.model_copy(
        update={
            "models_file": Path(__file__).with_name("models.yaml"),
            "lease": timedelta(seconds=2),
            "job_deadline": timedelta(seconds=30),
            "drain_grace": timedelta(seconds=1),
            "relay_poll": timedelta(seconds=0.2),
            "redispatch_after": timedelta(seconds=1),
            "rate_limit_per_minute": 100_000,
        }
    )


@pytest.fixture
def fault_settings(short_settings: Settings) -> Settings:
    """The settings of a test's house; a module may change some."""
    return short_settings


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """A RabbitMQ node of its own, started for the first test that wants it."""
    if reason := why_not():
        pytest.skip(reason)
    node = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    try:
        node.start()
        yield node
    finally:
        node.end()


@pytest.fixture(scope="module", params=["valkey", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def either_broker(request: pytest.FixtureRequest, stack: Stack) -> BrokerServer:
    """For a module that names it as its `broker_server`: each of its tests runs on either broker."""
    if request.param == "valkey":
        return StackValkey(stack)
    node: RabbitMQ = request.getfixturevalue("rabbitmq")
    return node


@pytest.fixture(scope="module")
def broker_server(stack: Stack) -> BrokerServer:
    """The broker that the house uses: Valkey, unless a module takes either."""
    return StackValkey(stack)


@pytest.fixture
def house(
    stack: Stack,
    broker_server: BrokerServer,
    fault_settings: Settings,
    database: Database,
    storage: Storage,
    account: Account,
    tmp_path: Path,
) -> Iterator[House]:
    """The house with nothing running in it yet, but for the servers."""
    settings = fault_settings.model_copy(update={"broker_url": SecretStr(broker_server.url)})
    with (
        Processes(settings, logs=tmp_path) as processes,
        opened(
            stack,
            settings,
            database,
            storage,
            account,
            broker=broker_server,
            processes=processes,
            folder=tmp_path,
        ) as made,
    ):
        yield made


@pytest.fixture
def relay(house: House) -> Iterator[Relay]:
    """A relay that runs in a thread for the whole test."""
    with relaying(house) as running:
        yield running
