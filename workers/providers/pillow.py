"""Changes a given image, without a model: resize, crop, rotate, watermark and their like."""

from collections.abc import Iterator

from PIL import Image

from app.domain.spec import JobSpec
from app.domain.transform import Transform, problems_with
from app.errors import InvalidFields, ProviderRefused
from app.imaging.transform import transformed
from workers.providers.base import Attempt, Inputs, Picture


class Pillow:
    """Does one transform to one image; the same inputs give the same bits. It holds no state.

    Costs about a second of one core at 16 megapixels, and five where a background is removed.
    """

    name = "pillow"

    def generate(self, spec: JobSpec, inputs: Inputs, attempt: Attempt) -> Iterator[Picture]:
        """Yield what comes of the image.

        Raises:
            ProviderRefused: the spec is no transformation, an input is missing, or the image as it was
                decoded does not allow it; the message names the remedy.
            AttemptEnded: passed on from `attempt.check`, which is called before and after the work.
        """
        transform, image = spec.transform, inputs.image
        if transform is None or image is None:
            raise ProviderRefused(f"pillow changes a given image; it does not do {spec.operation}")
        attempt.check()
        _refuse_problems(spec, transform, image, inputs)
        try:
            result = transformed(
                image,
                transform,
                watermarks=inputs.watermarks,
                keeps_alpha=spec.output_format.has_alpha,
            )
        except InvalidFields as refusal:
            raise ProviderRefused(refusal.message) from refusal
        attempt.check()
        attempt.step(1, 1)
        attempt.progress(1.0)
        yield Picture(image=result, seed=spec.seed, notes={"engine": self.name})


def _refuse_problems(spec: JobSpec, transform: Transform, image: Image.Image, inputs: Inputs) -> None:
    """Look again at what the door saw by the file's header alone: the pixels decide."""
    if len(inputs.watermarks) != len(spec.watermarks):
        raise ProviderRefused("a watermark is missing")
    sizes = [watermark.size for watermark in inputs.watermarks]
    if problems := problems_with(transform, *image.size, spec.output_format, watermarks=sizes):
        raise ProviderRefused(InvalidFields(*problems).message)
