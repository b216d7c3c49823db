"""Input images that a request names: as a URL, as a data URI, as base64, or as an image of ours.

Every one comes back as an `Upload`: bytes whose header was looked at, and which intake then stores.
"""

import binascii
import re
from typing import Final
from uuid import UUID

from app import imaging
from app.db import Database, outputs
from app.db.history import OutputRow
from app.domain.transform import MAX_RESULT_SIDE
from app.errors import (
    FieldProblem,
    ForbiddenAddress,
    InvalidFields,
    ObjectMissing,
    TooLarge,
    Unreachable,
    UnsupportedMedia,
)
from app.safe_http import Guard
from app.settings import Settings
from app.storage import Storage
from app.wish import Upload

_DATA_URI: Final = re.compile(r"data:(?:[\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[^;,]*)*;base64,", re.IGNORECASE)
_OURS: Final = re.compile(r"/outputs/(?P<prefix>[0-9a-f]{32})-(?P<index>[0-9]{1,2})\.(?:png|jpg|webp|base64)")
_LONGEST_URL: Final = 2048
_LONGEST_HEAD: Final = 1000
"""Characters of what a data URI says before its image."""
_HOW: Final = "must be an http(s) URL, a data URI (data:image/png;base64,…) or base64 text of an image"


class Sources:
    """Finds input images; thread-safe, one per web process."""

    def __init__(self, settings: Settings, *, database: Database, storage: Storage, guard: Guard) -> None:
        self._settings = settings
        self._database = database
        self._storage = storage
        self._guard = guard

    def named(self, text: str, *, field: str, base_url: str, accepted: tuple[str, ...]) -> Upload:
        """Give the image behind a URL, a data URI or base64 text.

        A URL of an output of ours is read from the store, so that it also works where the guard would not
        let us call ourselves.

        Args:
            field: the public name, for what is wrong with it.
            base_url: where customers reach us.
            accepted: formats, of `imaging.FORMATS`.

        Raises:
            InvalidFields: it is none of these, cannot be fetched, or is no image that is accepted.
            StorageDown, DatabaseDown: an output of ours cannot be read at the moment.
        """
        text = text.strip()
        if text[: len("https://")].lower().startswith(("http://", "https://")):
            data = self._ours(text, field=field, base_url=base_url) or self._fetched(text, field=field)
        else:
            data = self._decoded(text, field=field)
        try:
            return self.uploaded(data, field=field, accepted=accepted)
        except UnsupportedMedia as error:
            # The body itself has the right media type; it is this member that has not.
            message = error.message.removeprefix(f"{field}: ")
            raise InvalidFields(FieldProblem(field=field, message=message)) from None

    def uploaded(
        self,
        data: bytes,
        *,
        field: str,
        accepted: tuple[str, ...],
        max_side: int = imaging.MAX_SIDE,
    ) -> Upload:
        """Give an image that came in as bytes, its header looked at.

        Raises:
            UnsupportedMedia: it is no image that is accepted.
            InvalidFields: it is too large, animated or broken.
        """
        header = imaging.inspect(
            data,
            field=field,
            max_pixels=self._settings.max_image_pixels,
            max_side=max_side,
            accepted=accepted,
        )
        return Upload(field=field, data=data, header=header)

    def output(self, row: OutputRow, *, field: str) -> Upload:
        """Give an output of ours as an input.

        Raises:
            InvalidFields: it was deleted meanwhile.
            StorageDown: it cannot be read at the moment.
        """
        try:
            data = self._storage.get_verified(row.key, sha256=row.sha256)
        except ObjectMissing:
            raise InvalidFields(
                FieldProblem(field=field, message="names an image that was deleted")
            ) from None
        # What we made may be longer than what we take, and must not become a dead end.
        return self.uploaded(data, field=field, accepted=imaging.FORMATS, max_side=MAX_RESULT_SIDE)

    def _ours(self, url: str, *, field: str, base_url: str) -> bytes | None:
        if not base_url or not url.startswith(f"{base_url}/"):
            return None
        match = _OURS.fullmatch(url.removeprefix(base_url))
        if match is None:
            return None
        with self._database.autocommit() as tx:
            row = outputs.by_name(tx, prefix=UUID(hex=match["prefix"]), index=int(match["index"]))
        if row is None:
            raise InvalidFields(FieldProblem(field=field, message="names an image that is not there (yet)"))
        if row.expired:
            message = "names an image that has expired; send the image itself"
            raise InvalidFields(FieldProblem(field=field, message=message))
        return self.output(row, field=field).data

    def _fetched(self, url: str, *, field: str) -> bytes:
        if len(url) > _LONGEST_URL:
            message = f"must be a URL of at most {_LONGEST_URL:,} characters"
            raise InvalidFields(FieldProblem(field=field, message=message))
        try:
            return self._guard.fetch(url, accept="image/*").data
        except (ForbiddenAddress, TooLarge, Unreachable) as error:
            raise InvalidFields(FieldProblem(field=field, message=error.message)) from error

    def _decoded(self, text: str, *, field: str) -> bytes:
        match = _DATA_URI.match(text, 0, _LONGEST_HEAD)
        encoded = text[match.end() :] if match else text
        limit = self._settings.max_upload_bytes
        if len(encoded) > limit * 4 // 3 + 4:
            raise InvalidFields(
                FieldProblem(field=field, message=f"must be an image of at most {limit:,} bytes")
            )
        try:
            # Line breaks are what many encoders put in; anything else is refused. A regular expression that
            # takes them out holds up everybody for seconds where there are millions.
            data = binascii.a2b_base64(encoded.encode().translate(None, b"\r\n "), strict_mode=True)
        except (binascii.Error, ValueError):
            data = b""
        if not data:
            raise InvalidFields(FieldProblem(field=field, message=_HOW))
        return data
