"""Whether an image may be shown: asked of a safety service, and of nobody where none is configured."""

import io
from typing import Final, Protocol

import requests
from PIL import Image

from app.errors import SafetyDown
from app.settings import Settings

_TIMEOUT: Final = (3.0, 20.0)
"""Seconds to connect, and to wait for the verdict."""
_LONGEST_SIDE: Final = 768
"""Pixels; classifiers look at 224 to 448, and a smaller image is a shorter wait."""


class Checker(Protocol):
    """Who looks at an image before it is stored."""

    def flagged(self, image: Image.Image) -> bool:
        """Whether the image must not be shown.

        Raises:
            SafetyDown: nobody could look; the attempt is repeated, as an unchecked image is no checked one.
        """
        ...


class HttpChecker:
    """Asks an HTTP service: POST of the image as PNG, answered by JSON with a boolean `flagged`.

    The address comes from the operator, so it is not guarded like a customer's.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def flagged(self, image: Image.Image) -> bool:
        """See `Checker`."""
        small = image.convert("RGB")
        small.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
        file = io.BytesIO()
        small.save(file, "PNG", compress_level=1)
        try:
            answer = requests.post(
                self._url,
                data=file.getvalue(),
                headers={"Content-Type": "image/png", "Accept": "application/json"},
                timeout=_TIMEOUT,
            )
            answer.raise_for_status()
            verdict = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise SafetyDown(f"The safety service at {self._url} does not answer: {error}") from error
        found = verdict.get("flagged") if isinstance(verdict, dict) else None
        if not isinstance(found, bool):
            raise SafetyDown(f'The safety service at {self._url} must answer {{"flagged": true or false}}.')
        return found


def open_checker(settings: Settings) -> Checker | None:
    """Give the configured checker; None where there is none, and then no image is called checked."""
    return HttpChecker(settings.safety_url) if settings.safety_url else None
