"""What POST /v1/images/edits is sent: a form with files, as OpenAI has it, or JSON that names its images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flask import Request

from app import imaging
from app.api import http
from app.api.openai_models import EditBody, EditForm
from app.api.services import Services
from app.errors import FieldProblem, InvalidFields, UnsupportedMedia
from app.wish import Upload

_IMAGE_PARTS: Final = ("image", "image[]")
"""One image comes as `image`, a list as repeated `image[]`; clients send lists of one."""
UPLOADS: Final = (*_IMAGE_PARTS, "mask")
MASKS: Final = ("PNG",)
_ONE: Final = "only one image can be edited at a time; send one"
_NO_MARKUP: Final = "cannot be followed here; say in prompt what to change, and where with a mask"
_NO_ALPHA: Final = "has no transparency; send a PNG whose alpha is 0 where the image is to change"


@dataclass(frozen=True, kw_only=True)
class Edit:
    """An edit as it was asked for; `parts` hold everything that makes the request what it is."""

    asked: EditBody | EditForm
    image: Upload
    mask: Upload | None
    parts: Sequence[bytes]


def read(incoming: Request, services: Services) -> Edit:
    """Give the edit that a request asks for, its images fetched where it names URLs.

    Raises:
        InvalidFields: fields or images that cannot be used; a mask that marks nothing or has another size.
        MalformedBody, UnsupportedMedia, BodyTooLarge: the body cannot be read.
    """
    settings, account_id = services.settings, http.caller().account_id
    if incoming.is_json:
        with services.bodies.reading(account_id):
            # Base64 takes four characters for three bytes.
            limit = settings.max_upload_bytes * 4 // 3 + settings.max_json_bytes
            content = http.read_json(incoming, limit=limit, small=settings.max_json_bytes)
            edit = _from_json(content, services)
    else:
        with services.bodies.reading(account_id):
            texts, files = _read_form(incoming, limit=settings.max_upload_bytes)
        edit = _from_form(texts, files, services)
    if edit.mask is not None:
        _check_mask(edit.mask, edit.image)
    return edit


def _read_form(incoming: Request, *, limit: int) -> tuple[dict[str, str], dict[str, bytes]]:
    try:
        return http.read_form(incoming, limit=limit)
    except InvalidFields as error:
        raise InvalidFields(
            *(
                FieldProblem(field="image", message=_ONE) if problem.field in _IMAGE_PARTS else problem
                for problem in error.problems
            )
        ) from None


def _from_form(texts: dict[str, str], files: dict[str, bytes], services: Services) -> Edit:
    problems = http.misplaced(EditForm, texts, files, uploads=UPLOADS)
    sent = [name for name in _IMAGE_PARTS if name in files]
    if len(sent) > 1:
        problems.append(FieldProblem(field="image", message=_ONE))
    if not sent and not any(problem.field in _IMAGE_PARTS for problem in problems):
        problems.append(FieldProblem(field="image", message="is required, as a PNG, JPEG or WEBP file"))
    if "markup" in files:
        problems.append(FieldProblem(field="markup", message=_NO_MARKUP))
    # An empty optional field means "not given", as HTML forms send it.
    given = {name: text for name, text in texts.items() if text or name == "prompt"}
    asked = http.parse(EditForm, given, besides=problems)
    image, mask = files[sent[0]], files.get("mask")
    sources = services.sources
    return Edit(
        asked=asked,
        image=_looked_at(lambda: sources.uploaded(image, field="image", accepted=imaging.FORMATS)),
        mask=None
        if mask is None
        else _looked_at(lambda: sources.uploaded(mask, field="mask", accepted=MASKS)),
        parts=(asked.model_dump_json().encode(), image, mask or b""),
    )


def _from_json(content: dict[str, Any], services: Services) -> Edit:
    asked = http.parse(EditBody, content, besides=_problems_of_names(content))
    named, masks = (asked.image or ()) + (asked.images or ()), asked.mask or ()
    field = "image" if asked.image else "images"
    problems = []
    if not named:
        problems.append(FieldProblem(field="image", message="is required, as a URL or a data URI"))
    if len(named) > 1:
        problems.append(FieldProblem(field=field, message=_ONE))
    if len(masks) > 1:
        problems.append(FieldProblem(field="mask", message="must be one image"))
    if problems:
        raise InvalidFields(*problems)
    base_url = http.base_url(services.settings)

    def fetched(reference: str, field: str, accepted: tuple[str, ...]) -> Upload:
        return _looked_at(
            lambda: services.sources.named(reference, field=field, base_url=base_url, accepted=accepted)
        )

    return Edit(
        asked=asked,
        image=fetched(named[0], field, imaging.FORMATS),
        mask=fetched(masks[0], "mask", MASKS) if masks else None,
        parts=(asked.model_dump_json().encode(),),
    )


def _problems_of_names(content: dict[str, Any]) -> list[FieldProblem]:
    if content.get("markup") is None:
        return []
    return [FieldProblem(field="markup", message=_NO_MARKUP)]


def _looked_at(find: Callable[[], Upload]) -> Upload:
    """Give the upload; a file of the wrong kind is a wrong field here, and no wrong Content-Type."""
    try:
        return find()
    except UnsupportedMedia as error:
        field, _, message = error.message.partition(": ")
        raise InvalidFields(FieldProblem(field=field, message=message)) from None


def _check_mask(mask: Upload, image: Upload) -> None:
    if not mask.header.alpha:
        raise InvalidFields(FieldProblem(field="mask", message=_NO_ALPHA))
    if mask.size != image.size:
        (width, height), (image_width, image_height) = mask.size, image.size
        message = (
            f"is {width} x {height} pixels and the image {image_width} x {image_height}; "
            "both must have the same size"
        )
        raise InvalidFields(FieldProblem(field="mask", message=message))
