"""examples/imgprocessing_client.py, a service written for the vendor's API: only base URL and key change."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from PIL import Image

from app.db import Database
from app.settings import Settings
from app.storage import Storage
from tests.album import ID, key_of
from tests.serving import serving

EXAMPLE = Path(__file__).parents[2] / "examples" / "imgprocessing_client.py"


@pytest.fixture
def address(settings: Settings, database: Database, storage: Storage) -> Iterator[str]:
    with serving(settings, database, storage) as address:
        yield address


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments], capture_output=True, text=True, timeout=90, check=False
    )


def test_the_service_draws_resizes_publishes_and_downloads(
    address: str, database: Database, settings: Settings, tmp_path: Path
) -> None:
    key, out = key_of(database, settings, "alice"), tmp_path / "card.jpg"

    ended = run("--base-url", f"{address}/v1", "--key", key, "--out", str(out))

    assert (ended.returncode, ended.stderr) == (0, "")
    about, url = ended.stdout.splitlines()
    assert re.fullmatch(rf"{ID} 320x320 jpeg {out.stat().st_size} bytes", about)
    with Image.open(out) as card:
        assert (card.format, card.size) == ("JPEG", (320, 320))
    assert url.startswith(f"{address}/outputs/")
    assert requests.get(url, timeout=10).content == out.read_bytes()


def test_the_service_understands_what_is_wrong(
    address: str, database: Database, settings: Settings, tmp_path: Path
) -> None:
    key = key_of(database, settings, "alice")
    to = ("--base-url", f"{address}/v1", "--out", str(tmp_path / "card.jpg"))

    wrong_key = run(*to, "--key", "live_wrong")
    wrong_prompt = run(*to, "--key", key, "--prompt", "x" * 1001)

    assert wrong_key.stderr.startswith("401 Unauthorized: This API key is not valid")
    assert wrong_prompt.stderr == "422 Unprocessable Entity: prompt: must have at most 1000 characters\n"
    assert not (tmp_path / "card.jpg").exists()
