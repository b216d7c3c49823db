"""examples/modelslab_client.py, a service written for ModelsLab's API: only base URL and key change."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from app.db import Database
from app.settings import Settings
from app.storage import Storage
from tests.conftest import Account
from tests.factories import picture
from tests.servers import strangers
from tests.serving import serving

EXAMPLE = Path(__file__).parents[2] / "examples" / "modelslab_client.py"


@pytest.fixture
def address(settings: Settings, database: Database, storage: Storage) -> Iterator[str]:
    with serving(
        settings.model_copy(update={"fetch_allow": (strangers.HERE,)}), database, storage
    ) as address:
        yield f"{address}/api"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, EXAMPLE, *arguments], capture_output=True, text=True, timeout=90, check=False
    )


def test_a_service_written_for_modelslab_moves_in_with_base_url_and_key(
    address: str, account: Account, tmp_path: Path
) -> None:
    with strangers.stranger(strangers.answers(picture(64, 48), "Content-Type: image/png")) as host:
        ended = run(
            *("--base-url", address, "--key", account.key),
            *("--picture", f"{host.url}/bench.png", "--output", tmp_path),
        )

    assert (ended.returncode, ended.stderr) == (0, "")
    (saved,) = tmp_path.iterdir()
    assert ended.stdout.startswith(f"{saved}: ")
    with Image.open(saved) as image:
        assert (image.format, image.size) == ("PNG", (512, 512))


def test_the_service_comes_back_for_what_was_queued(address: str, account: Account, tmp_path: Path) -> None:
    file = tmp_path / "bench.jpg"
    file.write_bytes(picture(64, 48, kind="JPEG"))

    ended = run(
        *("--base-url", address, "--key", account.key, "--queue"),
        *("--picture", file, "--output", tmp_path / "made"),
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    (saved,) = (tmp_path / "made").iterdir()
    assert saved.read_bytes().startswith(b"\x89PNG")


def test_the_service_understands_what_is_wrong(address: str, account: Account, tmp_path: Path) -> None:
    file = tmp_path / "bench.jpg"
    file.write_bytes(picture(64, 48, kind="JPEG"))
    to = ("--base-url", address, "--output", tmp_path / "made", "--picture", file)

    wrong_key = run(*to, "--key", "wrong")
    wrong_prompt = run(*to, "--key", account.key, "--prompt", " ")

    assert wrong_key.stderr == "HTTP 401: Invalid API key\n"
    assert wrong_prompt.stderr == "HTTP 400: The prompt field is required.\n"
    assert not (tmp_path / "made").exists()
