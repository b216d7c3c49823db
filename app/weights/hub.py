"""The Hugging Face hub, or a mirror of it: what a repository holds, and its files on our disk."""

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import SetupError
from app.settings import Settings

INSTALL = "install it with: make gpu"
_AT_A_TIME = 4
"""Files. One connection seldom fills the line; many fill the disk's queue."""


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository at one commit.

    Attributes:
        licence: what its page says, as the hub knows it; None: nothing.
        files: size in bytes by name.
    """

    id: str
    commit: str
    licence: str | None
    files: Mapping[str, int]


class Hub:
    """Asks the hub; holds no connection.

    Raises:
        SetupError: its client is not installed.
    """

    def __init__(self, settings: Settings) -> None:
        try:
            # Of the extra `gpu`, and wanted by one command.
            from huggingface_hub import HfApi, constants, errors, snapshot_download  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise SetupError(f"The hub's client is missing ({error}); {INSTALL}") from error
        self._api: Any = HfApi
        self._errors: Any = errors
        self._download: Any = snapshot_download
        self._endpoint: str = settings.hub_endpoint or constants.ENDPOINT
        self._token = settings.hub_token.get_secret_value() if settings.hub_token else None
        """None: what the client finds by itself, HF_TOKEN or a login."""

    def look(self, repository: str, revision: str | None) -> Repository:
        """Give what a repository holds at a branch, tag or commit; None is its main branch.

        Raises:
            SetupError: it cannot be had; the message says why and what to do.
        """
        with self._explained(repository, revision):
            api = self._api(endpoint=self._endpoint, token=self._token)
            info = api.model_info(repository, revision=revision, files_metadata=True)
            card = info.card_data
            return Repository(
                id=repository,
                commit=info.sha,
                licence=(card.get("license_name") or card.get("license")) if card else None,
                files={file.rfilename: file.size or 0 for file in info.siblings or ()},
            )

    def fetch(self, repository: Repository, names: Sequence[str], folder: Path) -> None:
        """Download files that are not in the folder yet; one that was half here comes anew.

        Raises:
            SetupError: not all of them came; what came so far is kept for the next try.
        """
        with self._explained(repository.id, repository.commit):
            self._download(
                repository.id,
                revision=repository.commit,
                local_dir=folder,
                allow_patterns=list(names),
                endpoint=self._endpoint,
                token=self._token,
                max_workers=_AT_A_TIME,
                library_name="darkroom",
            )
        # The client is content with what there is where it cannot reach the hub in the middle.
        wrong = [name for name in names if _size(folder / name) != repository.files[name]]
        if wrong:
            raise SetupError(
                f"{len(wrong)} of {len(names)} files of {repository.id} did not come, {wrong[0]} for one; "
                "run the same command again; files that are whole are kept"
            )

    @contextmanager
    def _explained(self, repository: str, revision: str | None) -> Iterator[None]:
        """Say in our words what the client raises inside."""
        import httpx2  # noqa: PLC0415 - the client's own, see above

        errors, at = self._errors, self._endpoint
        try:
            yield
        except errors.GatedRepoError as error:
            raise SetupError(
                f"{repository} wants its licence accepted first: do that on its page, {at}/{repository}, "
                "then set DARKROOM_HUB_TOKEN to a token of your account there"
            ) from error
        except errors.RevisionNotFoundError as error:
            raise SetupError(f"{repository} has no revision {revision!r}") from error
        except errors.RepositoryNotFoundError as error:
            raise SetupError(
                f"There is no repository {repository} at {at}; if it is a private one, set DARKROOM_HUB_TOKEN"
            ) from error
        except errors.HfHubHTTPError as error:
            status = error.response.status_code
            raise SetupError(f"{at} answered {status} for {repository}; try again later") from error
        except (httpx2.HTTPError, errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
            raise SetupError(
                f"{at} cannot be reached ({error}); run the same command again when it can; files "
                "that are whole are kept. A mirror: DARKROOM_HUB_ENDPOINT"
            ) from error
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise SetupError(f"The disk is full ({error}); free some space and run it again") from error
            raise SetupError(f"{repository} could not be downloaded: {error}") from error


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None
