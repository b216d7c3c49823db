"""Where weights lie below DARKROOM_MODELS_FOLDER."""

from pathlib import Path


def folder_of(root: Path, source: str, revision: str | None = None) -> Path:
    """Give the folder of a profile's `source`, whether it is there or not.

    An absolute path is itself. A folder that exists below `root` is that. Anything else is a repository's id,
    `owner/name`, which lies below `root` as `owner--name`, and with a revision as `owner--name@revision`.
    """
    given = Path(source)
    if given.is_absolute():
        return given
    if (root / given).is_dir():
        return root / given
    name = source.replace("/", "--")
    return root / (name if revision is None else f"{name}@{revision.replace('/', '--')}")
