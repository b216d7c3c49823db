"""ModelsLab realtime, as its documents and clients describe it: HTTP 200 for nearly everything."""

import base64
import json
import uuid
from typing import Any, Final

from PIL import Image

from tests.upstreams import pictures
from tests.upstreams.callbacks import call_back
from tests.upstreams.house import FILES, Job, Order, Refused, Vendor
from tests.upstreams.moods import Kind, Mood, Trouble
from tests.upstreams.wire import Answer, Request, Unreadable

REALTIME: Final = ("/api/v1/enterprise/realtime/", "/api/v6/realtime/")
_OPERATIONS: Final = ("text2img", "img2img", "inpaint")
_FAILED: Final = "Something went wrong while generating."
_TIP: Final = "Get 20x faster image generation using enterprise plan."


class ModelsLab(Vendor):
    """One account of it."""

    troubles = {  # noqa: RUF012  # a constant of the class
        Trouble.BAD_KEY: (401, "", "Invalid API key"),
        Trouble.NO_CREDIT: (402, "", "You have no credits left, please recharge."),
        Trouble.NO_MODEL: (400, "", "Model not found: realtime"),
        Trouble.TOO_MANY: (429, "", "Rate limit exceeded. Maximum 5 queued requests allowed."),
        Trouble.BROKEN: (500, "", "Something went wrong, try again later."),
        Trouble.AWAY: (503, "", "Server is under maintenance."),
    }

    def kind_of(self, request: Request) -> Kind:
        if request.path.startswith(FILES):
            return Kind.DOWNLOAD
        action = _action(request.path)
        if action in _OPERATIONS:
            return Kind.SUBMIT
        return Kind.POLL if action.startswith("fetch") else Kind.OTHER

    def answer(self, request: Request, mood: Mood | None) -> Answer:
        if request.method != "POST":
            raise Refused(self.error(405, "", "The GET method is not supported for this route."))
        try:
            body = request.json()
        except Unreadable:
            raise self.bad("Invalid JSON") from None
        if not isinstance(body, dict):
            raise self.bad("Invalid JSON")
        if (key := body.get("key") or request.headers.get("key")) != self.key:
            raise Refused(self.refuse(Trouble.BAD_KEY) if key else self.error(401, "", "API key required"))
        action = _action(request.path)
        if action in _OPERATIONS:
            return self._submit(request, body, action, mood)
        if action == "fetch" or action.startswith("fetch/"):
            return self._fetch(str(body.get("request_id", "")) if action == "fetch" else action[6:])
        return self._else(request, body, action)

    def error(self, status: int, code: str, message: str, *, field: str | None = None) -> Answer:
        del code, field  # it has none
        return Answer.json({"status": "error", "message": message}, status)

    def limited(self, mood: str, seconds: float) -> Answer:
        answer = super().limited(mood, seconds)
        if mood != "retry_after_absent":
            return answer
        return Answer.json({**json.loads(answer.body), "retry_after": max(round(seconds), 1)}, 429)

    def own_error(self, mood: str) -> Answer:
        sentence = "The init image could not be processed, try another one."
        match mood:
            case "field_errors_in_200":
                message = {
                    "init_image": ["The init image field is required."],
                    "prompt": ["Too short.", "Bad."],
                }
                return Answer.json({"status": "error", "message": message})
            case "messege_in_200":
                return Answer.json({"status": "error", "messege": sentence})
        return Answer.json({"status": "error", "code": "provider_error", "message": sentence})

    def _submit(self, request: Request, body: dict[str, Any], action: str, mood: Mood | None) -> Answer:
        order = self._order(body, action)
        if self.house.queue_limit is not None and self.house.unfinished() >= self.house.queue_limit:
            raise Refused(self.limited("retry_after_absent", 30))
        prefix = str(uuid.uuid4())
        job = self.house.take(order, request, mood, id_=str(self.house.number()), stem=prefix)
        job.extra |= {"prefix": prefix, "body": body, "path": request.path}
        if job.has("unsafe"):
            blank = pictures.encode(Image.new("RGB", (order.width, order.height)), "png")
            job.images = [(blank, "image/png") for _ in job.images]
        if _flag(body.get("base64")):
            self._as_text(job)
        if job.ready:
            self._call_back(job)
        if _flag(body.get("instant_response")) or job.polls_left or _waits(job):
            return self._processing(job)
        done = {
            "status": "success",
            "generationTime": 1.0625,
            "id": int(job.id),
            "output": self.house.urls(job),
        }
        return self._answer(job, done | self._flagged(job) | {"meta": self._meta(job)})

    def _order(self, body: dict[str, Any], action: str) -> Order:
        if not body.get("prompt"):
            raise self.bad("The prompt field is required.")
        image = mask = None
        if action != "text2img":
            image = self._image(body, "init_image")
        if action == "inpaint":
            mask = self._image(body, "mask_image").convert("L")
        strength = self._number(body, "strength", default=0.7, least=0, most=1)
        seed = None if body.get("seed") is None else int(self._number(body, "seed", 0, least=0, most=2**63))
        return Order(
            prompt=str(body["prompt"]),
            width=int(self._number(body, "width", 512, least=1, most=1024)),
            height=int(self._number(body, "height", 512, least=1, most=1024)),
            count=int(self._number(body, "samples", 1, least=1, most=4)),
            seed=seed,
            image=image,
            mask=mask,
            strength=strength if image else 1.0,
        )

    def _image(self, body: dict[str, Any], name: str) -> Image.Image:
        if not isinstance(text := body.get(name), str) or not text:
            raise self.bad(f"The {name.replace('_', ' ')} field is required.")
        try:
            return self.house.fetch(text)
        except ValueError:
            raise self.bad("Unable to fetch image from provided URL") from None

    def _number(self, body: dict[str, Any], name: str, default: float, *, least: float, most: float) -> float:
        value = default if body.get(name) is None else body[name]
        try:
            number = float(value) if isinstance(value, str) else value
            fits = not isinstance(number, bool) and least <= number <= most
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise self.bad(f"{name} must be between {least:g} and {most:g}")
        return float(number) if name == "strength" else int(number)

    def _processing(self, job: Job) -> Answer:
        eta = 1.07 if job.has("pending_float_eta") else int(not job.ready)
        path = next(it for it in REALTIME if job.extra["path"].startswith(it))
        return self._answer(
            job,
            {
                "status": "processing",
                "tip": _TIP,
                "eta": eta,
                "message": "Try to fetch request after seconds estimated",
                "fetch_result": f"{self.house.base_url}{path}fetch/{job.id}",
                "id": int(job.id),
                "output": [],
                "meta": self._meta(job),
                "future_links": self.house.urls(job),
            },
        )

    def _fetch(self, id_: str) -> Answer:
        job, state = self.house.poll(id_)
        if job is None:
            return self.error(404, "", "Request not found")
        if state == "processing":
            pending = {"status": "processing", "message": "try again later.", "output": "", "tip": _TIP}
            return self._answer(job, pending)
        if state == "failed":
            self._call_back(job)
            word = "error" if job.has("failed_as_error") else "failed"
            return self._answer(job, {"status": word, "message": _FAILED})
        self._call_back(job)
        done = {"status": "success", "id": int(job.id), "output": self.house.urls(job)}
        return self._answer(job, done | self._flagged(job))

    def _flagged(self, job: Job) -> dict[str, Any]:
        return {"nsfw_content_detected": True} if job.has("unsafe") else {}

    def _meta(self, job: Job) -> dict[str, Any]:
        body, order = job.extra["body"], job.order
        told = {"base64", "temp", "enhance_prompt", "instant_response", "safety_checker"}
        return {
            "file_prefix": job.extra["prefix"],
            "id": job.id,
            "width": order.width,
            "height": order.height,
            "n_samples": order.count,
            "seed": job.seed,
            "prompt": order.prompt,
            "negative_prompt": f"{body.get('negative_prompt') or ''} (((deformed))), blurry",
            "guidance_scale": 1,
            "outdir": "out",
            "safety_checker_type": "black",
            "track_id": body.get("track_id"),
            **{name: "yes" if _flag(body.get(name)) else "no" for name in sorted(told)},
        }

    def _answer(self, job: Job, body: dict[str, Any]) -> Answer:
        if job.has("odd_types"):
            body |= {
                "id": job.id,
                "eta": 0.5,
                "webhook_status": "",
                "tip_1": None,
                "surprise": {"a": [[1.5]]},
            }
            body |= {"generationTime": "1.06"}
        return Answer.json(body)

    def _as_text(self, job: Job) -> None:
        """Make its files texts, as clients of the `base64` member have met them."""
        with self.house.lock:
            for index, name in enumerate(list(job.names)):
                del self.house.files[name]
                job.names[index] = f"{job.extra['prefix']}-{index}.base64"
                self.house.files[job.names[index]] = job
                job.images[index] = (base64.b64encode(job.images[index][0]), "text/plain")

    def _call_back(self, job: Job) -> None:
        """Post to the order's webhook, once in a job's life; a poll that finds it ended does it at last."""
        hook, track = job.extra["body"].get("webhook"), job.extra["body"].get("track_id")
        with self.house.lock:
            if not isinstance(hook, str) or job.extra.get("called"):
                return
            job.extra["called"] = True
        body: dict[str, Any] = {"id": int(job.id), "track_id": track}
        if job.has("failed", "failed_as_error"):
            body |= {"status": "failed", "message": _FAILED}
        else:
            body |= {"status": "success", "output": self.house.urls(job), "generationTime": 1.0625}
            body["meta"] = self._meta(job)
        call_back(hook, body, times=2 if job.has("called_twice") else 1)

    def _else(self, request: Request, body: dict[str, Any], action: str) -> Answer:
        match request.path, action:
            case "/api/v3/delete_image", _:
                with self.house.lock:
                    job = self.house.jobs.pop(str(body.get("request_id")), None)
                if job is None:
                    return self.error(404, "", "Request not found")
                with self.house.ledger.lock:
                    self.house.ledger.deleted.append(job.id)
                return Answer.json({"status": "success", "messege": "image deleted"})
            case "/api/v6/base64_to_url", _:
                return self._upload(str(body.get("base64_string", "")))
            case _, "system_details":
                return Answer.json({"model_count": 0, "queue_time": 0, "status": "ok"})
        return self.error(404, "", "The route could not be found.")

    def _upload(self, text: str) -> Answer:
        try:
            data = pictures.from_text(text)
            form = (pictures.decode(data).format or "png").lower()
        except ValueError:
            raise self.bad("The base64 string is not an image.") from None
        if len(data) > 5 * 2**20:
            raise self.bad("The image is larger than 5 MB.")
        id_ = str(self.house.number())
        return Answer.json(
            {"status": "success", "id": int(id_), "output": [self.house.keep(id_, data, f"image/{form}")]}
        )


def _action(path: str) -> str:
    prefix = next((it for it in REALTIME if path.startswith(it)), None)
    return path.removeprefix(prefix) if prefix else ""


def _waits(job: Job) -> bool:
    return job.has("lost", "failed", "failed_as_error", "flickering")


def _flag(value: Any) -> bool:
    return value in {True, "true", "yes", "1"} if isinstance(value, bool | int | str) else False
