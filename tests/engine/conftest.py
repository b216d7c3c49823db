"""An engine that has the tiny models in memory, and a quick search for garbage."""

import gc
from collections.abc import Iterator
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


@pytest.fixture(scope="module")
def few_objects() -> Iterator[None]:
    """Keep what the libraries are made of out of each search for garbage, which takes longer than drawing."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
