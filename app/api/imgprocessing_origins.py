"""Where IMG Processing fetches images from: big stores, our own outputs, and what the operator allows."""

import re
from fnmatch import fnmatchcase
from typing import Final

from app import safe_http
from app.errors import FieldProblem, ForbiddenAddress, InvalidFields, Unreachable
from app.safe_http.allow import AllowList
from app.safe_http.urls import parse
from app.settings import Settings

HOSTS: Final = (
    "storage.img-processing.com",
    "*.s3.*.amazonaws.com",
    "*.s3.amazonaws.com",
    "s3.amazonaws.com",
    "*.blob.core.windows.net",
    "*.r2.dev",
    "www.dropbox.com",
    "storage.googleapis.com",
    "drive.google.com",
    "1drv.ms",
)
"""The vendor's own list; all over https."""
_OURS: Final = re.compile(r"/outputs/[0-9a-f]{32}-[0-9]{1,2}\.(?:png|jpg|webp)")
_REFUSAL: Final = (
    "must be an https URL at one of "
    + ", ".join(HOSTS)
    + "; upload the image instead, or ask your Darkroom operator to allow its host"
)


class Origins:
    """Tells allowed origins from others; thread-safe.

    Raises:
        SetupError: an entry of DARKROOM_FETCH_ALLOW is malformed.
    """

    def __init__(self, settings: Settings) -> None:
        self._guard = safe_http.for_fetch(settings)
        self._allowed = AllowList(settings.fetch_allow, setting="DARKROOM_FETCH_ALLOW")
        self._asks = bool(settings.fetch_allow)

    def refuse_others(self, url: str, *, base_url: str) -> None:
        """Let a URL of an allowed origin pass; where it leads, the guard checks when it is fetched.

        Args:
            base_url: where customers reach us; an output of ours there may have any scheme.

        Raises:
            InvalidFields: it is of another origin, or no URL.
        """
        if base_url and url.startswith(base_url) and _OURS.fullmatch(url[len(base_url) :]):
            return
        try:
            target = parse(url)
            if target.scheme == "https" and any(fnmatchcase(target.host, host) for host in HOSTS):
                return
            if self._asks and self._is_allowed(url):
                return
        except (ForbiddenAddress, Unreachable) as error:
            raise _refusal(error.message) from error
        raise _refusal(_REFUSAL)

    def _is_allowed(self, url: str) -> bool:
        found = self._guard.check(url)
        return any(self._allowed.covers(found.host, address, found.port) for address in found.addresses)


def _refusal(message: str) -> InvalidFields:
    return InvalidFields(FieldProblem(field="url", message=message))
