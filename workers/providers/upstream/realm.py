"""Realm AI Images: generate by JSON, modify by form, and a job to ask for.

It takes no seed and tells the one it chose with each result. Up to four images are one call.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NoReturn
from urllib.parse import quote

from app.domain.spec import MAX_SEED, Operation
from app.errors import ContentRefused
from workers.providers.upstream.line import Answer, Line
from workers.providers.upstream.promise import AnswerLost, CallLost, Found, Order, Receipt
from workers.providers.upstream.words import is_about_content, png, sentence, text_of

_OK: Final = 200
_ACCEPTED: Final = 202
_GONE: Final = frozenset({404, 410})
_REFUSED: Final = frozenset({400, 403, 422})
_SOONEST: Final = 0.5
"""Seconds."""


class Realm:
    """See `Adapter`. White in a mask is where to change."""

    def __init__(self, line: Line, key: str) -> None:
        self._line = line
        self._headers = {"X-API-Key": key}

    def submit(self, order: Order) -> Receipt:
        """See `Adapter`."""
        headers = {**self._headers, "Idempotency-Key": order.reference}
        fields = _fields(order)
        if order.spec.operation is Operation.TEXT_TO_IMAGE:
            fields |= {"width": order.spec.width, "height": order.spec.height}
            answer = self._line.send("POST", "/images/generate", json=fields, headers=headers)
        else:
            fields["strength"] = order.spec.strength
            text = {name: str(value) for name, value in fields.items()}
            answer = self._line.send(
                "POST", "/images/modify", data=text, files=_files(order), headers=headers
            )
        if answer.status not in {_OK, _ACCEPTED}:
            self._refuse(answer)
        said = answer.json()
        upstream_id = text_of(said.get("jobId"))
        if upstream_id is None:
            raise AnswerLost("The provider's answer names no job.")
        return Receipt(upstream_id=upstream_id, wait=_until(said.get("estimatedCompletion")))

    def ask(self, upstream_id: str, detail: Mapping[str, object]) -> Receipt:
        """See `Adapter`."""
        del detail
        answer = self._line.send("GET", f"/images/jobs/{quote(upstream_id, safe='')}", headers=self._headers)
        if answer.status in _GONE:
            raise CallLost("The provider does not know the job any more.")
        if answer.status != _OK:
            self._refuse(answer)
        said = answer.json()
        if said.get("status") == "failed":
            told = self._line.told(sentence(said.get("errorMessage") or said.get("errorCode")))
            if is_about_content(told, said.get("errorCode")):
                raise ContentRefused(f"The provider will not draw this: {told}")
            raise CallLost(f"The provider's job failed: {told}")
        if said.get("status") in {"queued", "processing"}:
            return Receipt(upstream_id=upstream_id, wait=_until(said.get("estimatedCompletion")))
        results = said.get("results")
        if said.get("status") != "completed" or not isinstance(results, list):
            raise AnswerLost("The provider's answer says neither done nor processing.")
        return Receipt(upstream_id=upstream_id, found=tuple(_found(one) for one in results))

    def cancel(self, upstream_id: str, detail: Mapping[str, object]) -> None:
        """Do nothing: it documents no way."""

    def _refuse(self, answer: Answer) -> NoReturn:
        error: Any
        try:
            error = answer.json().get("error")
        except AnswerLost:
            error = None
        said = error if isinstance(error, dict) else {"message": error}
        content = answer.status in _REFUSED and is_about_content(said.get("code"), said.get("message"))
        self._line.refuse(answer, sentence(said.get("message")), code=said.get("code"), content=content)


def _fields(order: Order) -> dict[str, object]:
    spec = order.spec
    fields: dict[str, object] = {
        "modelId": order.model,
        "prompt": spec.prompt,
        "guidanceScale": spec.guidance_scale,
        "numOutputs": order.images,
    }
    if spec.negative_prompt:
        fields["negativePrompt"] = spec.negative_prompt
    return fields


def _files(order: Order) -> dict[str, tuple[str, bytes, str]]:
    assert order.inputs.image is not None
    files = {"image": ("image.png", png(order.inputs.image), "image/png")}
    if order.inputs.mask_image is not None:
        files["mask"] = ("mask.png", png(order.inputs.mask_image), "image/png")
    return files


def _found(result: object) -> Found:
    if not isinstance(result, dict) or not isinstance(result.get("url"), str):
        raise CallLost("The provider's result names no image.")
    seed = text_of(result.get("seed")) or ""
    known = seed.isascii() and seed.isdigit() and len(seed) <= len(str(MAX_SEED)) and int(seed) <= MAX_SEED
    return Found(url=result["url"], seed=int(seed) if known else None)


def _until(moment: object) -> float:
    """Give the seconds until a time that the vendor estimates; one where it says none."""
    try:
        then = datetime.fromisoformat(str(moment))
    except ValueError:
        return 1.0
    aware = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(_SOONEST, (aware - datetime.now(UTC)).total_seconds())
