"""OpenAI's Images API, at OpenAI and at any server that has it: one answer with the images in it.

There is no id to ask for later; a call whose answer got lost is ambiguous. `Idempotency-Key` is sent, and
counts where the upstream is said to be `idempotent`.
"""

import binascii
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from PIL import Image

from app.domain.spec import Operation
from workers.providers.upstream.line import Answer, Line
from workers.providers.upstream.promise import AnswerLost, CallLost, Found, Order, Receipt
from workers.providers.upstream.words import is_about_content, png


class OpenAI:
    """See `Adapter`. Alpha 0 in a mask is where to change."""

    def __init__(self, line: Line, key: str) -> None:
        self._line = line
        self._headers = {"Authorization": f"Bearer {key}"}

    def submit(self, order: Order) -> Receipt:
        """See `Adapter`."""
        spec = order.spec
        headers = {**self._headers, "Idempotency-Key": order.reference}
        fields: dict[str, Any] = {
            "model": order.model,
            "prompt": spec.prompt,
            "n": order.images,
            "size": f"{spec.width}x{spec.height}",
        }
        if "seed" in order.honours:
            fields["seed"] = spec.seed_of(order.index)
        if "negative_prompt" in order.honours and spec.negative_prompt:
            fields["negative_prompt"] = spec.negative_prompt
        if spec.operation is Operation.TEXT_TO_IMAGE:
            answer = self._line.send("POST", "/images/generations", json=fields, headers=headers)
        else:
            text = {name: str(value) for name, value in fields.items()}
            answer = self._line.send("POST", "/images/edits", data=text, files=_files(order), headers=headers)
        if answer.status != HTTPStatus.OK:
            self._refuse(answer)
        return Receipt(found=_found(answer))

    def ask(self, upstream_id: str, detail: Mapping[str, object]) -> Receipt:
        """Say that there is nothing to ask for: an answer has its images with it, and no id."""
        del detail
        raise CallLost(f"The provider keeps no calls, so none of {upstream_id!r}.")

    def cancel(self, upstream_id: str, detail: Mapping[str, object]) -> None:
        """Do nothing: what was answered is done."""

    def _refuse(self, answer: Answer) -> None:
        error: Any = {}
        try:
            error = answer.json().get("error") or {}
        except AnswerLost:
            error = {}
        said = error if isinstance(error, dict) else {"message": error}
        code, message = said.get("code"), said.get("message")
        if code == "insufficient_quota":
            answer = Answer(status=402, headers=answer.headers, body=b"")
        about = answer.status == HTTPStatus.BAD_REQUEST and is_about_content(code, message)
        self._line.refuse(answer, message or "", code=code, content=about)


def _files(order: Order) -> dict[str, tuple[str, bytes, str]]:
    assert order.inputs.image is not None
    files = {"image": ("image.png", png(order.inputs.image), "image/png")}
    if order.inputs.mask_image is not None:
        mask = Image.new("RGBA", order.inputs.mask_image.size, (0, 0, 0, 255))
        mask.putalpha(order.inputs.mask_image.point(lambda value: 255 - value))
        files["mask"] = ("mask.png", png(mask), "image/png")
    return files


def _found(answer: Answer) -> tuple[Found, ...]:
    data = answer.json().get("data")
    if not isinstance(data, list):
        raise AnswerLost("The provider's answer has no images in it.")
    return tuple(_one(each) for each in data)


def _one(item: object) -> Found:
    if isinstance(item, dict) and isinstance(item.get("b64_json"), str):
        try:
            return Found(data=binascii.a2b_base64(item["b64_json"]))
        except (binascii.Error, ValueError):
            return Found(data=b"")
    if isinstance(item, dict) and isinstance(item.get("url"), str):
        return Found(url=item["url"])
    raise AnswerLost("The provider's answer has no images in it.")
