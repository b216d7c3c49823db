"""What a dialect understood of a request, in nobody's words: a `Wish`, which intake makes a job of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from app import imaging
from app.domain.job import Access
from app.domain.spec import ImageFormat, Operation
from app.domain.transform import Transform
from app.domain.webhook import Form


@dataclass(frozen=True, kw_only=True)
class Upload:
    """An input image as it came in: public field name, whole file, and what its header says."""

    field: str
    data: bytes
    header: imaging.Header

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, upright."""
        return self.header.upright_size

    @property
    def format(self) -> ImageFormat:
        """How it is encoded."""
        return ImageFormat(self.header.format.lower())


@dataclass(frozen=True, kw_only=True)
class Hook:
    """Where a request wants the end of its job told, and in whose words."""

    url: str
    form: Form


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How a job is kept, shown and told of; nothing here changes a pixel but `test`.

    Attributes:
        test: whether a test key sent it; its images are watermarked.
        numbered: whether its dialect shows an integer id.
        track_id: the caller's own word for it.
        webhook: who is told of its end, beside the account's own endpoints.
        base_url: base URL that the request came in under, for links in what is sent later.
        storage_target_id: the customer's bucket its outputs go to.
        retain: how long its outputs are served; None means the installation's retention.
        persist: whether they never expire.
        access: who may fetch them at first: LINK or PRIVATE.
        name: the name of the image in the account's library; None keeps it out of there.
        echo: what the dialect shows again in its answers; never an API key.
        priority: higher is released sooner, among the account's own jobs.
    """

    test: bool = False
    numbered: bool = False
    track_id: str | None = None
    webhook: Hook | None = None
    base_url: str | None = None
    storage_target_id: UUID | None = None
    retain: timedelta | None = None
    persist: bool = False
    access: Access = Access.LINK
    name: str | None = None
    echo: Mapping[str, Any] | None = None
    priority: int = 0


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What somebody wants done; None where the request named nothing.

    `fields` maps the spec's names to the dialect's, so that an error names the field the caller wrote.
    `mask_from_alpha` says that a mask marks what changes by being fully transparent there, not by white.
    Of a transformation only `operation`, `transform`, `image`, `watermarks`, `output_format`, `quality` and
    `terms` count; no model does it.
    """

    operation: Operation
    model: str | None = None
    prompt: str = ""
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    strength: float | None = None
    seed: int | None = None
    num_images: int | None = None
    output_format: ImageFormat | None = None
    quality: int | None = None
    image: Upload | None = None
    mask_image: Upload | None = None
    mask_from_alpha: bool = False
    transform: Transform | None = None
    watermarks: tuple[Upload, ...] = ()
    safety_checker: bool = False
    safety_checker_type: Literal["black", "blur", "pixelate", "sensitive_content_text"] = "black"
    fields: Mapping[str, str] = field(default_factory=dict)
    terms: Terms = Terms()
