"""What somebody wants, in nobody's dialect. Field names are those of diffusers' pipelines."""

from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.domain.formats import ImageFormat
from app.domain.transform import MAX_WATERMARKS, Convert, Transform, Watermark

CensorKind = Literal["black", "blur", "pixelate", "sensitive_content_text"]
"""What stands in place of an image that the safety checker flagged."""

__all__ = ["MAX_PROMPT", "MAX_SEED", "CensorKind", "ImageFormat", "JobSpec", "Operation", "StoredImage"]

MAX_SEED: Final = 2**63 - 1
"""Largest seed: what Postgres' bigint holds; torch takes up to 2**64 - 1."""
MAX_PROMPT: Final = 10_000
"""Longest prompt in characters. Text encoders cut at 77 to 512 tokens; this only bounds the row."""


class Operation(StrEnum):
    """What is done; each model of the catalogue says which of these it can do."""

    TEXT_TO_IMAGE = "text_to_image"
    IMAGE_TO_IMAGE = "image_to_image"
    INPAINT = "inpaint"
    RESIZE = "resize"
    CROP = "crop"
    ROTATE = "rotate"
    MIRROR = "mirror"
    CONVERT = "convert"
    BLUR = "blur"
    MODULATE = "modulate"
    WATERMARK = "watermark"
    REMOVE_BACKGROUND = "remove_background"
    IMPORT = "import"

    @property
    def transforms(self) -> bool:
        """Whether it changes a given image without a model."""
        return self not in _DRAWS


_DRAWS: Final = frozenset({Operation.TEXT_TO_IMAGE, Operation.IMAGE_TO_IMAGE, Operation.INPAINT})


class StoredImage(BaseModel):
    """An input image that already lies in our store, as it was uploaded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]


_LATER: Final = (
    "mask_from_alpha",
    "transform",
    "watermarks",
    "quality",
    "safety_checker",
    "safety_checker_type",
    "test",
)
"""Members of the spec that came with migration 0002."""


class JobSpec(BaseModel):
    """A complete wish: frozen, validated, versioned, stored as JSONB in `jobs.spec`.

    Sizes are pixels. Unlike a request it holds no defaults to be guessed later: intake fills in the
    model's, and draws a seed when none was given, so that every attempt of a job draws the same picture.

    A drawing needs a prompt. A transformation needs its `transform` and an `image`, and `watermarks` for
    those that `transform` lays on it; its width and height are the image's, as it is shown.

    Attributes:
        quality: of JPEG and WebP; None means the encoder's own. See `encoding_quality`.
        safety_checker: whether somebody must look at each image, and `safety_checker_type` stand in place of
            one that must not be shown.
        test: made with a test key: results are marked as such.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec_version: Literal[1] = 1
    operation: Operation
    model: str
    prompt: Annotated[str, Field(max_length=MAX_PROMPT)] = ""
    negative_prompt: Annotated[str, Field(max_length=MAX_PROMPT)] = ""
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    num_inference_steps: Annotated[int, Field(ge=1, le=500)] = 1
    guidance_scale: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 0.0
    strength: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    num_images: Annotated[int, Field(ge=1, le=16)] = 1
    output_format: ImageFormat = ImageFormat.PNG
    image: StoredImage | None = None
    mask_image: StoredImage | None = None
    mask_from_alpha: bool = False
    transform: Transform | None = None
    watermarks: Annotated[tuple[StoredImage, ...], Field(max_length=MAX_WATERMARKS)] = ()
    quality: Annotated[int | None, Field(ge=1, le=100)] = None
    safety_checker: bool = False
    safety_checker_type: CensorKind = "black"
    test: bool = False

    def as_stored(self) -> str:
        """Give the JSON that is kept in `jobs.spec`.

        A member that the release before does not know is left out while it has its default, so that a worker
        not yet upgraded can still do what it could before.
        """
        later = {
            name for name in _LATER if getattr(self, name) == type(self).model_fields[name].get_default()
        }
        return self.model_dump_json(exclude_none=True, exclude=later)

    @model_validator(mode="after")
    def _inputs_fit_the_operation(self) -> Self:
        if (self.transform is not None) != self.operation.transforms:
            raise ValueError(f"{self.operation} needs its transform, and nothing else has one")
        if self.transform is not None:
            return self._checked_transformation(self.transform)
        if not self.prompt:
            raise ValueError(f"{self.operation} needs a prompt")
        if self.watermarks:
            raise ValueError(f"{self.operation} takes no watermarks")
        needed = {
            Operation.TEXT_TO_IMAGE: (False, False),
            Operation.IMAGE_TO_IMAGE: (True, False),
            Operation.INPAINT: (True, True),
        }[self.operation]
        if (self.image is not None, self.mask_image is not None) != needed:
            raise ValueError(f"{self.operation} has the wrong input images")
        return self

    def _checked_transformation(self, transform: Transform) -> Self:
        if transform.operation != self.operation:
            raise ValueError(f"{self.operation} needs its own transform, not {transform.operation}")
        if self.image is None or self.mask_image is not None or self.num_images != 1:
            raise ValueError(f"{self.operation} makes one image of one image, without a mask")
        marks = transform.watermarks if isinstance(transform, Watermark) else ()
        if {mark.image for mark in marks} != set(range(len(self.watermarks))):
            raise ValueError(f"{self.operation} needs the watermarks it lays on, and no others")
        return self

    @property
    def encoding_quality(self) -> int | None:
        """How well JPEG and WebP are encoded, 1 to 100: what a conversion asks for, else `quality`."""
        asked = self.transform.quality if isinstance(self.transform, Convert) else None
        return self.quality if asked is None else asked

    def seed_of(self, index: int) -> int:
        """Give the seed of image `index` (from 0): consecutive, wrapping at the largest seed."""
        return (self.seed + index) % (MAX_SEED + 1)
