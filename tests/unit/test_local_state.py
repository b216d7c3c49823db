"""What a state folder remembers, and the pauses between restarts."""

import socket
from datetime import timedelta
from pathlib import Path

import pytest

from app.errors import SetupError
from app.local import state
from app.local.supervisor import backoff


def test_secrets_are_made_once(tmp_path: Path) -> None:
    first = state.recall(tmp_path)
    state.remember(tmp_path, first)
    assert state.recall(tmp_path) == first
    assert len(set(first["secrets"].values())) == 5
    assert min(len(secret) for secret in first["secrets"].values()) >= 32


def test_a_damaged_memory_is_not_replaced_by_fresh_secrets(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text("{")
    with pytest.raises(SetupError, match="is damaged"):
        state.recall(tmp_path)
    assert (tmp_path / "stack.json").read_text() == "{"


def test_a_private_file_is_never_readable_by_others(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("old")
    file.chmod(0o644)
    state.write_private(file, "new")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [file]


def test_a_port_stays_the_same_while_it_is_free() -> None:
    memory = state.Memory(ports={}, secrets={})
    port = state.settle_port(memory, "s3")
    assert port in state.PORTS
    assert state.settle_port(memory, "s3") == port
    assert state.settle_port(memory, "valkey") != port


def test_a_taken_port_is_replaced() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        memory = state.Memory(ports={"s3": port}, secrets={})
        assert state.settle_port(memory, "s3") != port


def test_a_new_state_folder_is_nobody_elses_to_read(tmp_path: Path) -> None:
    folder = state.open_folder(tmp_path / "new" / "state")
    assert folder.stat().st_mode & 0o066 == 0


def test_a_file_is_no_state_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="name another"):
        state.open_folder(tmp_path / "file")


def test_a_folder_below_a_file_is_no_state_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="cannot be used"):
        state.open_folder(tmp_path / "file" / "state")


def test_pauses_double_up_to_half_a_minute() -> None:
    pauses = [backoff(failures=number) for number in (1, 2, 3, 4, 5, 6, 7, 8, 1000)]
    assert pauses == [timedelta(seconds=seconds) for seconds in (0.5, 1, 2, 4, 8, 16, 30, 30, 30)]
