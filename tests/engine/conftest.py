"""The tiny models, built once per process, and an engine that has them in memory."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from workers.providers.diffusers import Diffusers


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny models; a test that changes files copies it first."""
    pytest.importorskip("torch", reason="the extra gpu is not installed")
    from tests.engine import tiny  # noqa: PLC0415 - it needs the extra

    return tiny.build(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def drawing(weights: Path) -> "Diffusers":
    """An engine of all tiny models, shared by the tests that leave it as it was."""
    from tests.engine import studio  # noqa: PLC0415 - it needs the extra

    return studio.engine(weights)
