"""OpenAI's Images API, answered in its own words: /v1/images/generations and /edits, and /v1/models.

Its own client's types are the contract. Each answer is the images themselves: the request waits for its job.
What OpenAI ignores or has retired (quality, style, user, moderation …) is ignored here too.
"""

import re
from typing import Final

from flask import Blueprint, Response, request

from app.api import http
from app.api.openai_drawing import Order, Studio
from app.api.openai_edits import Edit, read
from app.api.openai_errors import present_error
from app.api.openai_models import (
    CompletedEvent,
    EditBody,
    EditForm,
    ErrorShown,
    GenerateRequest,
    ImageRequest,
    ImagesResponse,
    ModelList,
    ModelShown,
)
from app.api.operations import EventStream, Operation, Upload
from app.api.services import Services
from app.domain.catalog import Model
from app.domain.spec import ImageFormat
from app.domain.spec import Operation as Draws
from app.errors import Gone
from app.wish import Terms, Wish

__all__ = ["OPERATIONS", "blueprint", "get_model", "list_models", "owns", "present_error"]

_ADDRESSES: Final = re.compile(r"/v1/images/(generations|edits|variations)(/.*)?")
_NO_VARIATIONS: Final = (
    "OpenAI takes no requests for variations any more, and neither does Darkroom; send the image to "
    "POST /v1/images/edits with a prompt, without a mask."
)


def blueprint(services: Services) -> Blueprint:
    """Give the endpoints of images, bound to a web process's services."""
    made = Blueprint("openai", __name__)
    studio = Studio(services)

    @made.before_request
    def authenticate() -> None:
        services.enter(bearer=True)

    @made.post("/v1/images/generations")
    def generate() -> Response:
        with services.bodies.reading(http.caller().account_id):
            content = http.read_json(request, limit=services.settings.max_json_bytes)
        asked = http.parse(GenerateRequest, content)
        return studio.answer(
            Order(
                kind="image_generation",
                wish=_wish(asked, services),
                asked=asked,
                parts=[asked.model_dump_json().encode()],
            )
        )

    @made.post("/v1/images/edits")
    def edit() -> Response:
        return studio.answer(_edit(services))

    @made.post("/v1/images/variations")
    def vary() -> Response:
        raise Gone(_NO_VARIATIONS)

    return made


def owns(path: str) -> bool:
    """Whether errors at this address are told in this API's shape."""
    return _ADDRESSES.fullmatch(path) is not None


def _edit(services: Services) -> Order:
    found = read(request, services)
    return Order(
        kind="image_edit",
        wish=_wish(found.asked, services, edit=found),
        asked=found.asked,
        parts=found.parts,
    )


def _wish(
    asked: GenerateRequest | EditBody | EditForm, services: Services, *, edit: Edit | None = None
) -> Wish:
    width, height = asked.pixels or (None, None)
    mask = edit.mask if edit else None
    operation = Draws.TEXT_TO_IMAGE
    if edit is not None:
        operation = Draws.IMAGE_TO_IMAGE if mask is None else Draws.INPAINT
    # Without a size the input image's proportions can be beyond a model.
    about_size = edit.image.field if edit and width is None else "size"
    return Wish(
        operation=operation,
        model=asked.model or services.settings.openai_model,
        prompt=asked.prompt,
        negative_prompt=asked.negative_prompt,
        width=width,
        height=height,
        num_inference_steps=asked.num_inference_steps,
        guidance_scale=asked.guidance_scale,
        strength=getattr(asked, "strength", None),
        seed=asked.seed,
        num_images=asked.n,
        output_format=asked.format,
        quality=_quality(asked, asked.output_compression),
        image=edit.image if edit else None,
        mask_image=mask,
        mask_from_alpha=mask is not None,
        fields={"num_images": "n", "width": about_size, "height": about_size, "mask_image": "mask"},
        terms=Terms(test=http.caller().test, base_url=http.base_url(services.settings)),
    )


def _quality(asked: ImageRequest, compression: int | None) -> int | None:
    """OpenAI's 0 to 100 as an encoder's 1 to 100; PNG has nothing of the kind."""
    if compression is None or asked.format is ImageFormat.PNG:
        return None
    return max(1, compression)


def list_models(services: Services) -> Response:
    """Answer GET /v1/models: aliases too, as clients look for the name they are set to."""
    models = services.intake.catalog.models
    shown = [_model(model, name) for model in models for name in (model.id, *model.aliases)]
    return http.json_response(ModelList(data=shown).model_dump(mode="json"))


def get_model(model_id: str, services: Services) -> Response:
    """Answer GET /v1/models/{model} under the very name that was asked for."""
    shown = _model(services.intake.catalog.find(model_id), model_id)
    return http.json_response(shown.model_dump(mode="json"))


def _model(model: Model, name: str) -> ModelShown:
    return ModelShown(id=name, created=int(model.created_at.timestamp()), root=model.id)


_TAG: Final = "OpenAI Images"
_ERRORS: Final = dict.fromkeys((400, 401, 403, 404, 409, 410, 413, 415, 422, 429, 500, 503, 504), ErrorShown)
_WAITS: Final = (
    "Waits for the images, and answers 504 with `Retry-After` when they take too long: the same request "
    "sent again then joins the same job. `quality`, `style`, `moderation`, `user`, `safety_identifier` and "
    "whatever else it does not know are ignored. With `stream` the answer is one event per finished image."
)
OPERATIONS: Final = (
    Operation(
        name="createImage",
        method="POST",
        path="/v1/images/generations",
        summary="Create image",
        description=_WAITS,
        request=GenerateRequest,
        example={
            "model": "sketch",
            "prompt": "a lighthouse on a cliff at sunset, calm sea",
            "size": "768x512",
            "n": 1,
        },
        answers={200: ImagesResponse, **_ERRORS},
        events=EventStream(item=CompletedEvent),
        idempotent=True,
        bearer=True,
        counted=True,
        tag=_TAG,
    ),
    Operation(
        name="createImageEdit",
        method="POST",
        path="/v1/images/edits",
        summary="Create image edit",
        description="Redraws the whole image; with a `mask`, only where the mask's alpha is 0, and every "
        f"other pixel stays as it is. {_WAITS}",
        request=EditForm,
        or_json=EditBody,
        example={"model": "sketch", "prompt": "the same place in winter, snow", "size": "auto"},
        uploads=(
            Upload(
                name="image",
                required=True,
                description="The input image: PNG, JPEG or WEBP; a list of one may be called image[]",
                media_types=("image/png", "image/jpeg", "image/webp"),
            ),
            Upload(
                name="mask",
                required=False,
                description="PNG of the image's size; what is fully transparent changes",
                media_types=("image/png",),
            ),
        ),
        answers={200: ImagesResponse, **_ERRORS},
        events=EventStream(item=CompletedEvent),
        idempotent=True,
        bearer=True,
        counted=True,
        tag=_TAG,
    ),
    Operation(
        name="createImageVariation",
        method="POST",
        path="/v1/images/variations",
        summary="Create image variation",
        description="Answers 410 and what to send instead, as OpenAI has retired it.",
        answers=dict.fromkeys((401, 403, 410, 429, 503), ErrorShown),
        bearer=True,
        counted=True,
        tag=_TAG,
    ),
)
