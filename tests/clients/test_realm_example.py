"""examples/realm_client.py, a service written for Realm's API, with nothing changed but base URL and key."""

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


def test_a_service_written_for_realm_moves_in_with_base_url_and_key(
    settings: Settings, database: Database, storage: Storage, account: Account, tmp_path: Path
) -> None:
    with serving(settings, database, storage) as url:
        run = subprocess.run(
            [
                *(sys.executable, ROOT / "examples" / "realm_client.py", "--base-url", f"{url}/v1"),
                *("--key", account.key, "--output", tmp_path),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    assert run.returncode == 0, run.stdout + run.stderr
    for name in ("portrait.png", "winter.png"):
        with Image.open(tmp_path / name) as image:
            assert image.size == (512, 512)
