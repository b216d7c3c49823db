"""A job's part of what is being drawn: which of its images are there, how far it is, whether it ended."""

from collections.abc import Sequence
from typing import Final

from PIL import Image

from app.domain.effective import effective
from app.domain.profiles import Profile
from app.domain.spec import Operation
from app.errors import AttemptEnded, DarkroomError, ModelUnavailable, ProviderRefused
from workers.providers.base import Picture, Share
from workers.providers.diffusers.calls import Row, Shape

ENGINE: Final = "diffusers"


class Part:
    """The images of one share that are to be drawn now.

    Args:
        indices: which of the job's images, from 0, without gaps; those before them are drawn already.

    Raises:
        ProviderRefused: this profile cannot draw the share's spec.
    """

    def __init__(self, share: Share, profile: Profile, *, indices: Sequence[int]) -> None:
        _check(share, profile)
        made = effective(share.spec, profile)
        self.shape = Shape.of(share.spec, profile)
        self.wording = (share.spec.prompt, made.negative_prompt)
        self._share = share
        self._profile = profile
        self._indices = indices
        self._pictures: dict[int, Picture] = {}
        self._batch_sizes: list[int] = []
        self._failed: DarkroomError | None = None
        self._furthest = 0.0
        # In the file, beside the prompt: what it was drawn with, which is not always what was asked for.
        self._drawn_with = {
            "num_inference_steps": str(made.num_inference_steps),
            "guidance_scale": str(made.guidance_scale),
        }
        for warning in made.warnings:
            self.warn(warning)

    @property
    def needs_no_model(self) -> bool:
        """Whether nothing is to change: with strength 0 SDXL breaks and Flux refuses."""
        return self.shape.operation is not Operation.TEXT_TO_IMAGE and self.shape.strength == 0

    @property
    def waiting(self) -> Sequence[int]:
        """The images that are still to be drawn; none once it failed."""
        return () if self._failed is not None else self._indices[len(self._pictures) :]

    def row(self, index: int) -> Row:
        """Give what the model gets to draw one of its images."""
        return Row(
            wording=self.wording,
            seed=self._share.spec.seed_of(index),
            image=self._share.inputs.image,
            mask_image=self._share.inputs.mask_image,
        )

    def warn(self, sentence: str) -> None:
        """Tell the customer something about the parameters."""
        self._share.attempt.warn(sentence)

    def stage(self, name: str) -> None:
        """Tell what is going on: `loading` or `generating`."""
        self._share.attempt.stage(name)

    def check(self) -> bool:
        """Give whether it goes on; an attempt that ended is not asked again."""
        if self._failed is None:
            try:
                self._share.attempt.check()
            except AttemptEnded as ended:
                self._failed = ended
        return self._failed is None

    def note(self, name: str, value: object) -> None:
        """Tell an admin something about how it was drawn."""
        self._share.attempt.note(name, value)

    def fail(self, error: DarkroomError) -> None:
        """End it without pictures, unless it ended before."""
        self._failed = self._failed or error

    def at(self, step: int, steps: int, *, rows: int) -> None:
        """Tell how far it is: `step` of `steps` are done in a call that draws `rows` of its images."""
        images, drawn = self._share.spec.num_images, self._drawn
        # One step more, for decoding: only a picture that is there counts as whole.
        if self._tell((drawn + rows * step / (steps + 1)) / images):
            self._share.attempt.step(drawn * steps + rows * step, images * steps)

    def drew(self, image: Image.Image | None, *, batch_size: int) -> None:
        """Take its next image, drawn in a call of so many rows; None is one that cannot be shown."""
        if image is None:
            self.fail(_no_number(self._profile))
        if self._failed is not None or image is None:
            return
        index = self._indices[len(self._pictures)]
        notes = {"engine": ENGINE, "model": self._share.attempt.model, **self._drawn_with}
        self._pictures[index] = Picture(image=image, seed=self._share.spec.seed_of(index), notes=notes)
        self._batch_sizes.append(batch_size)
        self._tell(self._drawn / self._share.spec.num_images)

    def copy_input(self) -> None:
        """Give the input back for each image."""
        assert self._share.inputs.image is not None  # _check saw to it
        for _ in self.waiting:
            if self.check():
                self.drew(self._share.inputs.image.copy(), batch_size=0)

    def result(self) -> list[Picture] | DarkroomError:
        """Give its pictures, in order, or why it has none."""
        if self._failed is not None:
            return self._failed
        # For an exact replay: only in a call of as many rows can a picture be the same to the bit.
        self._share.attempt.note("batch_sizes", self._batch_sizes)
        return list(self._pictures.values())

    @property
    def _drawn(self) -> int:
        return self._indices[0] + len(self._pictures)

    def _tell(self, share: float) -> bool:
        """Pass on how far it is, unless that is less than before: rows may have to be drawn again."""
        if share < self._furthest:
            return False
        self._furthest = share
        self._share.attempt.progress(share)
        return True


def _check(share: Share, profile: Profile) -> None:
    spec, inputs, multiple = share.spec, share.inputs, profile.size_multiple
    if spec.width % multiple or spec.height % multiple:
        raise ProviderRefused(
            f"width and height must be multiples of {multiple} for {profile.name}, "
            f"not {spec.width} and {spec.height}"
        )
    if spec.operation is not Operation.TEXT_TO_IMAGE and inputs.image is None:
        raise ProviderRefused(f"{spec.operation} needs an input image")
    if spec.operation is Operation.INPAINT and inputs.mask_image is None:
        raise ProviderRefused("inpaint needs a mask")


def _no_number(profile: Profile) -> DarkroomError:
    return ModelUnavailable(
        f"profile {profile.name} calculated something that is no number in {profile.dtype}; "
        "give it `dtype: bfloat16`, or a VAE made for float16"
    )
