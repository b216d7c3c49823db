"""The endpoints of the IMG Processing dialect as the OpenAPI document describes them."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel

from app.api.imgprocessing_ids import PATTERN
from app.api.imgprocessing_models import (
    CreateRequest,
    Image,
    ImageList,
    ImagineRequest,
    ListQuery,
    Problem,
    UploadRequest,
)
from app.api.imgprocessing_transforms import CHANGES
from app.api.operations import Operation, PathPart, Upload
from app.domain.spec import ImageFormat

_TAG: Final = "IMG Processing"
_BYTES: Final = tuple(each.media_type for each in ImageFormat)
_ID: Final = PathPart(
    name="image_id",
    description="The `id` of an image of yours",
    example="image_0003Uc7CW4vrXHGY0Mr7wGMh",
    pattern=PATTERN,
)
_ALWAYS: Final = dict.fromkeys((401, 403, 429, 503), Problem)
_OF_BODIES: Final = dict.fromkeys((400, 413, 415, 422), Problem)
_OF_MAKING: Final = dict.fromkeys((409, 410, 500), Problem)
_WAITS: Final = (
    "Answers when the image is there; 503 with `Retry-After` when that takes longer than a minute: the same "
    "request goes on waiting for the same image. An equal request within a minute, or while the first one is "
    "under way, gets its image too."
)


def _posts(
    path: str,
    name: str,
    summary: str,
    description: str,
    *,
    request: type[BaseModel] | None = None,
    example: Mapping[str, Any] | None = None,
    uploads: tuple[Upload, ...] = (),
    makes: bool = True,
) -> Operation:
    """Describe a POST that answers an image."""
    of_image = "{image_id}" in path
    return Operation(
        name=name,
        method="POST",
        path=path,
        summary=summary,
        description=f"{description} {_WAITS}" if makes else description,
        parts=(_ID,) if of_image else (),
        request=request,
        example=None if example is None else dict(example),
        uploads=uploads,
        answers={
            201: Image,
            **_ALWAYS,
            **_OF_BODIES,
            **(_OF_MAKING if makes else {}),
            **({404: Problem} if of_image else {}),
        },
        headers={201: ("X-Image-Processing-Usage",)},
        idempotent=makes,
        counted=True,
        tag=_TAG,
    )


def _asks(
    path: str,
    name: str,
    summary: str,
    description: str,
    *,
    answers: Mapping[int, Any],
    method: Literal["GET", "POST", "DELETE"] = "GET",
    query: type[BaseModel] | None = None,
) -> Operation:
    """Describe an endpoint that makes no image."""
    return Operation(
        name=name,
        method=method,
        path=path,
        summary=summary,
        description=description,
        parts=(_ID,) if "{image_id}" in path else (),
        query=query,
        answers={**answers, **_ALWAYS},
        counted=True,
        tag=_TAG,
    )


_CHANGES: Final[Mapping[str, tuple[str, str, Mapping[str, Any]]]] = {
    "resize": ("Resize", "With one side, the other follows.", {"width": 512, "fit": "fill"}),
    "crop": ("Crop", "Keeps what lies between two corners.", {"x1": 0, "y1": 0, "x2": 256, "y2": 256}),
    "rotate": ("Rotate", "Clockwise; the canvas grows.", {"angle": 90, "unit": "degrees"}),
    "mirror": ("Mirror", "Exchanges left and right, or top and bottom.", {"mode": "horizontal"}),
    "convert": ("Convert", "Another format; `jpg` is `jpeg`.", {"format": "webp", "quality": 80}),
    "blur": ("Blur", "A Gaussian blur.", {"sigma": 5}),
    "modulate": ("Modulate", "Other light and colours.", {"brightness": 10, "saturation": -20}),
    "watermark": (
        "Watermark",
        "Lays 1 to 5 images of yours over it, those of the same kind of key.",
        {"watermarks": [{"id": "image_0003Uc7CW4vrXHGY0Mr7wGMh", "left": 16, "top": 16}]},
    ),
    "remove-background": (
        "RemoveBackground",
        "Makes a flat background transparent, always as PNG; one that is not flat answers 422.",
        {"name": "cut out"},
    ),
}
"""Of each change: the end of its operationId, what it does, and a body."""


def _change(kind: str) -> Operation:
    name, description, example = _CHANGES[kind]
    return _posts(
        f"/v1/images/{{image_id}}/{kind}",
        f"imgProcessing{name}",
        f"{kind.replace('-', ' ').capitalize()} an image",
        f"{description} Makes a new image and leaves the old one as it is.",
        request=CHANGES[kind],
        example=example,
    )


def _not_offered(kind: str) -> Operation:
    return _asks(
        f"/v1/images/{{image_id}}/{kind}",
        f"imgProcessing{''.join(word.capitalize() for word in kind.split('-'))}",
        f"{kind.replace('-', ' ').capitalize()} (not offered)",
        "The vendor's API has it; Darkroom has no model that reads images, and always answers 501.",
        answers={404: Problem, 501: Problem},
        method="POST",
    )


_PUBLISHED: Final = "Needs no body; harmless when repeated."
OPERATIONS: Final = (
    _posts(
        "/v1/images/imagine",
        "imgProcessingImagine",
        "Draw an image",
        "1024 x 1024 pixels, as JPEG, with the installation's default model, or the one that is `sdxl` or "
        "`flux` here.",
        request=ImagineRequest,
        example={"name": "cat", "prompt": "a cat on a windowsill in the morning sun", "seed": 42},
    ),
    _posts(
        "/v1/images",
        "imgProcessingCreate",
        "Fetch an image",
        "From a big store over https, from an output's URL here, or from where the operator allows.",
        request=CreateRequest,
        example={"name": "photo", "url": "https://storage.googleapis.com/bucket/photo.jpg"},
    ),
    _posts(
        "/v1/images/upload",
        "imgProcessingUpload",
        "Upload an image",
        "It is decoded and encoded anew, so that nothing but its pixels is kept.",
        request=UploadRequest,
        example={"name": "photo"},
        uploads=(
            Upload(
                name="image",
                required=True,
                description="JPEG, PNG or WebP, at most 20 MB",
                media_types=("image/jpeg", "image/png", "image/webp"),
            ),
        ),
    ),
    _asks(
        "/v1/images",
        "imgProcessingList",
        "List images",
        "Newest first; follow `links`. A test key sees what test keys made, a live key the rest.",
        query=ListQuery,
        answers={200: ImageList, 422: Problem},
    ),
    _asks(
        "/v1/images/{image_id}",
        "imgProcessingGet",
        "Get an image",
        "An image of somebody else, or of the other kind of key, answers 404.",
        answers={200: Image, 404: Problem},
    ),
    _asks(
        "/v1/images/{image_id}",
        "imgProcessingDelete",
        "Delete an image",
        "At once, with its public URL; there is no way back.",
        answers={204: None, 404: Problem},
        method="DELETE",
    ),
    _asks(
        "/v1/images/{image_id}/download",
        "imgProcessingDownload",
        "Download an image",
        "Needs a key, published or not; the `url` of a published image needs none.",
        answers={200: _BYTES, 404: Problem},
    ),
    _posts(
        "/v1/images/{image_id}/publish",
        "imgProcessingPublish",
        "Publish an image",
        f"Gives it a `url` where everybody finds it, and keeps it until it is deleted. {_PUBLISHED}",
        makes=False,
    ),
    _posts(
        "/v1/images/{image_id}/unpublish",
        "imgProcessingUnpublish",
        "Unpublish an image",
        f"Its `url` answers 404 from now on. {_PUBLISHED}",
        makes=False,
    ),
    *(_change(kind) for kind in CHANGES),
    *(_not_offered(kind) for kind in ("classify", "visualize", "extract-formatted-text")),
)
