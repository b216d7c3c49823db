"""Secrets at rest: encrypted, readable under every key that is configured, and moved to the newest one."""

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from app import webhooks
from app.db import Database, sealed
from app.db.tables import metadata
from app.domain.webhook import Form
from app.errors import SetupError
from app.settings import Settings
from app.vault import Vault
from tests import rows
from tests.conftest import Account


def with_keys(settings: Settings, *keys: bytes) -> Settings:
    text = ",".join(key.decode() for key in keys)
    return settings.model_copy(update={"encryption_keys": SecretStr(text)})


def test_after_a_rotation_only_the_new_key_is_needed(
    settings: Settings, database: Database, account: Account
) -> None:
    old, new = Fernet.generate_key(), Fernet.generate_key()
    webhooks.endpoint_of_request(
        database,
        Vault(with_keys(settings, old)),
        account_id=account.id,
        url="https://hooks.example/a",
        form=Form.JOBS,
    )
    with database.transaction() as tx:
        assert sealed.change_all(tx, Vault(with_keys(settings, new, old)).rotate) == 1

    (row,) = rows.query(database, "SELECT secret FROM webhook_endpoints")
    assert Vault(with_keys(settings, new)).decrypt(row.secret).startswith("whsec_")
    with pytest.raises(SetupError, match="DARKROOM_ENCRYPTION_KEYS"):
        Vault(with_keys(settings, old)).decrypt(row.secret)


def test_a_key_that_is_none_is_told_with_the_remedy(settings: Settings) -> None:
    with pytest.raises(SetupError, match="generate_key"):
        Vault(with_keys(settings, b"too short"))


def test_without_keys_of_its_own_a_vault_follows_from_the_secret_key(settings: Settings) -> None:
    token = Vault(settings).encrypt("s3cret")

    assert Vault(settings).decrypt(token) == "s3cret"
    assert "s3cret" not in token
    other = settings.model_copy(update={"secret_key": SecretStr("another secret key of 32 letters")})
    with pytest.raises(SetupError):
        Vault(other).decrypt(token)


def test_every_column_that_says_encrypted_is_gone_through() -> None:
    encrypted = {
        (table.name, column.name)
        for table in metadata.tables.values()
        for column in table.columns
        if "encrypted" in (column.comment or "")
    }

    assert encrypted == set(sealed.SEALED)
