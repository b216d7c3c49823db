"""Where weights lie below the models folder."""

from pathlib import Path

import pytest

from app.weights.folders import folder_of


@pytest.mark.parametrize(
    ("revision", "name"),
    [(None, "acme--base"), ("v1.0", "acme--base@v1.0"), ("refs/pr/5", "acme--base@refs--pr--5")],
)
def test_a_repository_lies_in_one_folder_whatever_its_revision_is_called(
    tmp_path: Path, revision: str | None, name: str
) -> None:
    assert folder_of(tmp_path, "acme/base", revision) == tmp_path / name
