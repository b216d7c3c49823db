"""Settings: where they come from, and what is said when one is missing or wrong."""

from datetime import timedelta
from pathlib import Path

import pytest

from app import settings
from app.errors import SetupError

COMPLETE = """
DARKROOM_DATABASE_URL=postgresql://somebody@127.0.0.1/darkroom
DARKROOM_BROKER_URL=redis://127.0.0.1
DARKROOM_S3_ENDPOINT=http://127.0.0.1:1
DARKROOM_S3_ACCESS_KEY=access
DARKROOM_S3_SECRET_KEY=hush
DARKROOM_SECRET_KEY=0123456789abcdef0123456789abcdef
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / settings.ENV_FILE).write_text(COMPLETE)
    return tmp_path


def test_a_state_folders_file_gives_the_settings(state: Path) -> None:
    loaded = settings.load(state)

    assert loaded.s3_endpoint == "http://127.0.0.1:1"
    assert loaded.state == state


def test_a_missing_setting_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"DARKROOM_DATABASE_URL.*darkroom up"):
        settings.load(tmp_path)


def test_contradicting_settings_name_both(state: Path) -> None:
    with pytest.raises(SetupError, match=r"DARKROOM_LEASE.*DARKROOM_JOB_DEADLINE"):
        settings.load(state, lease=timedelta(hours=1), job_deadline=timedelta(minutes=1))


def test_a_wrong_value_names_its_setting(state: Path) -> None:
    with pytest.raises(SetupError, match="DARKROOM_RETENTION"):
        settings.load(state, retention="soon")


def test_secrets_do_not_show_when_settings_are_printed(state: Path) -> None:
    printed = repr(settings.load(state))

    assert "hush" not in printed
    assert "0123456789abcdef" not in printed


def test_a_heartbeat_may_be_missed_twice(state: Path) -> None:
    loaded = settings.load(state, lease=timedelta(seconds=30))

    assert loaded.heartbeat * 3 == loaded.lease


def test_every_setting_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()

    assert page == settings.as_markdown(), "run: darkroom settings > docs/settings.md"
