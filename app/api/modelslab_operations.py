"""What the ModelsLab dialect's endpoints read and answer, for OpenAPI: the same at three addresses."""

from collections.abc import Iterator
from typing import Any, Final

from app.api.modelslab_families import ENTERPRISE, ENTERPRISE_ROOT, FAMILIES, VERBS, Family, Verb
from app.api.modelslab_models import (
    BucketAnswer,
    BucketDetails,
    BucketReset,
    ErrorShown,
    FetchAnswer,
    FetchBody,
    GenerationAnswer,
    ImageToImage,
    Inpaint,
    KeyOnly,
    Request,
    SystemDetails,
    TextToImage,
)
from app.api.operations import Operation, PathPart

MODELS: Final[dict[Verb, type[TextToImage]]] = {
    "text2img": TextToImage,
    "img2img": ImageToImage,
    "inpaint": Inpaint,
}
"""What each operation reads."""
REFUSED: Final = {
    "clear_cache": "There is no cache of yours to clear: every request is drawn.",
    "clear_queue": "Darkroom does not clear queues; cancel jobs one by one with DELETE /v1/jobs/{id}.",
    "restart_server": "Darkroom's processes serve other accounts too; ask your operator to restart them.",
    "update_server": "Darkroom's processes serve other accounts too; ask your operator to update them.",
    "update": "Darkroom's processes serve other accounts too; ask your operator to update them.",
}
"""What an enterprise customer may do with a server of his own; here it is nobody's own."""

_TAG: Final = "ModelsLab realtime"
_KEY: Final = "The key may stand in the body as `key`, or in the header `key`, as bearer or as X-API-Key."
_ERRORS: Final = dict.fromkeys((400, 401, 403, 413, 415, 429, 503), ErrorShown)
_SUMMARIES: Final[dict[Verb, str]] = {
    "text2img": "Text to image",
    "img2img": "Image to image",
    "inpaint": "Inpaint: redraw the white areas of a mask",
}
_PICTURE: Final = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAAAMklEQVR42mOs6FnAQEvAxEBjMGrBqAWj"
    "FoxaMGoBNQCjTZTGaBCNWjBqwagFoxaMWgAA6w8CoTTfO1cAAAAASUVORK5CYII="
)
_EXAMPLES: Final[dict[Verb, dict[str, Any]]] = {
    "text2img": {
        "prompt": "a cat sitting on a bench",
        "negative_prompt": "bad quality",
        "width": "512",
        "height": "512",
        "samples": "1",
        "seed": None,
    },
    "img2img": {
        "prompt": "a cat sitting on a bench",
        "negative_prompt": "bad quality",
        "init_image": _PICTURE,
        "width": "512",
        "height": "512",
        "samples": "1",
        "temp": False,
        "strength": 0.7,
        "seed": None,
        "webhook": None,
        "track_id": None,
    },
    "inpaint": {
        "prompt": "a cat sitting on a bench",
        "init_image": _PICTURE,
        "mask_image": _PICTURE,
        "strength": 0.7,
    },
}
_REQUEST_ID: Final = PathPart(
    name="request_id", description="The `id` that was answered", example="302455", pattern="^[0-9]{1,18}$"
)


def _operations() -> Iterator[Operation]:
    for family in FAMILIES:
        yield from (_generation(verb, family) for verb in VERBS)
        yield _fetch(f"{family.name}Fetch", f"{family.prefix}fetch/{{request_id}}", by_address=True)
        yield _fetch(f"{family.name}FetchByBody", f"{family.prefix}fetch", by_address=False)
        yield _post(
            f"{family.name}SystemDetails",
            f"{family.prefix}system_details",
            "How busy it is",
            f"Real numbers: models, and seconds until what waits is likely to be done. {_KEY}",
            request=KeyOnly,
            answers={200: SystemDetails},
            example={},
        )
    yield _fetch("enterpriseRootFetch", f"{ENTERPRISE_ROOT}fetch", by_address=False)
    yield from (_refused(verb) for verb in REFUSED)
    yield _post(
        "updateS3",
        f"{ENTERPRISE_ROOT}update_s3",
        "Have images go to your own bucket",
        "A small object is written, read back and deleted first; the keys are kept encrypted and never told "
        f"again. The images of this API use the details of `deploy_type` realtime. {_KEY}",
        request=BucketDetails,
        answers={200: BucketAnswer},
        example={
            "deploy_type": "realtime",
            "public_url": "https://images.example.com",
            "region_name": "us-east-1",
            "endpoint_url": "https://my-bucket.s3.us-east-1.amazonaws.com",
            "aws_access_key_id": "AKIAIOSFODNN7EXAMPLE",
            "aws_secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "image_directory": "generations",
        },
    )
    yield _post(
        "resetS3",
        f"{ENTERPRISE_ROOT}reset_s3",
        "Have images go to Darkroom's own store again",
        f"Jobs that were submitted before still go to the bucket they were promised. {_KEY}",
        request=BucketReset,
        answers={200: BucketAnswer},
        example={"deploy_type": "realtime"},
    )


def _generation(verb: Verb, family: Family) -> Operation:
    return _post(
        f"{family.name}{verb.capitalize()}",
        family.prefix + verb,
        _SUMMARIES[verb],
        "Waits for the images, as long as the operator lets it; then `status` is `success`, or `processing` "
        "with what to ask for later. Members it does not know are ignored; numbers may be strings, switches "
        f"yes or no, and null is the default. {_KEY}",
        request=MODELS[verb],
        answers={200: GenerationAnswer, 422: ErrorShown},
        example=_EXAMPLES[verb],
        idempotent=True,
    )


def _fetch(name: str, path: str, *, by_address: bool) -> Operation:
    return _post(
        name,
        path,
        "Fetch images that were queued",
        f"`status` is `processing` until it is `success` or `error`, with HTTP status 200 each time. {_KEY}",
        request=KeyOnly if by_address else FetchBody,
        answers={200: FetchAnswer, 404: ErrorShown},
        parts=(_REQUEST_ID,) if by_address else (),
        example={} if by_address else {"request_id": _REQUEST_ID.example},
    )


def _refused(verb: str) -> Operation:
    return _post(
        verb,
        ENTERPRISE.prefix + verb,
        "Refused: a server of your own is needed for it",
        f"Answers 403. {REFUSED[verb]}",
        request=KeyOnly,
        answers={},
        example={},
    )


def _post(
    name: str,
    path: str,
    summary: str,
    description: str,
    *,
    request: type[Request] | type[BucketDetails],
    answers: dict[int, Any],
    **more: Any,
) -> Operation:
    return Operation(
        name=name,
        method="POST",
        path=path,
        summary=summary,
        description=description,
        request=request,
        answers={**answers, **_ERRORS},
        bearer=True,
        counted=True,
        tag=_TAG,
        **more,
    )


OPERATIONS: Final = tuple(_operations())
