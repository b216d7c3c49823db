"""What Darkroom promises of its broker, on each that it is tested with."""

import signal
import uuid
from collections.abc import Iterator

import pytest
from tests.conftest import Account
from tests.servers import rabbitmq
from tests.servers.brokers import BrokerServer

from app.broker import Broker
from app.errors import BrokerDown
from tests.waiting import eventually


@pytest.fixture
def queue() -> str:
    return f"conformance.{uuid.uuid4().hex}"
