"""IMG Processing, answered in its own words: /v1/images/imagine, /upload, and what is done to an image.

That API is synchronous and knows images, not jobs: each request that makes an image waits for it. Every
image here is the one output of a job, kept privately under its name until it is published or deleted.
"""

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from flask import Blueprint, Response, request
from flask.sansio.blueprints import BlueprintSetupState
from werkzeug.routing import BaseConverter

from app import imaging, retention
from app.api import http, imgprocessing_library, imgprocessing_making, imgprocessing_operations
from app.api.imgprocessing_ids import unknown
from app.api.imgprocessing_library import PATH
from app.api.imgprocessing_models import (
    MAX_FILE,
    ChangeRequest,
    CreateRequest,
    ImagineRequest,
    ListQuery,
    Problem,
    UploadRequest,
    WatermarkRequest,
)
from app.api.imgprocessing_origins import Origins
from app.api.imgprocessing_transforms import CHANGES, transform_of
from app.api.services import Services
from app.db.history import OutputRow
from app.domain.spec import ImageFormat, Operation
from app.domain.transform import Import
from app.errors import (
    BodyTooLarge,
    DarkroomError,
    FieldProblem,
    Gone,
    InvalidFields,
    JobFailed,
    NotOffered,
    TooLarge,
    UnknownModel,
    UnknownOutput,
    UnsupportedMedia,
)
from app.wish import Upload, Wish

OPERATIONS: Final = imgprocessing_operations.OPERATIONS
SIDE: Final = 1024
"""Width and height of what imagine draws."""
_IMAGE: Final = f"{PATH}/<image:shown>"
_BYTES_OF_A_PLACE: Final = 8 * 1024 * 1024
"""Bytes of images to be changed that count for one body: one image can have 48 MB, and a change takes six."""
_NOT_OFFERED: Final = ("classify", "visualize", "extract-formatted-text")
_KINDS: Final = "https://docs.img-processing.com/errors/"
"""How its errors' types begin: clients know not-found by its URL."""
_PHRASES: Final = {413: "Payload Too Large", 422: "Unprocessable Entity"}
"""Where the standard library's words change with its version."""


class _Ids(BaseConverter):
    """Takes what looks like an image's id, so that /v1/images/generate stays another API's."""

    regex = r"image_[^/]*"


def blueprint(services: Services) -> Blueprint:
    """Give the endpoints of images, bound to a web process's services."""
    made = Blueprint("imgprocessing", __name__)
    origins = Origins(services.settings)

    def serve(method: str, path: str, view: Callable[..., Response], *given: Any) -> None:
        name = f"{method} {path}"
        made.add_url_rule(path, name, partial(view, *given, services), methods=[method])

    @made.record_once
    def teach(state: BlueprintSetupState) -> None:
        state.app.url_map.converters["image"] = _Ids

    @made.before_request
    def authenticate() -> None:
        services.enter(bearer=False)

    # Elsewhere of a failure of ours only the kind is told; a job's reason is its owner's to read.
    made.register_error_handler(JobFailed, present_error)
    serve("POST", PATH, _create, origins)
    serve("GET", PATH, _list)
    serve("POST", f"{PATH}/imagine", _imagine)
    serve("POST", f"{PATH}/upload", _upload)
    serve("GET", _IMAGE, _show)
    serve("DELETE", _IMAGE, _delete)
    serve("GET", f"{_IMAGE}/download", _download)
    serve("POST", f"{_IMAGE}/publish", _switch, retention.publish)
    serve("POST", f"{_IMAGE}/unpublish", _switch, retention.unpublish)
    for kind in CHANGES:
        serve("POST", f"{_IMAGE}/{kind}", _change, kind)
    for kind in _NOT_OFFERED:
        serve("POST", f"{_IMAGE}/{kind}", _refuse, kind)
    return made


