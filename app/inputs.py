"""Input images on their way into the store: each job has its own, so that one's purge takes nobody else's."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from app.domain.formats import ImageFormat
from app.domain.spec import JobSpec, StoredImage
from app.errors import Gone, ObjectMissing
from app.storage import Storage, input_key
from app.wish import Wish


@dataclass(frozen=True, kw_only=True)
class Input:
    """An input image in the store; `row` is its line of table inputs."""

    image: StoredImage
    row: dict[str, object]


class Inputs:
    """Stores input images; thread-safe. Every method may raise StorageDown, and then nothing was accepted."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def store(self, wish: Wish, *, account_id: UUID) -> dict[str, Input]:
        """Store the images of a wish; gives them by role: image, mask_image, watermark_0 …"""
        uploads = {"image": wish.image, "mask_image": wish.mask_image}
        uploads |= {f"watermark_{number}": upload for number, upload in enumerate(wish.watermarks)}
        upload_id = uuid7()
        stored = {}
        for role, upload in uploads.items():
            if upload is None:
                continue
            image = StoredImage(
                key="", sha256=_sha256(upload.data), width=upload.header.width, height=upload.header.height
            )
            stored[role] = self._put(
                upload.data, image, upload.format, role=role, account_id=account_id, upload_id=upload_id
            )
        return stored

    def copy(self, spec: JobSpec, *, account_id: UUID) -> dict[str, Input]:
        """Store the images of another job's spec once more, by role.

        Raises:
            Gone: one of them was purged meanwhile.
        """
        images: dict[str, StoredImage | None] = {"image": spec.image, "mask_image": spec.mask_image}
        images |= {f"watermark_{number}": image for number, image in enumerate(spec.watermarks)}
        upload_id = uuid7()
        copied = {}
        for role, image in images.items():
            if image is None:
                continue
            try:
                data = self._storage.get_verified(image.key, sha256=image.sha256)
            except ObjectMissing:
                raise Gone(
                    "The job's input images were deleted meanwhile; send a new request with them."
                ) from None
            copied[role] = self._put(
                data, image, _format_of(image.key), role=role, account_id=account_id, upload_id=upload_id
            )
        return copied

    def forget(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Delete the images of a request that made no job of its own."""
        if rows:
            self._storage.delete([str(row["key"]) for row in rows])

    def _put(
        self,
        data: bytes,
        image: StoredImage,
        image_format: ImageFormat,
        *,
        role: str,
        account_id: UUID,
        upload_id: UUID,
    ) -> Input:
        key = input_key(
            account_id,
            datetime.now(UTC).date(),
            upload_id=upload_id,
            role=role,
            sha256=image.sha256,
            extension=image_format.extension,
        )
        self._storage.put(key, data, media_type=image_format.media_type)
        row: dict[str, object] = {"key": key, "role": role, "sha256": image.sha256, "size": len(data)}
        return Input(image=image.model_copy(update={"key": key}), row=row)


def with_inputs(spec: JobSpec, inputs: Mapping[str, Input]) -> JobSpec:
    """Give the spec with these images in place of its own."""
    images = {role: stored.image for role, stored in inputs.items()}
    return spec.model_copy(
        update={
            "image": images.get("image"),
            "mask_image": images.get("mask_image"),
            "watermarks": watermarks_of(images),
        }
    )


def watermarks_of(images: Mapping[str, StoredImage]) -> tuple[StoredImage, ...]:
    """Give the images of the roles watermark_0, watermark_1 …, in this order."""
    return tuple(image for role, image in images.items() if role.startswith("watermark_"))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _format_of(key: str) -> ImageFormat:
    extension = key.rsplit(".", 1)[-1]
    return next((each for each in ImageFormat if each.extension == extension), ImageFormat.PNG)
