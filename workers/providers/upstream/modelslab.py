"""ModelsLab's realtime API: POST with the key in the body, HTTP 200 for nearly everything, fetch by id.

A target's `model` is the family's path: `v1/enterprise/realtime` or `v6/realtime`. Each image is a call of
its own, as a call has one seed. Input images go as data URIs, which its clients send too.
"""

from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final, NoReturn
from urllib.parse import quote

from app.domain.spec import Operation
from app.errors import ContentRefused
from workers.providers.upstream.line import Answer, Line
from workers.providers.upstream.promise import AnswerLost, CallLost, Found, Order, Receipt
from workers.providers.upstream.words import (
    data_uri,
    is_about_account,
    is_about_content,
    seconds_of,
    sentence,
    text_of,
)

_PATHS = {
    Operation.TEXT_TO_IMAGE: "text2img",
    Operation.IMAGE_TO_IMAGE: "img2img",
    Operation.INPAINT: "inpaint",
}

_FAILED: Final = frozenset({"error", "failed"})
_FULL: Final = ("rate limit", "queued requests")
"""How it says that the account has as many jobs as it may, sometimes with HTTP 200."""
_OF_THE_ACCOUNT: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.UNAUTHORIZED})
_ITS_OWN: Final = "provider_error"
"""Its code for an error that is not the order's."""
_LATER: Final = ("try again later", "try again in", "under maintenance", "temporarily unavailable")


class ModelsLab:
    """See `Adapter`. White in a mask is where to change."""

    def __init__(self, line: Line, key: str) -> None:
        self._line = line
        self._key = key

    def submit(self, order: Order) -> Receipt:
        """See `Adapter`."""
        path = f"/{order.model}/{_PATHS[order.spec.operation]}"
        answer = self._line.send("POST", path, json=self._order(order))
        found = self._read(answer)
        if found.get("status") in _FAILED:
            # HTTP 200, as it says everything; nothing was made.
            self._refuse(replace(answer, status=_status_meant(found)), found)
        return _receipt(found, family=order.model)

    def ask(self, upstream_id: str, detail: Mapping[str, object]) -> Receipt:
        """See `Adapter`."""
        family = str(detail.get("family", "v6/realtime"))
        path = f"/{family}/fetch/{quote(upstream_id, safe='')}"
        answer = self._line.send("POST", path, json={"key": self._key})
        if answer.status == HTTPStatus.NOT_FOUND:
            raise CallLost("The provider does not know the job any more.")
        found = self._read(answer)
        if found.get("nsfw_content_detected") is True:
            raise ContentRefused("The provider will not draw this: it took its image for unsafe.")
        if found.get("status") in _FAILED:
            message, meant = _message(found), _status_meant(found)
            if found["status"] == "error" and meant in _OF_THE_ACCOUNT:
                # That says nothing of the job, which may be done all the same.
                self._refuse(replace(answer, status=meant), found)
            if is_about_content(message):
                raise ContentRefused(f"The provider will not draw this: {self._line.told(message)}")
            raise CallLost(f"The provider's job failed: {self._line.told(message)}")
        return _receipt({**found, "id": upstream_id}, family=family)

    def cancel(self, upstream_id: str, detail: Mapping[str, object]) -> None:
        """Do nothing: it documents no way."""

    def _order(self, order: Order) -> dict[str, Any]:
        spec, inputs = order.spec, order.inputs
        body: dict[str, Any] = {
            "key": self._key,
            "prompt": spec.prompt,
            "negative_prompt": spec.negative_prompt or None,
            "width": spec.width,
            "height": spec.height,
            "samples": 1,
            "seed": spec.seed_of(order.index),
            "num_inference_steps": spec.num_inference_steps,
            "guidance_scale": spec.guidance_scale,
            "safety_checker": spec.safety_checker,
            "enhance_prompt": False,
            "instant_response": True,
            "temp": True,
            "track_id": order.reference,
            "webhook": None,
        }
        if inputs.image is not None:
            body |= {"init_image": data_uri(inputs.image), "strength": spec.strength}
        if inputs.mask_image is not None:
            body["mask_image"] = data_uri(inputs.mask_image)
        return body

    def _read(self, answer: Answer) -> dict[str, Any]:
        try:
            found = answer.json()
        except AnswerLost:
            if answer.status == HTTPStatus.OK:
                raise
            found = {}
        if answer.status != HTTPStatus.OK:
            self._refuse(answer, found)
        return found

    def _refuse(self, answer: Answer, found: Mapping[str, Any]) -> NoReturn:
        message = _message(found)
        if _is_full(message):
            answer = replace(answer, status=HTTPStatus.TOO_MANY_REQUESTS)
        told = text_of(found.get("retry_after"))
        if told is not None and "Retry-After" not in answer.headers:
            answer = replace(answer, headers={**answer.headers, "Retry-After": told})
        about = answer.status == HTTPStatus.BAD_REQUEST and is_about_content(message)
        self._line.refuse(answer, message, content=about)


def _message(found: Mapping[str, Any]) -> str:
    """Give its message; older endpoints spell the member in another way."""
    return sentence(found.get("message") or found.get("messege"))


def _is_full(message: str) -> bool:
    return any(words in message.lower() for words in _FULL)


def _status_meant(found: Mapping[str, Any]) -> HTTPStatus:
    """Give the status that an error should have had which came with HTTP 200."""
    message = _message(found)
    if _is_full(message):
        return HTTPStatus.TOO_MANY_REQUESTS
    if is_about_account(message):
        return HTTPStatus.UNAUTHORIZED
    if is_about_content(message):
        return HTTPStatus.BAD_REQUEST
    later = found.get("code") == _ITS_OWN or any(words in message.lower() for words in _LATER)
    return HTTPStatus.SERVICE_UNAVAILABLE if later else HTTPStatus.BAD_REQUEST


def _receipt(found: Mapping[str, Any], *, family: str) -> Receipt:
    upstream_id, detail = text_of(found.get("id")), {"family": family}
    output = found.get("output")
    if found.get("nsfw_content_detected") is True and upstream_id is not None:
        # Its images are blank; `ask` says so, once the id is saved.
        return Receipt(upstream_id=upstream_id, detail=detail, wait=0.0)
    if found.get("status") == "success" and isinstance(output, list):
        images = tuple(Found(url=str(url)) for url in output)
        return Receipt(upstream_id=upstream_id, detail=detail, found=images)
    if found.get("status") == "processing" and upstream_id is not None:
        wait = seconds_of(found.get("eta"), otherwise=1.0)
        return Receipt(upstream_id=upstream_id, detail=detail, wait=wait)
    raise AnswerLost("The provider's answer says neither done nor processing.")