def owns(path: str) -> bool:
    """Whether errors at this address are told in this API's shape."""
    return path in {PATH, f"{PATH}/imagine", f"{PATH}/upload"} or path.startswith(f"{PATH}/image_")


def present_error(error: DarkroomError) -> Response:
    """Give any error in this API's shape: that of its first client, and of RFC 9457 which came after."""
    phrase = _PHRASES.get(error.http_status) or HTTPStatus(error.http_status).phrase
    problems = error.problems if isinstance(error, InvalidFields) else ()
    body = Problem(
        type=_KINDS + phrase.lower().replace(" ", "-"),
        error=phrase,
        title=phrase,
        status=error.http_status,
        message=error.message,
        errors=[f"{problem.field}: {problem.message}" for problem in problems] or None,
    )
    answer = http.json_response(body.shown(), error.http_status)
    answer.mimetype = Problem.media_type
    return answer


def _imagine(services: Services) -> Response:
    wished = http.parse(ImagineRequest, _read(services))
    wish = Wish(
        operation=Operation.TEXT_TO_IMAGE,
        model=wished.model,
        prompt=wished.prompt,
        negative_prompt=wished.negative_prompt,
        width=SIDE,
        height=SIDE,
        seed=wished.seed,
        num_images=1,
        output_format=ImageFormat.JPEG,
        # What the chosen model cannot do can only be helped by another model.
        fields=dict.fromkeys(("model", "width", "height", "num_images"), "model"),
        terms=imgprocessing_making.terms(services.settings, name=wished.name),
    )
    once = imgprocessing_making.once_for("imagine", [wished.model_dump_json().encode()])
    try:
        return _made(imgprocessing_making.make(services, lambda: wish, once), services)
    except UnknownModel:
        message = f"{wished.model!r} is not in this installation's catalogue; leave it out for the default"
        raise InvalidFields(FieldProblem(field="model", message=message)) from None


def _create(origins: Origins, services: Services) -> Response:
    wished = http.parse(CreateRequest, _read(services))
    base_url = http.base_url(services.settings)
    with services.bodies.reading(http.caller().account_id):  # it may look a name up
        origins.refuse_others(wished.url, base_url=base_url)

    def wish() -> Wish:
        try:
            found = services.sources.named(
                wished.url, field="url", base_url=base_url, accepted=imaging.FORMATS
            )
        except (UnsupportedMedia, TooLarge) as error:
            message = error.message.removeprefix("url: ")
            raise InvalidFields(FieldProblem(field="url", message=message)) from error
        return _wish_to_import(found, wished.name, services)

    once = imgprocessing_making.once_for("create", [wished.model_dump_json().encode()])
    return _made(imgprocessing_making.make(services, wish, once), services)


def _upload(services: Services) -> Response:
    with services.bodies.reading(http.caller().account_id):
        texts, files = http.read_form(request, limit=services.settings.max_upload_bytes)
    problems = http.misplaced(UploadRequest, texts, files, uploads=("image",))
    if "image" not in files and not texts.get("image"):
        problems.append(FieldProblem(field="image", message="is required, as a JPEG, PNG or WebP file"))
    wished = http.parse(UploadRequest, texts, besides=problems)
    data = files["image"]
    if len(data) > MAX_FILE:
        raise BodyTooLarge(f"image: the file has {len(data):,} bytes, and at most {MAX_FILE:,} are taken.")
    found = services.sources.uploaded(data, field="image", accepted=imaging.FORMATS)
    once = imgprocessing_making.once_for("upload", [wished.model_dump_json().encode(), data])
    wishes = [_wish_to_import(found, wished.name, services)]
    del files, data, found  # whoever waits holds no image, which may have 20 MB
    return _made(imgprocessing_making.make(services, wishes.pop, once), services)


def _wish_to_import(found: Upload, name: str, services: Services) -> Wish:
    """Encoded anew, so that nothing but pixels of a stranger's file is ever served."""
    return Wish(
        operation=Operation.IMPORT,
        transform=Import(),
        image=found,
        fields={"image": found.field},
        terms=imgprocessing_making.terms(services.settings, name=name),
    )


