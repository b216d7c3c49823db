"""ModelsLab's realtime API, answered in its own words: text2img, img2img, inpaint, fetch and what is around.

The seed's page is the contract, and where it is silent the vendor's other pages and clients: HTTP 200 also
for what is queued or has failed, integer ids, links that are exact before the images exist. The key may
stand in the body; it is taken out before anything else looks at the rest.
"""

from functools import partial
from typing import Any, Final
from uuid import UUID

from flask import Blueprint, Response, request

from app.api import http
from app.api.modelslab_answers import Presenter, present_error, shown
from app.api.modelslab_entry import enter, generation_limit
from app.api.modelslab_families import ENTERPRISE, ENTERPRISE_ROOT, FAMILIES, ROOT, VERBS, Family, Verb
from app.api.modelslab_models import (
    BucketAnswer,
    BucketDetails,
    BucketReset,
    FetchBody,
    SystemDetails,
)
from app.api.modelslab_operations import MODELS, OPERATIONS, REFUSED
from app.api.modelslab_wishes import Wishes
from app.api.services import Services
from app.buckets import Buckets, DeployType
from app.db import door, history
from app.db.door import Once
from app.errors import Busy, IdempotencyMismatch, NotOffered, SetupError, UnknownJob, UnknownModel

__all__ = ["OPERATIONS", "blueprint", "owns", "present_error"]

_UNKNOWN_ID: Final = "No request of yours has this id."
_LONGEST_ID: Final = 18
"""Digits; every number of that length is a bigint."""


def blueprint(services: Services) -> Blueprint:
    """Give the endpoints, bound to a web process's services.

    Raises:
        SetupError: DARKROOM_MODELSLAB_MODEL names no model of the catalogue.
    """
    _check_model(services)
    made = Blueprint("modelslab", __name__)
    buckets = Buckets(services.settings, services.database)
    wishes = Wishes(services, buckets)

    def post(path: str, name: str, view: Any) -> None:
        made.add_url_rule(path, name, view, methods=["POST"])

    for family in FAMILIES:
        for verb in VERBS:
            view = partial(_generate, verb, family, services, wishes)
            post(f"{family.prefix}{verb}", f"{family.name}_{verb}", view)
        fetch, named = partial(_fetch_named, family, services), partial(_fetch, family, services)
        post(f"{family.prefix}fetch/<request_id>", f"{family.name}_fetch", fetch)
        post(f"{family.prefix}fetch", f"{family.name}_fetch_named", named)
        details = partial(_system_details, services)
        post(f"{family.prefix}system_details", f"{family.name}_system_details", details)
    for verb_refused in REFUSED:
        post(f"{ENTERPRISE.prefix}{verb_refused}", verb_refused, partial(_refuse, verb_refused, services))
    post(f"{ENTERPRISE_ROOT}fetch", "enterprise_root_fetch", partial(_fetch, ENTERPRISE, services))
    post(f"{ENTERPRISE_ROOT}update_s3", "update_s3", partial(_update_s3, services, buckets))
    post(f"{ENTERPRISE_ROOT}reset_s3", "reset_s3", partial(_reset_s3, services, buckets))
    if services.settings.modelslab_always_200:
        made.after_app_request(_with_status_200)
    return made


def owns(path: str) -> bool:
    """Whether errors at this address are told in this API's shape: below /api/, where nobody else has one."""
    return path.startswith(ROOT)


def _check_model(services: Services) -> None:
    name = services.settings.modelslab_model
    try:
        if name is not None:
            services.intake.catalog.find(name)
    except UnknownModel as error:
        raise SetupError(f"DARKROOM_MODELSLAB_MODEL: {error.message}") from None


def _with_status_200(answer: Response) -> Response:
    if owns(request.path):
        answer.status_code = 200
    return answer


def _generate(verb: Verb, family: Family, services: Services, wishes: Wishes) -> Response:
    job_id, waits = _accept(verb, family, services, wishes)
    if waits:
        _wait(job_id, services)
    job = services.intake.find(job_id, account_id=http.caller().account_id)
    return shown(Presenter(family, services).direct(job))


