"""An engine that has the tiny models in memory."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from workers.providers.diffusers import Diffusers


@pytest.fixture(scope="session")
def drawing(weights: Path) -> "Diffusers":
    """An engine of all tiny models, shared by the tests that leave it as it was."""
    from tests.engine import studio  # noqa: PLC0415 - it needs the extra

    return studio.engine(weights)
