"""OpenAI Images, in two makes: the original's own model and a compatible server's."""

import base64
import re
import time
from typing import Any, Final

from PIL import Image

from tests.upstreams import pictures
from tests.upstreams.house import FILES, Job, Order, Refused, Vendor, token
from tests.upstreams.moods import Kind, Mood, Trouble
from tests.upstreams.wire import Answer, Request, Unreadable, Upload

STRICT: Final = "gpt-image-1"
"""Answers base64 always; refuses what it does not know, also response_format and seed; sizes by 16."""
PLAIN: Final = "painter"
"""A compatible server's: response_format is honoured (default url), seed too, other members are ignored."""
_KNOWN: Final = frozenset(
    {
        *("prompt", "model", "n", "size", "quality", "output_format", "output_compression", "background"),
        *("stream", "partial_images", "user", "safety_identifier", "moderation", "style"),
        *("image", "image[]", "mask", "input_fidelity"),
    }
)


class OpenAI(Vendor):
    """One account of it."""

    troubles = {  # noqa: RUF012  # a constant of the class
        Trouble.BAD_KEY: (401, "invalid_api_key", "Incorrect API key provided."),
        Trouble.NO_CREDIT: (402, "insufficient_credit", "The account has no credit left."),
        Trouble.NO_MODEL: (
            404,
            "model_not_found",
            "The model does not exist or you do not have access to it.",
        ),
        Trouble.TOO_MANY: (429, "rate_limit_exceeded", "Rate limit reached for images per minute."),
        Trouble.CONTENT: (
            400,
            "moderation_blocked",
            "Your request was rejected as a result of our safety system.",
        ),
        Trouble.BROKEN: (500, "", "The server had an error while processing your request."),
        Trouble.AWAY: (503, "", "The engine is currently overloaded, please try again later."),
    }

    def kind_of(self, request: Request) -> Kind:
        if request.path.startswith(FILES):
            return Kind.DOWNLOAD
        return Kind.SUBMIT if request.path in {"/v1/images/generations", "/v1/images/edits"} else Kind.OTHER

    def answer(self, request: Request, mood: Mood | None) -> Answer:
        if request.headers.get("authorization") != f"Bearer {self.key}":
            raise Refused(self.refuse(Trouble.BAD_KEY))
        match request.method, request.path:
            case "POST", "/v1/images/generations":
                try:
                    body = request.json()
                except Unreadable:
                    raise self.bad("We could not parse the JSON body of your request.") from None
                if not isinstance(body, dict):
                    raise self.bad("We could not parse the JSON body of your request.")
                return self._draw(request, body, mood)
            case "POST", "/v1/images/edits":
                return self._draw(request, self._form(request), mood)
            case "GET", "/v1/models":
                models = [
                    {"id": it, "object": "model", "created": 1, "owned_by": "us"} for it in (STRICT, PLAIN)
                ]
                return Answer.json({"object": "list", "data": models})
        return self.error(404, "unknown_url", f"Invalid URL ({request.method} {request.path})")

    def error(self, status: int, code: str, message: str, *, field: str | None = None) -> Answer:
        kind = "invalid_request_error"
        if status >= 500:
            kind = "server_error"
        elif code in {"moderation_blocked", "content_policy_violation"}:
            kind = "image_generation_user_error"
        elif status == 429:
            kind = "insufficient_quota" if code == "insufficient_quota" else "requests"
        return Answer.json(
            {"error": {"message": message, "type": kind, "param": field, "code": code or None}}, status
        )

    def own_error(self, mood: str) -> Answer:
        if mood == "quota_spent":
            message = "You exceeded your current quota, please check your plan and billing details."
            return self.error(429, "insufficient_quota", message)
        return self.error(400, "content_policy_violation", self.troubles[Trouble.CONTENT][2])

    def dress(self, answer: Answer) -> Answer:
        return answer.having(x_request_id=f"req_{token()}")

    def _form(self, request: Request) -> dict[str, Any]:
        try:
            form = request.form()
        except Unreadable:
            raise self.bad("Expected a multipart/form-data body.") from None
        body: dict[str, Any] = {name: values[-1] for name, values in form.items()}
        body["images"] = [*form.get("image", []), *form.get("image[]", [])]
        if not body["images"] or not all(isinstance(it, Upload) for it in body["images"]):
            raise self.bad(
                "Missing required parameter: 'image'.", field="image", code="missing_required_parameter"
            )
        return body

    def _draw(self, request: Request, body: dict[str, Any], mood: Mood | None) -> Answer:
        order = self._order(body)
        strict = body["model"] == STRICT
        response_format = "b64_json" if strict else body.get("response_format", "url")
        if response_format not in {"url", "b64_json"}:
            raise self.bad("response_format must be url or b64_json.", field="response_format")
        job = self.house.take(order, request, mood, id_=f"req_{token()}", stem=token())
        if response_format == "url":
            data: list[dict[str, Any]] = [{"url": url} for url in self.house.urls(job)]
        else:
            data = [{"b64_json": base64.b64encode(picture).decode()} for picture, _ in job.images]
        answer: dict[str, Any] = {"created": int(time.time()), "data": data}
        if strict:
            answer |= {
                "output_format": order.form,
                "size": f"{order.width}x{order.height}",
                "usage": _usage(),
            }
        return Answer.json(_odd(job, answer))

    def _order(self, body: dict[str, Any]) -> Order:
        prompt, model = body.get("prompt"), body.get("model")
        if not isinstance(prompt, str) or not prompt:
            raise self.bad(
                "Missing required parameter: 'prompt'.", field="prompt", code="missing_required_parameter"
            )
        if len(prompt) > 32_000:
            raise self.bad(
                "Invalid 'prompt': string too long.", field="prompt", code="string_above_max_length"
            )
        if model not in {STRICT, PLAIN}:
            raise Refused(self.refuse(Trouble.NO_MODEL))
        unknown = sorted(body.keys() - _KNOWN - {"images"})
        if model == STRICT and unknown:
            message = f"Unknown parameter: '{unknown[0]}'."
            raise self.bad(message, field=unknown[0], code="unknown_parameter")
        images = [self._image(file, "image") for file in body.get("images", [])]
        image = images[0] if images else None
        width, height = self._size(body.get("size", "auto"), image, step=16 if model == STRICT else 1)
        form = body.get("output_format", "png")
        if form not in {"png", "jpeg", "webp"}:
            raise self.bad("output_format must be png, jpeg or webp.", field="output_format")
        return Order(
            prompt=prompt,
            width=width,
            height=height,
            count=self._integer(body, "n", 1, most=10),
            seed=None if body.get("seed") is None else self._integer(body, "seed", 0, least=0, most=2**63),
            image=image,
            mask=self._mask(body["mask"], image) if image is not None and "mask" in body else None,
            form=form,
        )

    def _integer(self, body: dict[str, Any], name: str, default: int, *, most: int, least: int = 1) -> int:
        value = body.get(name, default)
        if isinstance(value, str) and value.isdecimal() and "images" in body:
            value = int(value)  # a form has nothing but texts
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.bad(f"Invalid value for '{name}': expected {least} to {most}.", field=name)
        return value

    def _size(self, text: Any, image: Image.Image | None, *, step: int) -> tuple[int, int]:
        if text == "auto":
            return image.size if image is not None else (64, 64)
        found = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text) if isinstance(text, str) else None
        if found is None or int(found[1]) % step or int(found[2]) % step:
            raise self.bad(f"Invalid size '{text}'.", field="size")
        return int(found[1]), int(found[2])

    def _image(self, file: Any, name: str) -> Image.Image:
        if not isinstance(file, Upload) or file.content_type not in {"image/png", "image/jpeg", "image/webp"}:
            raise self.bad(f"Invalid file '{name}': unsupported mimetype.", field=name)
        try:
            return pictures.decode(file.data)
        except ValueError:
            raise self.bad("Invalid image file or mode.", field=name, code="invalid_image_file") from None

    def _mask(self, file: Any, image: Image.Image) -> Image.Image:
        mask = self._image(file, "mask")
        if mask.size != image.size:
            raise self.bad("Invalid mask image format - mask size does not match image size.", field="mask")
        if "A" not in mask.getbands():
            raise self.bad("Invalid mask image format - mask image missing alpha channel.", field="mask")
        # Alpha 0 is where to change.
        return mask.getchannel("A").point(lambda alpha: 0 if alpha else 255)


def _usage() -> dict[str, Any]:
    details = {"image_tokens": 0, "text_tokens": 10}
    return {"input_tokens": 10, "input_tokens_details": details, "output_tokens": 100, "total_tokens": 110}


def _odd(job: Job, answer: dict[str, Any]) -> dict[str, Any]:
    if not job.has("odd_types"):
        return answer
    for item in answer["data"]:
        item |= {"revised_prompt": None, "seed": str(job.seed), "surprise": [[1.5]]}
    return answer | {"created": str(answer["created"]), "job_id": 7, "usage": None, "background": 1.0}
