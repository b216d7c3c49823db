"""A whole house for each fault test, with nothing running in it yet but the servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Account
from tests.faults.house import House, opened, relaying

from app.db import Database
from app.dispatch import Relay
from app.local.stack import Stack
from app.settings import Settings
from app.storage import Storage


@pytest.fixture
def fault_settings(settings: Settings, tmp_path: Path) -> Settings:
    models = Path(__file__).with_name("models.yaml")
    return settings.model_copy(update={"models_file": models, "state": tmp_path})


@pytest.fixture
def house(
    stack: Stack,
    fault_settings: Settings,
    database: Database,
    storage: Storage,
    account: Account,
    tmp_path: Path,
) -> Iterator[House]:
    """The house with nothing running in it yet, but for the servers."""
    with opened(stack, fault_settings, database, storage, account, folder=tmp_path) as made:
        yield made


@pytest.fixture
def relay(house: House) -> Iterator[Relay]:
    """A relay that runs in a thread for the whole test."""
    with relaying(house) as running:
        yield running
