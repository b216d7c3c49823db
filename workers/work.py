"""One job in this process, from its claim to its settle: what was read for it, and what came of it."""

from dataclasses import dataclass, field
from functools import cached_property

from PIL import Image

from app import imaging
from app.db.jobs import Claim
from app.domain.spec import JobSpec, StoredImage
from app.storage import Storage
from workers.finishing import Stored
from workers.leases import Held
from workers.providers.base import Attempt, Inputs, Share
from workers.stopwatch import Stopwatch


@dataclass
class Work:
    """A claimed job.

    Attributes:
        inputs: its decoded input images, once `read` was called.
        stored: outputs that lie in the store and are not yet visible, in order.
        warnings: sentences for the customer.
        notes: what the provider wants kept with the event that ends the attempt.
    """

    claim: Claim
    held: Held
    inputs: Inputs = field(default_factory=Inputs)
    stored: list[Stored] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: dict[str, object] = field(default_factory=dict)
    watch: Stopwatch = field(default_factory=Stopwatch)

    @cached_property
    def spec(self) -> JobSpec:
        """What is wanted."""
        return JobSpec.model_validate(self.claim.spec)

    @cached_property
    def attempt(self) -> Attempt:
        """How a provider talks to us."""
        return Attempt(
            check=self.held.check,
            progress=self.held.progress,
            step=self.held.at_step,
            stage=self.held.at,
            warn=self._warn,
            note=self.notes.__setitem__,
            paying=self.held.paying,
            model=self.claim.target_model or self.claim.model,
            job_id=self.claim.job_id,
            number=self.claim.attempt,
        )

    @property
    def share(self) -> Share:
        """Its part of a batch."""
        return Share(spec=self.spec, inputs=self.inputs, attempt=self.attempt)

    @property
    def detail(self) -> dict[str, object]:
        """What the event that ends the attempt keeps."""
        return {"seconds": self.watch.seconds, **self.notes}

    def read(self, storage: Storage) -> None:
        """Read and decode its input images, as its operation wants them.

        Raises:
            StorageDown, ObjectMissing, ObjectCorrupt: the store does not give them.
            InvalidFields, UnsupportedMedia: they cannot be decoded.
        """
        with self.watch.running("read"):
            self.inputs = _inputs(self.spec, storage)

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)


def _inputs(spec: JobSpec, storage: Storage) -> Inputs:
    if spec.image is None:
        return Inputs()
    if spec.transform is not None:
        return Inputs(
            image=_read(storage, spec.image, field="image", keep_alpha=True),
            watermarks=tuple(
                _read(storage, each, field="watermarks", keep_alpha=True) for each in spec.watermarks
            ),
        )
    size = {"width": spec.width, "height": spec.height}
    original = _read(storage, spec.image, field="image")
    image = imaging.prepare_image(original, **size)
    if spec.mask_image is None:
        return Inputs(image=image)
    by_alpha = spec.mask_from_alpha
    decoded = _read(storage, spec.mask_image, field="mask", keep_alpha=by_alpha)
    mask = imaging.prepare_mask(decoded, image_size=original.size, **size, from_alpha=by_alpha)
    return Inputs(image=image, mask_image=mask)


def _read(storage: Storage, stored: StoredImage, *, field: str, keep_alpha: bool = False) -> Image.Image:
    data = storage.get_verified(stored.key, sha256=stored.sha256)
    return imaging.decode(data, field=field, keep_alpha=keep_alpha)