def _accept(verb: Verb, family: Family, services: Services, wishes: Wishes) -> tuple[UUID, bool]:
    """Give the request's job, and whether it wants to wait for it; all that the body held is let go."""
    wished = http.parse(MODELS[verb], enter(services, limit=generation_limit(services.settings)))
    parts = [wished.model_dump_json().encode()]
    once = http.read_once(request, endpoint=f"modelslab {family.name} {verb}", parts=parts)
    job_id = _first_use(once, services)
    if job_id is None:
        with services.bodies.reading(http.caller().account_id, places=wished.addresses):
            wish = wishes.of(wished, VERBS[verb], family)
        job_id = wishes.submit(wish, once)
    return job_id, not wished.instant_response


def _first_use(once: Once | None, services: Services) -> UUID | None:
    """The job of an earlier request with this Idempotency-Key: found before any image is fetched again."""
    if once is None:
        return None
    account_id = http.caller().account_id
    with services.database.raw() as connection:
        first = door.first_use(connection, account_id=account_id, endpoint=once.endpoint, key=once.key)
    if first is not None and first.request_sha256 != once.request_sha256:
        raise IdempotencyMismatch
    return None if first is None else first.id


def _wait(job_id: UUID, services: Services) -> None:
    """Wait for the images, unless as many requests wait as may: then this one is told `processing`."""
    if not services.settings.sync_wait:
        return
    try:
        with services.waits.place(http.caller().account_id):
            services.waits.until_ended(job_id, timeout=services.settings.sync_wait)
    except Busy:
        return


def _fetch_named(family: Family, services: Services, request_id: str) -> Response:
    enter(services)
    if not (request_id.isascii() and request_id.isdigit() and len(request_id) <= _LONGEST_ID):
        raise UnknownJob(_UNKNOWN_ID)
    return _fetched(int(request_id), family, services)


def _fetch(family: Family, services: Services) -> Response:
    wished = http.parse(FetchBody, enter(services))
    if not 0 < wished.request_id < 10**_LONGEST_ID:
        raise UnknownJob(_UNKNOWN_ID)
    return _fetched(wished.request_id, family, services)


def _fetched(number: int, family: Family, services: Services) -> Response:
    with services.database.autocommit() as tx:
        job = history.find_by_number(tx, number, account_id=http.caller().account_id)
    if job is None:
        raise UnknownJob(_UNKNOWN_ID)
    return shown(Presenter(family, services).fetched(job))


def _system_details(services: Services) -> Response:
    enter(services)
    _, seconds = services.intake.forecast.waiting()
    models = len(services.intake.catalog.models)
    return shown(SystemDetails(model_count=models, queue_time=round(seconds), status="ok"))


def _refuse(verb: str, services: Services) -> Response:
    enter(services)
    raise NotOffered(REFUSED[verb])


def _update_s3(services: Services, buckets: Buckets) -> Response:
    details = http.parse(BucketDetails, enter(services))
    buckets.set_bucket(http.caller().account_id, details)
    return _bucket_answer("S3 details updated", details.deploy_type)


def _reset_s3(services: Services, buckets: Buckets) -> Response:
    wished = http.parse(BucketReset, enter(services))
    if buckets.reset_bucket(http.caller().account_id, wished.deploy_type):
        return _bucket_answer("S3 details reset", wished.deploy_type)
    tip = f"There were none for deploy_type {wished.deploy_type}."
    return shown(BucketAnswer(status="success", message="S3 details reset", tip=tip))


def _bucket_answer(message: str, deploy_type: DeployType) -> Response:
    if deploy_type is DeployType.REALTIME:
        return shown(BucketAnswer(status="success", message=message))
    tip = f"These are the details of {deploy_type}; the images of this API use those of deploy_type realtime."
    return shown(BucketAnswer(status="success", message=message, tip=tip))