def _change(kind: str, services: Services, shown: str) -> Response:
    content = _read(services)
    source = imgprocessing_library.find(shown, services)
    wished = http.parse(CHANGES[kind], content)
    transform = transform_of(wished)
    marks = _marks_of(wished, services)

    def wish() -> Wish:
        return Wish(
            operation=Operation(transform.operation),
            transform=transform,
            quality=getattr(wished, "quality", None),
            image=services.sources.output(source, field="id"),
            watermarks=tuple(services.sources.output(mark, field=field) for field, mark in marks),
            fields={"image": "id"},
            terms=imgprocessing_making.terms(services.settings, name=wished.name or source.name or ""),
        )

    once = imgprocessing_making.once_for(kind, [shown.encode(), wished.model_dump_json().encode()])
    size = source.size + sum(mark.size for _, mark in marks)
    row = imgprocessing_making.make(services, wish, once, places=size // _BYTES_OF_A_PLACE)
    return _made(row, services)


def _marks_of(wished: ChangeRequest, services: Services) -> list[tuple[str, OutputRow]]:
    """The images to be laid on, each with the name of the field that names it."""
    if not isinstance(wished, WatermarkRequest):
        return []
    found, problems = [], []
    for number, mark in enumerate(wished.watermarks):
        field = f"watermarks.{number}.id"
        try:
            found.append((field, imgprocessing_library.find(mark.id, services)))
        except UnknownOutput:
            problems.append(FieldProblem(field=field, message="is not the id of an image of yours"))
    if problems:
        raise InvalidFields(*problems)
    return found


def _list(services: Services) -> Response:
    given = {name: text for name, text in request.args.items() if text}
    page = imgprocessing_library.page(http.parse(ListQuery, given), services)
    return http.json_response(page.model_dump(mode="json"))


def _show(services: Services, shown: str) -> Response:
    row = imgprocessing_library.find(shown, services)
    return http.json_response(_image(row, services))


def _delete(services: Services, shown: str) -> Response:
    _with_image(retention.discard, shown, services)
    answer = Response(status=HTTPStatus.NO_CONTENT)
    del answer.headers["Content-Type"]
    return answer


def _download(services: Services, shown: str) -> Response:
    return imgprocessing_library.download(shown, services)


def _switch(change: Callable[..., OutputRow], services: Services, shown: str) -> Response:
    """Publish or unpublish; a body may be left out, and says nothing."""
    _read(services)
    return _made(_with_image(change, shown, services), services)


def _with_image(change: Callable[..., OutputRow], shown: str, services: Services) -> OutputRow:
    row = imgprocessing_library.find(shown, services)
    try:
        return change(services.database, row.id, account_id=http.caller().account_id)
    except (Gone, UnknownOutput):
        raise unknown(shown) from None


def _refuse(kind: str, services: Services, shown: str) -> Response:
    imgprocessing_library.find(shown, services)
    raise NotOffered(f"Darkroom does not offer {kind}: it has no model that reads images.")


def _read(services: Services) -> dict[str, Any]:
    """Give the members of the body; without a body and a Content-Type: application/json there are none."""
    sent = request.content_length or "Transfer-Encoding" in request.headers
    if not request.is_json and not sent:
        return {}
    with services.bodies.reading(http.caller().account_id):
        return http.read_json(request, limit=services.settings.max_json_bytes)


def _made(row: OutputRow, services: Services) -> Response:
    answer = http.json_response(_image(row, services), HTTPStatus.CREATED)
    if not http.caller().test:
        answer.headers["X-Image-Processing-Usage"] = "1"
    return answer


def _image(row: OutputRow, services: Services) -> dict[str, Any]:
    [image] = imgprocessing_library.present([row], services)
    return image.model_dump(mode="json")
