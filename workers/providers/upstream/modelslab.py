"""ModelsLab's realtime API: POST with the key in the body, HTTP 200 for nearly everything, fetch by id.

A target's `model` is the family's path: `v1/enterprise/realtime` or `v6/realtime`. Each image is a call of
its own, as a call has one seed. Input images go as data URIs, which its clients send too.
"""

from collections.abc import Mapping
from typing import Any

from app.domain.spec import Operation
from app.errors import ContentRefused, ProviderBusy
from workers.providers.upstream.line import Answer, Line
from workers.providers.upstream.promise import AnswerLost, CallLost, Found, Order, Receipt
from workers.providers.upstream.words import data_uri, is_about_content, seconds_of, sentence, text_of

_PATHS = {
    Operation.TEXT_TO_IMAGE: "text2img",
    Operation.IMAGE_TO_IMAGE: "img2img",
    Operation.INPAINT: "inpaint",
}


class ModelsLab:
    """See `Adapter`. White in a mask is where to change."""

    can_find = False

    def __init__(self, line: Line, key: str) -> None:
        self._line = line
        self._key = key

    def submit(self, order: Order) -> Receipt:
        """See `Adapter`."""
        path = f"/{order.model}/{_PATHS[order.spec.operation]}"
        answer = self._line.send("POST", path, json=self._order(order))
        found = self._read(answer)
        if found.get("status") in {"error", "failed"} or answer.status != 200:  # noqa: PLR2004 - HTTP's OK
            self._refuse(answer, found)
        return self._receipt(found, family=order.model)

    def ask(self, upstream_id: str, detail: Mapping[str, object]) -> Receipt:
        """See `Adapter`."""
        path = f"/{detail.get('family', 'v6/realtime')}/fetch/{upstream_id}"
        answer = self._line.send("POST", path, json={"key": self._key})
        if answer.status == 404:  # noqa: PLR2004 - HTTP's
            raise CallLost("The provider does not know the job any more.")
        found = self._read(answer)
        if answer.status != 200:  # noqa: PLR2004 - HTTP's OK
            self._refuse(answer, found)
        if found.get("nsfw_content_detected") is True:
            raise ContentRefused("The provider will not draw this: it took its image for unsafe.")
        if found.get("status") in {"error", "failed"}:
            message = sentence(found.get("message") or found.get("messege"))
            if is_about_content(message):
                raise ContentRefused(f"The provider will not draw this: {self._line.told(message)}")
            raise CallLost(f"The provider's job failed: {self._line.told(message)}")
        return self._receipt({**found, "id": upstream_id}, family=str(detail.get("family", "")))

    def find(self, order: Order) -> Receipt | None:
        """Not to be asked: see `can_find`."""
        raise NotImplementedError(order.reference)

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
        if answer.status >= 500:  # noqa: PLR2004 - HTTP's
            self._line.refuse(answer, "")
        return answer.json() if answer.status == 200 else _object(answer)  # noqa: PLR2004 - HTTP's OK

    def _refuse(self, answer: Answer, found: Mapping[str, Any]) -> None:
        message = sentence(found.get("message") or found.get("messege"))
        if answer.status == 200 and "limit" in message.lower():  # noqa: PLR2004 - HTTP's OK
            raise ProviderBusy("The provider takes no more calls now.")
        if answer.status == 429 and "Retry-After" not in answer.headers:  # noqa: PLR2004 - HTTP's
            told = text_of(found.get("retry_after"))
            if told is not None:
                answer = Answer(status=429, headers={**answer.headers, "Retry-After": told}, body=answer.body)
        refused = Answer(status=400, headers=answer.headers, body=b"") if answer.status == 200 else answer  # noqa: PLR2004 - HTTP's OK
        self._line.refuse(refused, message, content=is_about_content(message))

    def _receipt(self, found: Mapping[str, Any], *, family: str) -> Receipt:
        upstream_id = text_of(found.get("id"))
        output = found.get("output")
        if found.get("nsfw_content_detected") is True and upstream_id is not None:
            # Blank images; `ask` says so, once the id is saved.
            return Receipt(upstream_id=upstream_id, detail={"family": family}, wait=0.0)
        if found.get("status") == "success" and isinstance(output, list):
            return Receipt(
                upstream_id=upstream_id,
                detail={"family": family},
                found=tuple(Found(url=str(url)) for url in output),
            )
        if found.get("status") == "processing" and upstream_id is not None:
            wait = seconds_of(found.get("eta"), otherwise=1.0)
            return Receipt(upstream_id=upstream_id, detail={"family": family}, wait=wait)
        raise AnswerLost("The provider's answer says neither done nor processing.")


def _object(answer: Answer) -> dict[str, Any]:
    try:
        return answer.json()
    except AnswerLost:
        return {}
