"""From the body of POST /v1/jobs to a `Wish`: first all that needs no image, then what the images say.

Between the two stands the Idempotency-Key: a request that is repeated must find its job even when the images
that it names are gone by now.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import orjson
from pydantic import TypeAdapter, ValidationError

from app import imaging
from app.api import http
from app.api.jobs_request import TERMS, TRANSFORMS, JobRequest, OutputNamed
from app.api.services import Services
from app.api.strict import unknown_members
from app.db import outputs
from app.domain.job import Access
from app.domain.spec import ImageFormat, Operation
from app.domain.transform import Convert, Transform, Watermark, problems_with, result_format
from app.domain.webhook import Form
from app.errors import FieldProblem, ForbiddenAddress, InvalidFields, Unreachable
from app.safe_http.urls import parse as parse_url
from app.shown import IMAGE_PREFIX
from app.wish import Hook, Terms, Upload, Wish

_DRAWN: Final = frozenset(
    {
        *("model", "prompt", "negative_prompt", "width", "height", "num_inference_steps", "guidance_scale"),
        *("seed", "num_images", "output_format", "quality", "safety_checker", "safety_checker_type"),
    }
)
_CHANGED: Final = frozenset({"image", "transform", "output_format", "quality"})
_COUNTS: Final[dict[Operation, frozenset[str]]] = {
    **dict.fromkeys(TRANSFORMS, _CHANGED),
    Operation.TEXT_TO_IMAGE: _DRAWN,
    Operation.IMAGE_TO_IMAGE: _DRAWN | {"image", "strength"},
    Operation.INPAINT: _DRAWN | {"image", "strength", "mask_image", "mask_from_alpha"},
    Operation.WATERMARK: _CHANGED | {"watermarks"},
    # It names both itself, in `transform`.
    Operation.CONVERT: frozenset({"image", "transform"}),
}
"""Members that count for an operation, those of the terms aside."""
_NEEDS: Final[dict[Operation, tuple[str, ...]]] = {
    **dict.fromkeys(TRANSFORMS, ("image",)),
    Operation.TEXT_TO_IMAGE: ("prompt",),
    Operation.IMAGE_TO_IMAGE: ("prompt", "image"),
    Operation.INPAINT: ("prompt", "image", "mask_image"),
    Operation.WATERMARK: ("image", "watermarks"),
}
_QUALITY: Final = "counts for jpeg and webp only; set `output_format`, or remove it"
_TRANSFORM: Final[TypeAdapter[Transform]] = TypeAdapter(Transform)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request that is in order, as far as that can be said without its images."""

    request: JobRequest
    operation: Operation
    transform: Transform | None

    @property
    def names_images(self) -> bool:
        """Whether images must be had before it can become a wish."""
        return self.request.image is not None

    @property
    def addresses(self) -> int:
        """How many images must be fetched or read, and hosts looked up, before it can become a wish."""
        request = self.request
        images = (request.image or "", request.mask_image or "", *(request.watermarks or ()))
        slow = (isinstance(image, OutputNamed) or http.is_address(image) for image in images)
        return sum(slow) + (request.webhook is not None)


def ask(content: dict[str, Any], *, longest: timedelta) -> Asked:
    """Give what a body asks for.

    Args:
        longest: the most that `retain_seconds` may be.

    Raises:
        InvalidFields: every member that is not known, does not count for the operation, or cannot be used.
    """
    unknown = unknown_members(JobRequest.model_fields, content)
    request = http.parse(JobRequest, content, besides=unknown)
    operation = request.operation or _operation_of(request)
    problems = [*_misfits(request, operation, longest)]
    transform: Transform | None = None
    if operation.transforms:
        try:
            transform = _transform_of(operation, request.transform or {})
        except InvalidFields as error:
            problems += error.problems
    if isinstance(transform, Watermark) and request.watermarks:
        problems += _dangling(transform, len(request.watermarks))
    if problems:
        raise InvalidFields(*problems)
    return Asked(request=request, operation=operation, transform=transform)


def _operation_of(request: JobRequest) -> Operation:
    if request.transform is not None or request.watermarks is not None:
        message = f"is required with `transform`: one of {', '.join(TRANSFORMS)}"
        raise InvalidFields(FieldProblem(field="operation", message=message))
    if request.mask_image is not None:
        return Operation.INPAINT
    return Operation.TEXT_TO_IMAGE if request.image is None else Operation.IMAGE_TO_IMAGE


def _misfits(request: JobRequest, operation: Operation, longest: timedelta) -> Iterator[FieldProblem]:
    counts = _COUNTS[operation] | TERMS | {"operation"}
    parameters = TRANSFORMS[operation].model_fields if operation.transforms else {}
    for name in JobRequest.model_fields:
        if name in request.model_fields_set and name not in counts:
            inside = {"output_format": "format"}.get(name, name)
            hint = f"; put it into `transform` as {inside}" if inside in parameters else "; remove it"
            yield FieldProblem(field=name, message=f"does not count for {operation}{hint}")
    for name in _NEEDS[operation]:
        if getattr(request, name) is None:
            yield FieldProblem(field=name, message=f"is required for {operation}")
    is_png = request.output_format in {None, ImageFormat.PNG} and not operation.transforms
    if request.quality is not None and is_png:
        yield FieldProblem(field="quality", message=_QUALITY)
    if request.retain_seconds is not None and request.retain_seconds > longest.total_seconds():
        message = f"must be at most {longest.total_seconds():.0f} here; `persist` keeps outputs for ever"
        yield FieldProblem(field="retain_seconds", message=message)


