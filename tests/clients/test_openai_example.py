"""examples/openai_client.py, a service written with OpenAI's library, with only base URL and key changed."""

import subprocess
import sys
from pathlib import Path

from PIL import Image

from app.db import Database
from app.settings import Settings
from app.storage import Storage
from tests.conftest import Account
from tests.serving import serving

ROOT = Path(__file__).parents[2]


def test_a_service_written_for_openai_moves_in_with_base_url_and_key(
    settings: Settings, database: Database, storage: Storage, account: Account, tmp_path: Path
) -> None:
    with serving(settings, database, storage) as url:
        run = subprocess.run(
            [
                *(sys.executable, ROOT / "examples" / "openai_client.py", "--base-url", f"{url}/v1"),
                *("--key", account.key, "--output", tmp_path),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    assert run.returncode == 0, run.stdout + run.stderr
    with Image.open(tmp_path / "valley.png") as day, Image.open(tmp_path / "night.png") as night:
        assert day.size == night.size == (512, 512)
        lower, upper = (0, 256, 512, 512), (0, 0, 512, 256)
        assert day.crop(lower).tobytes() == night.crop(lower).tobytes()
        assert day.crop(upper).tobytes() != night.crop(upper).tobytes()
