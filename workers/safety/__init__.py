"""Whether an image may be shown: asked of a service, of a model in a folder, or of nobody."""

from typing import Protocol

from PIL import Image

from app.errors import SafetyMissing
from app.settings import Settings
from workers.safety import folder, http

__all__ = ["Checker", "open_checker", "verify"]


class Checker(Protocol):
    """Who looks at an image before it is stored; `tests/contracts/test_checkers.py` holds each to it.

    One instance serves a whole process, from several threads at a time.
    """

    def flagged(self, image: Image.Image) -> bool:
        """Whether the image must not be shown; every part of it is looked at, transparent ones too.

        Args:
            image: of any mode and size; it is left as it was.

        Raises:
            SafetyDown: nobody could look; the attempt is repeated, as an unchecked image is no checked one.
        """
        ...


class Nobody:
    """Who looks where nobody is configured and unchecked images are not delivered."""

    def flagged(self, image: Image.Image) -> bool:
        """Never give a verdict.

        Raises:
            SafetyMissing: always; another attempt would find nobody either.
        """
        del image
        raise SafetyMissing


def open_checker(settings: Settings) -> Checker | None:
    """Give the configured checker; None where there is none, and then no image is called checked.

    Reads no file and connects to nothing, as most processes never check an image.
    """
    if settings.safety_url is not None:
        return http.HttpChecker(settings.safety_url)
    if settings.safety_folder is not None:
        return folder.FolderChecker(settings)
    return Nobody() if settings.safety_required else None


def verify(settings: Settings) -> None:
    """Look whether the configured checker can work here, without asking it or loading its model.

    Raises:
        SetupError: the address cannot be one, the folder holds no model that can be used, or its libraries
            are not installed; the message names the setting and the remedy.
    """
    if settings.safety_url is not None:
        http.verify(settings.safety_url)
    elif settings.safety_folder is not None:
        folder.find(settings)
