"""Settings: where they come from, and what is said when one is missing or wrong."""

from datetime import timedelta
from pathlib import Path

import pytest

from app import settings, settings_page
from app.db.queues import ALIVE_WITHIN
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
    for wrong in ("soon", "PT", "1e99"):
        with pytest.raises(SetupError) as caught:
            settings.load(state, retention=wrong)
        assert caught.value.message == (
            "DARKROOM_RETENTION: must be a number of seconds, or ISO 8601 such as PT24H"
        )


@pytest.mark.parametrize(
    ("written", "meant"),
    [("90", 90), ("0.5", 0.5), ("PT2M", 120), ("P1D", 86_400)],
)
def test_a_duration_is_seconds_or_iso_8601(state: Path, written: str, meant: float) -> None:
    with (state / settings.ENV_FILE).open("a") as file:
        file.write(f"DARKROOM_RETENTION={written}\nDARKROOM_PURGE_GRACE={written}\n")

    loaded = settings.load(state)

    assert loaded.retention == loaded.purge_grace == timedelta(seconds=meant)


@pytest.mark.parametrize("written", ["-1", "-PT1H"])
def test_nothing_may_be_purged_before_it_expires(state: Path, written: str) -> None:
    with pytest.raises(SetupError, match="DARKROOM_PURGE_GRACE"):
        settings.load(state, purge_grace=written)


def test_secrets_do_not_show_when_settings_are_printed(state: Path) -> None:
    printed = repr(settings.load(state))

    assert "hush" not in printed
    assert "0123456789abcdef" not in printed


def test_a_heartbeat_may_be_missed_twice_and_a_worker_is_never_taken_for_dead(state: Path) -> None:
    assert settings.load(state, lease=timedelta(seconds=15)).heartbeat == timedelta(seconds=5)
    assert settings.load(state, lease=timedelta(minutes=5)).heartbeat * 3 <= ALIVE_WITHIN


def test_every_setting_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()

    assert page == settings_page.as_markdown(), "run: darkroom settings > docs/settings.md"
