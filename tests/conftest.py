"""Real servers for the tests that need them: one stack per run, an empty house for every test."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import auth, web
from app.db import Database, connect, migrate
from app.local.machine import Machine
from app.local.stack import Stack
from app.settings import Settings, load
from app.storage import Storage, open_store
from tests import emptying


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the fault tests at full length")


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """PostgreSQL, Valkey and the S3 store, started once per run and thrown away with their data."""
    # Not tmp_path: pytest closes it to `nobody`, who runs PostgreSQL when the tests run as root.
    folder = Path(tempfile.mkdtemp(prefix="darkroom-tests-"))
    folder.chmod(0o755)
    opened = Stack.open(folder / "state", machine=Machine(given=lambda _: False))
    try:
        yield opened
    finally:
        opened.discard()
        folder.rmdir()


@pytest.fixture(scope="session")
def base_settings(stack: Stack) -> Settings:
    settings = load(stack.state, **_fields_of(stack))
    migrate.upgrade(settings.database_url.get_secret_value())
    open_store(settings).ensure_bucket()
    return settings


def _fields_of(stack: Stack) -> dict[str, Any]:
    """The stack's settings as arguments, which win over whatever the environment of the run has set."""
    return {name.removeprefix("DARKROOM_").lower(): value for name, value in stack.environment.items()}


@pytest.fixture
def settings(base_settings: Settings) -> Settings:
    """Settings with times short enough for a test to see them pass."""
    return base_settings.model_copy(
        update={
            "lease": timedelta(seconds=2),
            "job_deadline": timedelta(seconds=30),
            "drain_grace": timedelta(seconds=2),
            "relay_poll": timedelta(seconds=0.2),
            "redispatch_after": timedelta(seconds=1),
            "rate_limit_per_minute": 100_000,
        }
    )


@pytest.fixture(scope="session")
def shared_database(base_settings: Settings) -> Iterator[Database]:
    """The connections of all tests, as each new one costs 8 ms; what lies behind them is left by others."""
    opened = connect(base_settings, application_name="darkroom tests")
    with opened.transaction() as tx:
        emptying.prepare(tx)
    yield opened
    opened.close()


@pytest.fixture
def database(shared_database: Database) -> Database:
    """The database, migrated and empty."""
    with shared_database.transaction() as tx:
        emptying.empty(tx)
    return shared_database


@pytest.fixture
def storage(settings: Settings) -> Storage:
    return open_store(settings)


@dataclass(frozen=True)
class Account:
    """Somebody with an API key."""

    id: Any
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"X-API-Key": self.key}


def make_account(database: Database, settings: Settings, name: str) -> Account:
    with database.transaction() as tx:
        new = auth.create_key(
            tx, account=name, name="test", secret_key=settings.secret_key.get_secret_value()
        )
    assert new is not None
    return Account(id=new.account_id, key=new.key)


@pytest.fixture
def account(database: Database, settings: Settings) -> Account:
    return make_account(database, settings, "alice")


@pytest.fixture
def stranger(database: Database, settings: Settings) -> Account:
    return make_account(database, settings, "mallory")


@pytest.fixture
def flask(settings: Settings, database: Database) -> Iterator[Flask]:
    """The web application on the real servers; nothing runs what it accepts unless the test does."""
    del database  # emptied before the application starts
    made = web.create_app(settings)
    yield made
    web.close(made)


@pytest.fixture
def client(flask: Flask) -> FlaskClient:
    return flask.test_client()


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny models, built once per process; a test that changes files copies it first."""
    torch = pytest.importorskip("torch", reason="the extra gpu is not installed")
    # The tests run in as many processes as there are cores; threads that wait for each other take minutes.
    torch.set_num_threads(1)
    from tests.engine import tiny  # noqa: PLC0415 - it needs the extra

    return tiny.build(tmp_path_factory.mktemp("weights"))