def _transform_of(operation: Operation, given: dict[str, Any]) -> Transform:
    known = [name for name in TRANSFORMS[operation].model_fields if name != "operation"]
    problems = unknown_members(known, given, inside="transform.")
    values = {name: given[name] for name in known if given.get(name) is not None}
    try:
        # As JSON, since in pydantic's strict mode only there a list may become a tuple.
        text = orjson.dumps({"operation": operation.value, **values})
        transform = _TRANSFORM.validate_json(text, strict=True)
    except orjson.JSONEncodeError:
        raise InvalidFields(FieldProblem(field="transform", message="is nested too deeply")) from None
    except ValidationError as error:
        # Each name begins with the tag of the union: resize.width. A list with a bad entry is told as such
        # and, without that entry, once more as too short.
        found = {p.field.partition(".")[2]: p.message for p in http.problems_of(error)}
        problems += [
            FieldProblem(field=f"transform.{name}", message=message)
            for name, message in found.items()
            if not any(other.startswith(f"{name}.") for other in found)
        ]
        raise InvalidFields(*problems) from None
    if problems:
        raise InvalidFields(*problems)
    return transform


def _dangling(transform: Watermark, count: int) -> Iterator[FieldProblem]:
    for index, mark in enumerate(transform.watermarks):
        if mark.image >= count:
            message = f"must be below {count}, as that many `watermarks` were sent; the first is 0"
            yield FieldProblem(field=f"transform.watermarks.{index}.image", message=message)


def wish_of(asked: Asked, services: Services) -> Wish:
    """Give the wish, its images fetched and looked at, and its webhook's address checked.

    Raises:
        InvalidFields: an image cannot be had or used, or the webhook's address may not.
        StorageDown, DatabaseDown: an output of ours cannot be read at the moment.
    """
    request = asked.request
    terms = _terms(asked, services)
    image = _upload(request.image, "image", services)
    mask_image = _upload(request.mask_image, "mask_image", services)
    named = enumerate(request.watermarks or ())
    watermarks = tuple(_upload(each, f"watermarks.{index}", services) for index, each in named)
    marks = tuple(each for each in watermarks if each is not None)
    if asked.transform is not None and image is not None:
        _refuse_impossible(request, asked.transform, image, marks)
    return Wish(
        operation=asked.operation,
        model=request.model,
        prompt=request.prompt or "",
        negative_prompt=request.negative_prompt,
        width=request.width,
        height=request.height,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        strength=request.strength,
        seed=request.seed,
        num_images=request.num_images,
        output_format=request.output_format,
        quality=asked.transform.quality if isinstance(asked.transform, Convert) else request.quality,
        image=image,
        mask_image=mask_image,
        mask_from_alpha=request.mask_from_alpha,
        transform=asked.transform,
        watermarks=marks,
        safety_checker=request.safety_checker,
        safety_checker_type=request.safety_checker_type or "black",
        terms=terms,
    )


def _terms(asked: Asked, services: Services) -> Terms:
    request = asked.request
    return Terms(
        test=http.caller().test,
        track_id=request.track_id,
        webhook=None if request.webhook is None else _hook(request.webhook, services),
        base_url=http.base_url(services.settings),
        retain=None if request.retain_seconds is None else timedelta(seconds=request.retain_seconds),
        persist=request.persist,
        access=Access.PRIVATE if request.private else Access.LINK,
        priority=request.priority,
    )


def _hook(url: str, services: Services) -> Hook:
    try:
        url = parse_url(parse_url(url).url).url  # percent-encoding can make it too long
        # A name that cannot be looked up at the moment is no reason to refuse the job: its address is checked
        # again when the job has ended, and then tried for a day.
        with contextlib.suppress(Unreachable):
            services.webhook_guard.check(url)
    except ForbiddenAddress as error:
        raise InvalidFields(FieldProblem(field="webhook", message=error.message)) from None
    return Hook(url=url, form=Form.JOBS)


def _upload(value: str | OutputNamed | None, field: str, services: Services) -> Upload | None:
    if value is None:
        return None
    if isinstance(value, OutputNamed):
        return _output(value, field, services)
    base_url = http.base_url(services.settings)
    return services.sources.named(value, field=field, base_url=base_url, accepted=imaging.FORMATS)


def _output(named: OutputNamed, field: str, services: Services) -> Upload:
    output_id = UUID(hex=named.output.removeprefix(IMAGE_PREFIX))
    with services.database.autocommit() as tx:
        row = outputs.by_id(tx, output_id, account_id=http.caller().account_id)
    if row is None or row.expired:
        why = "is no output of yours" if row is None else "has expired or was deleted"
        raise InvalidFields(FieldProblem(field=field, message=f"{named.output} {why}; send the image itself"))
    return services.sources.output(row, field=field)


def _refuse_impossible(
    request: JobRequest, transform: Transform, image: Upload, marks: tuple[Upload, ...]
) -> None:
    """Refuse what only the images tell."""
    found = problems_with(transform, *image.size, image.format, watermarks=[mark.size for mark in marks])
    problems = [FieldProblem(field=f"transform.{each.field}", message=each.message) for each in found]
    becomes = request.output_format or result_format(transform, image.format)
    if request.quality is not None and becomes is ImageFormat.PNG:
        problems.append(FieldProblem(field="quality", message=_QUALITY))
    if problems:
        raise InvalidFields(*problems)
