"""Realm AI Images, as its pages describe it: every order is a job, every poll is a 200.

Its pages leave out the bodies of polls, lists and errors; there this follows the contract's proposal.
"""

import itertools
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from PIL import Image

from tests.upstreams import pictures
from tests.upstreams.house import FILES, House, Job, Order, Refused, Vendor, token
from tests.upstreams.moods import Kind, Mood, Trouble
from tests.upstreams.wire import Answer, Request, Unreadable, Upload

MODELS: Final = {"mod_landscape": (96, 64), "mod_portrait": (64, 96)}
"""Its models, each with the size it prefers."""
_LIMIT: Final = 1000


class Realm(Vendor):
    """One account of it."""

    troubles = {  # noqa: RUF012  # a constant of the class
        Trouble.BAD_KEY: (401, "UNAUTHORIZED", "The API key is missing or invalid."),
        Trouble.NO_CREDIT: (402, "INSUFFICIENT_CREDITS", "The account has no credits left."),
        Trouble.NO_MODEL: (404, "MODEL_NOT_FOUND", "There is no such model."),
        Trouble.TOO_MANY: (429, "RATE_LIMITED", "Too many requests."),
        Trouble.BROKEN: (500, "INTERNAL_ERROR", "Something went wrong."),
        Trouble.AWAY: (503, "UNAVAILABLE", "The service is unavailable."),
    }

    def __init__(self, house: House, *, key: str) -> None:
        super().__init__(house, key=key)
        self._asked = itertools.count(1)

    def kind_of(self, request: Request) -> Kind:
        if request.path.startswith(FILES):
            return Kind.DOWNLOAD
        if request.path in {"/v1/images/generate", "/v1/images/modify"}:
            return Kind.SUBMIT
        return Kind.POLL if request.path.startswith("/v1/images/jobs/") else Kind.OTHER

    def answer(self, request: Request, mood: Mood | None) -> Answer:
        if request.headers.get("x-api-key") != self.key:
            raise Refused(self.refuse(Trouble.BAD_KEY))
        match request.method, request.path.split("/")[1:]:
            case "POST", ["v1", "images", "generate"]:
                return self._accepted(self.house.take(self._generate(request), request, mood, **_names()))
            case "POST", ["v1", "images", "modify"]:
                return self._accepted(self.house.take(self._modify(request), request, mood, **_names()))
            case "GET", ["v1", "images", "jobs", id_]:
                return self._job(id_)
            case "GET", ["v1", "models"]:
                return Answer.json({"data": [_model(name) for name in MODELS], "total": len(MODELS)})
            case "GET", ["v1", "models", name] if name in MODELS:
                return Answer.json(_model(name))
        return self.error(404, "NOT_FOUND", "There is nothing here.")

    def error(self, status: int, code: str, message: str, *, field: str | None = None) -> Answer:
        details = [{"field": field, "message": message}] if field else []
        return Answer.json({"error": {"code": code, "message": message, "details": details}}, status)

    def dress(self, answer: Answer) -> Answer:
        left = 0 if answer.status == 429 else max(_LIMIT - next(self._asked), 1)
        return answer.having(
            X_RateLimit_Limit=str(_LIMIT),
            X_RateLimit_Remaining=str(left),
            X_RateLimit_Reset=str(int(time.time()) + 1),
        )

    def _generate(self, request: Request) -> Order:
        try:
            body = request.json()
        except Unreadable:
            raise self._wrong("The body is no JSON.") from None
        if not isinstance(body, dict):
            raise self._wrong("The body is no JSON object.")
        self._check(body, as_text=False)
        width, height = MODELS[body["modelId"]]
        return Order(
            prompt=body["prompt"],
            width=int(self._number(body, "width", width, least=1, most=4096)),
            height=int(self._number(body, "height", height, least=1, most=4096)),
            count=int(self._number(body, "numOutputs", 1, least=1, most=4)),
        )

    def _modify(self, request: Request) -> Order:
        try:
            form = {name: values[-1] for name, values in request.form().items()}
        except Unreadable as error:
            raise self._wrong(str(error)) from None
        self._check(form, as_text=True)
        image = self._image(form, "image")
        mask = self._image(form, "mask").convert("L") if "mask" in form else None
        return Order(
            prompt=str(form["prompt"]),
            width=image.width,
            height=image.height,
            count=int(self._number(form, "numOutputs", 1, least=1, most=4, as_text=True)),
            image=image,
            mask=mask,
            strength=self._number(form, "strength", 0.8, least=0, most=1, as_text=True),
        )

    def _check(self, body: dict[str, Any], *, as_text: bool) -> None:
        for name in ("modelId", "prompt"):
            if not isinstance(body.get(name), str) or not body[name]:
                raise self._wrong(f"{name} is required.", name)
        if body["modelId"] not in MODELS:
            raise Refused(self.refuse(Trouble.NO_MODEL))
        if not isinstance(body.get("negativePrompt", ""), str):
            raise self._wrong("negativePrompt must be a string.", "negativePrompt")
        self._number(body, "guidanceScale", 7.5, least=0, most=100, as_text=as_text)

    def _image(self, form: dict[str, Any], name: str) -> Image.Image:
        if not isinstance(file := form.get(name), Upload):
            raise self._wrong(f"{name} must be a file.", name)
        if file.content_type not in {"image/png", "image/jpeg"}:
            message = f"{name} must be JPEG or PNG, not {file.content_type}."
            raise Refused(self.error(415, "UNSUPPORTED_MEDIA_TYPE", message, field=name))
        try:
            return pictures.decode(file.data)
        except ValueError:
            raise self._wrong(f"{name} is no image.", name) from None

    def _number(
        self,
        body: dict[str, Any],
        name: str,
        default: float,
        *,
        least: float,
        most: float,
        as_text: bool = False,
    ) -> float:
        value = body.get(name, default)
        try:
            number = float(value) if as_text else value
            fits = not isinstance(number, bool | str) and least <= number <= most
            fits = fits and (name in {"strength", "guidanceScale"} or number == int(number))
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise self._wrong(f"{name} must be a number from {least:g} to {most:g}.", name)
        return float(number)

    def _wrong(self, message: str, field: str | None = None) -> Refused:
        return self.bad(message, field=field, code="INVALID_REQUEST")

    def _accepted(self, job: Job) -> Answer:
        body = {"jobId": job.id, "status": "queued", "estimatedCompletion": _soon(job)}
        return Answer.json(_odd(job, body), 202)

    def _job(self, id_: str) -> Answer:
        job, state = self.house.poll(id_)
        if job is None:
            return self.error(404, "JOB_NOT_FOUND", "There is no such job.")
        body: dict[str, Any] = {"jobId": job.id, "status": "processing", "createdAt": _iso(job.created)}
        if state == "processing":
            word = "queued" if job.polls == 1 else "processing"
            return Answer.json(
                _odd(job, body | {"status": word, "estimatedCompletion": _soon(job), "progress": 0.25})
            )
        body["completedAt"] = _iso(datetime.now(UTC))
        if state == "failed" or job.has("unsafe"):
            code = "CONTENT_POLICY_VIOLATION" if job.has("unsafe") else "GENERATION_FAILED"
            body |= {"status": "failed", "errorCode": code, "errorMessage": "The images could not be made."}
            return Answer.json(body)
        changed = job.order.image is not None
        body |= {"status": "completed", "jobType": "image_modification" if changed else "image_generation"}
        body["results"] = [
            {
                "imageId": f"img_{name.partition('.')[0]}",
                "url": url,
                "seed": job.seed,
                "width": job.order.width,
                "height": job.order.height,
            }
            for name, url in zip(job.names, self.house.urls(job), strict=True)
        ]
        return Answer.json(_odd(job, body))


def _names() -> dict[str, Any]:
    return {"id_": f"job_img_gen_{token(length=12)}", "stem": token(length=16)}


def _model(name: str) -> dict[str, Any]:
    return {
        "modelId": name,
        "name": name.removeprefix("mod_"),
        "description": "",
        "status": "active",
        "createdAt": "2026-01-01T00:00:00.000Z",
        "tags": [],
    }


def _odd(job: Job, body: dict[str, Any]) -> dict[str, Any]:
    if not job.has("odd_types"):
        return body
    for result in body.get("results", []):
        result |= {"seed": str(job.seed), "width": float(result["width"]), "nsfw": None}
    return body | {"progress": "1", "estimatedCompletion": None, "surprise": {"a": [[1.5]]}}


def _soon(job: Job) -> str:
    return _iso(job.created + timedelta(seconds=1 if job.polls_left else 0.1))


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
