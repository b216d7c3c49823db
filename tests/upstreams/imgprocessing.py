"""IMG Processing, as its pages and first SDK describe it: no jobs, every answer is an image object."""

from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from tests.upstreams import pictures
from tests.upstreams.house import FILES, House, Job, Order, Refused, Vendor, token
from tests.upstreams.moods import Kind, Mood, Trouble
from tests.upstreams.wire import Answer, Request, Unreadable, Upload

SIDE: Final = 1024
"""What imagine draws: 1024 × 1024, JPEG."""
_ID: Final = "image_"


class ImgProcessing(Vendor):
    """One account of it, live stage."""

    troubles = {  # noqa: RUF012  # a constant of the class
        Trouble.BAD_KEY: (401, "Unauthorized", "The API key is missing or invalid."),
        Trouble.NO_CREDIT: (402, "Payment Required", "The account has no images left this month."),
        Trouble.NO_MODEL: (400, "Bad Request", "model must be one of: sdxl, flux."),
        Trouble.TOO_MANY: (429, "Too Many Requests", "Rate limit of 100 requests per minute exceeded."),
        Trouble.CONTENT: (400, "Bad Request", "The prompt was flagged by our content filter."),
        Trouble.BROKEN: (500, "Internal Server Error", "Something went wrong."),
        Trouble.AWAY: (503, "Service Unavailable", "The service is unavailable."),
    }

    def __init__(self, house: House, *, key: str) -> None:
        super().__init__(house, key=key)
        self._newest_first: list[Job] = []

    def kind_of(self, request: Request) -> Kind:
        parts = request.path.split("/")[1:]
        match request.method, parts:
            case _, ["files", *_]:
                return Kind.DOWNLOAD
            case "GET", ["v1", "images", _, "download"]:
                return Kind.DOWNLOAD
            case "POST", ["v1", "images", "imagine"]:
                return Kind.SUBMIT
            case "GET", ["v1", "images"] | ["v1", "images", _]:
                return Kind.POLL
        return Kind.OTHER

    def answer(self, request: Request, mood: Mood | None) -> Answer:
        if request.headers.get("x-api-key") != self.key:
            raise Refused(self.refuse(Trouble.BAD_KEY))
        match request.method, request.path.split("/")[1:]:
            case "POST", ["v1", "images", *rest]:
                return self._post(request, rest, mood)
            case "GET", ["v1", "images", *rest]:
                return self._get(request, rest)
            case "DELETE", ["v1", "images", id_]:
                return self._delete(self._find(id_))
        raise self._nothing(request)

    def _post(self, request: Request, rest: list[str], mood: Mood | None) -> Answer:
        match rest:
            case ["imagine"]:
                return self._imagine(request, mood)
            case ["upload"]:
                return self._upload(request)
            case []:
                raise self._wrong("url must be of an allowed origin.", "url")
            case [id_, "publish" | "unpublish" as verb]:
                return self._publish(request, self._find(id_), public=verb == "publish")
        raise self._nothing(request)

    def _get(self, request: Request, rest: list[str]) -> Answer:
        match rest:
            case []:
                return self._list(request)
            case [id_]:
                return Answer.json(self._object(self._find(id_)))
            case [id_, "download"]:
                data, content_type = self._find(id_).images[0]
                return Answer(headers={"Content-Type": content_type}, body=data)
        raise self._nothing(request)

    def _nothing(self, request: Request) -> Refused:
        return Refused(self.error(404, "Not Found", f"Cannot {request.method} {request.path}"))

    def error(self, status: int, code: str, message: str, *, field: str | None = None) -> Answer:
        body: dict[str, Any] = {
            "type": f"https://docs.img-processing.com/errors/{code.lower().replace(' ', '-')}",
            "error": code,
            "status": status,
            "message": message,
        }
        if field:
            body["errors"] = [f"{field}: {message}"]
        return Answer.json(body, status)

    def _imagine(self, request: Request, mood: Mood | None) -> Answer:
        try:
            body = request.json()
        except Unreadable:
            raise self._wrong("The body is no JSON.") from None
        if not isinstance(body, dict):
            raise self._wrong("The body is no JSON object.")
        for name, most, required in (
            ("name", 30, True),
            ("prompt", 1000, True),
            ("negative_prompt", 1000, False),
        ):
            value = body.get(name)
            if (value is not None or required) and not (isinstance(value, str) and 1 <= len(value) <= most):
                raise self._wrong(f"{name} must have 1 to {most} characters.", name)
        seed = body.get("seed")
        if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or seed < 0):
            raise self._wrong("seed must be a whole number from 0.", "seed")
        if body.get("model", "sdxl") not in {"sdxl", "flux"}:
            raise self._wrong("model must be one of: sdxl, flux.", "model")
        order = Order(prompt=body["prompt"], width=SIDE, height=SIDE, seed=seed, form="jpeg")
        job = self.house.take(order, request, mood, id_=_ID + token(), stem=token())
        return self._created(job, body["name"])

    def _created(self, job: Job, name: str) -> Answer:
        job.extra["name"] = name
        with self.house.lock:
            if job.images:
                self._newest_first.insert(0, job)
        usage = {"X-Image-Processing-Usage": "1"}
        if job.has("too_few_pictures"):
            return Answer.json({}, 201, usage)
        if job.has("too_many_pictures"):
            return Answer.json([self._object(job), self._object(job)], 201, usage)
        return Answer.json(self._object(job), 201, usage)

    def _upload(self, request: Request) -> Answer:
        try:
            form = {name: values[-1] for name, values in request.form().items()}
        except Unreadable as error:
            raise self._wrong(str(error)) from None
        file, name = form.get("image"), form.get("name")
        if not isinstance(file, Upload) or len(file.data) > 20 * 2**20:
            raise self._wrong("image must be a file of at most 20 MB.", "image")
        if not isinstance(name, str) or not 1 <= len(name) <= 30:
            raise self._wrong("name must have 1 to 30 characters.", "name")
        try:
            image = pictures.decode(file.data)
        except ValueError:
            raise self._wrong("image must be JPEG, PNG or WebP.", "image") from None
        form_name = (image.format or "png").lower()
        order = Order(prompt="", width=image.width, height=image.height, form=form_name)
        job = Job(id=_ID + token(), order=order, seed=0, created=datetime.now(UTC), mood=None)
        job.names, job.images = [f"{token()}.{form_name}"], [(file.data, f"image/{form_name}")]
        with self.house.lock:
            self.house.jobs[job.id] = job
        return self._created(job, name)

    def _list(self, request: Request) -> Answer:
        take = request.query.get("take", "10")
        if not take.isdecimal() or not 1 <= int(take) <= 100:
            raise self._wrong("take must be a whole number from 1 to 100.", "take")
        with self.house.lock:
            images = list(self._newest_first)
        start = 0
        if "from" in request.query:
            found = [index for index, it in enumerate(images) if it.id == request.query["from"]]
            if not found:
                raise self._wrong("from is no image of yours.", "from")
            start = found[0]
        end, before = start + int(take), max(start - int(take), 0)
        links = {
            "previous": self._link(take, images[before].id) if start else None,
            "next": self._link(take, images[end].id) if end < len(images) else None,
        }
        return Answer.json({"data": [self._object(it) for it in images[start:end]], "links": links})

    def _link(self, take: str, start: str) -> str:
        return f"{self.house.base_url}/v1/images?{urlencode({'take': take, 'from': start})}"

    def _publish(self, request: Request, job: Job, *, public: bool) -> Answer:
        if not request.raw and "json" in request.headers.get("content-type", ""):
            raise self._wrong("Body cannot be empty when content-type is set to 'application/json'.")
        with self.house.lock:
            job.extra["public"] = public
            for name in job.names:
                self.house.files.pop(name, None)
                if public:
                    self.house.files[name] = job
        return Answer.json(self._object(job), 201)

    def _delete(self, job: Job) -> Answer:
        with self.house.lock:
            self.house.jobs.pop(job.id, None)
            self._newest_first.remove(job)
            for name in job.names:
                self.house.files.pop(name, None)
        with self.house.ledger.lock:
            self.house.ledger.deleted.append(job.id)
        return Answer(status=204)

    def _find(self, id_: str) -> Job:
        with self.house.lock:
            job = self.house.jobs.get(id_)
        if job is None:
            raise Refused(self.error(404, "Not Found", f"Image with id {id_} not found."))
        return job

    def _object(self, job: Job) -> dict[str, Any]:
        body: dict[str, Any] = {
            "id": job.id,
            "name": job.extra["name"],
            "url": f"{self.house.base_url}{FILES}{job.names[0]}" if job.extra.get("public") else None,
            "width": job.order.width,
            "height": job.order.height,
            "format": job.order.form,
            "size": len(job.images[0][0]) if job.images else 0,
            "created_at": job.created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        if job.has("odd_types"):
            body |= {"width": f"{job.order.width}", "height": float(job.order.height), "size": None}
            body |= {"surprise": {"a": [[1.5]]}, "format": "JPEG"}
        return body

    def _wrong(self, message: str, field: str | None = None) -> Refused:
        return self.bad(message, field=field, code="Bad Request")
