"""From a picture just drawn to an output that lies in the store: checked, marked, encoded, uploaded."""

import hashlib
from dataclasses import dataclass

from PIL import Image
from uuid_utils.compat import uuid7

from app import __version__, imaging
from app.db.jobs import Claim
from app.domain.spec import JobSpec
from app.storage import Storage, output_key
from workers.providers.base import Picture
from workers.safety import Checker


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An output that lies in the store, not yet visible: a row of table outputs to be."""

    row: dict[str, object]
    key: str


class Finisher:
    """Makes outputs of pictures; thread-safe.

    Args:
        checker: who looks at images for jobs that ask for it; None: nobody does.
    """

    def __init__(self, storage: Storage, *, checker: Checker | None) -> None:
        self._storage = storage
        self._checker = checker

    def finish(self, claim: Claim, spec: JobSpec, index: int, picture: Picture) -> Stored:
        """Give the output, stored and not yet visible.

        Raises:
            SafetyDown: the checker could not look at it.
            StorageDown, ObjectCorrupt: the store did not take it.
        """
        image, flagged = self._checked(picture.image, spec)
        if spec.test:
            image = imaging.stamped(image)
        data = imaging.encode(
            image, spec.output_format, metadata=_metadata(claim, spec, picture), quality=spec.encoding_quality
        )
        sha256 = hashlib.sha256(data).hexdigest()
        key = output_key(
            claim.account_id,
            claim.created_at.date(),
            job_id=claim.job_id,
            attempt=claim.attempt,
            index=index,
            sha256=sha256,
            extension=spec.output_format.extension,
        )
        self._storage.put(key, data, media_type=spec.output_format.media_type)
        row: dict[str, object] = {
            "id": str(uuid7()),
            "index": index,
            "key": key,
            "sha256": sha256,
            "size": len(data),
            "width": picture.image.width,
            "height": picture.image.height,
            "format": spec.output_format.value,
            "seed": picture.seed,
            "flagged": flagged,
        }
        return Stored(row=row, key=key)

    def _checked(self, image: Image.Image, spec: JobSpec) -> tuple[Image.Image, bool | None]:
        """Give the image, or a blank one in its place, and what the checker found: None if nobody looked."""
        if not spec.safety_checker or self._checker is None:
            return image, None
        if not self._checker.flagged(image):
            return image, False
        return imaging.censored(image, spec.safety_checker_type), True


def _metadata(claim: Claim, spec: JobSpec, picture: Picture) -> dict[str, str]:
    """What is written into the image file beside its pixels; no ids of ours, as customers pass files on."""
    if spec.transform is not None:
        return {"Software": f"Darkroom {__version__}", **picture.notes}
    told = {
        "Software": f"Darkroom {__version__}",
        "prompt": spec.prompt,
        "negative_prompt": spec.negative_prompt,
        "model": claim.model,
        "seed": str(picture.seed),
        "num_inference_steps": str(spec.num_inference_steps),
        "guidance_scale": str(spec.guidance_scale),
        **picture.notes,
    }
    return {name: value for name, value in told.items() if value}
