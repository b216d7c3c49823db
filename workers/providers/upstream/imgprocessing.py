"""IMG Processing's imagine: synchronous, 1024 × 1024, and each image has an id and the name that we gave it.

So it can be asked for a call whose answer got lost: the newest images are looked through for our reference.
"""

from collections.abc import Mapping
from typing import Any, Final

from workers.providers.upstream.line import Answer, Line
from workers.providers.upstream.promise import AnswerLost, CallLost, Found, Order, Receipt
from workers.providers.upstream.words import is_about_content, sentence, text_of

_PAGE: Final = 100
_PAGES: Final = 5
"""Pages looked through: an ambiguous call is one of the account's newest."""
_CREATED: Final = 201
_OK: Final = 200
_NOT_FOUND: Final = 404


class ImgProcessing:
    """See `Adapter`."""

    can_find = True

    def __init__(self, line: Line, key: str) -> None:
        self._line = line
        self._headers = {"x-api-key": key}

    def submit(self, order: Order) -> Receipt:
        """See `Adapter`."""
        spec = order.spec
        body: dict[str, Any] = {
            "name": order.reference,
            "prompt": spec.prompt,
            "seed": spec.seed_of(order.index),
            "model": order.model,
        }
        if spec.negative_prompt:
            body["negative_prompt"] = spec.negative_prompt
        answer = self._line.send("POST", "/images/imagine", json=body, headers=self._headers)
        if answer.status != _CREATED:
            self._refuse(answer)
        upstream_id = text_of(answer.json().get("id"))
        if upstream_id is None:
            raise AnswerLost("The provider's answer names no image.")
        return Receipt(upstream_id=upstream_id, wait=0.0)

    def ask(self, upstream_id: str, detail: Mapping[str, object]) -> Receipt:
        """See `Adapter`: the image is there at once."""
        del detail
        answer = self._line.send("GET", f"/images/{upstream_id}/download", headers=self._headers)
        if answer.status == _NOT_FOUND:
            raise CallLost("The provider does not know the image any more.")
        if answer.status != _OK:
            self._refuse(answer)
        return Receipt(upstream_id=upstream_id, found=(Found(data=answer.body),))

    def find(self, order: Order) -> Receipt | None:
        """See `Adapter`."""
        path = f"/images?take={_PAGE}"
        for _ in range(_PAGES):
            answer = self._line.send("GET", path, headers=self._headers)
            if answer.status != _OK:
                self._refuse(answer)
            page = answer.json()
            images = [one for one in page.get("data") or [] if isinstance(one, dict)]
            for one in images:
                upstream_id = text_of(one.get("id"))
                if one.get("name") == order.reference and upstream_id is not None:
                    return Receipt(upstream_id=upstream_id, wait=0.0)
            links = page.get("links")
            following = links.get("next") if isinstance(links, dict) else None
            if not isinstance(following, str) or "?" not in following:
                return None
            # Only the query: the host is ours to know.
            path = "/images?" + following.partition("?")[2]
        return None

    def cancel(self, upstream_id: str, detail: Mapping[str, object]) -> None:
        """Delete the image: nobody wants it any more."""
        del detail
        self._line.send("DELETE", f"/images/{upstream_id}", headers=self._headers)

    def _refuse(self, answer: Answer) -> None:
        try:
            said = answer.json()
        except AnswerLost:
            said = {}
        message = sentence(said.get("message") or said.get("error") or said.get("errors"))
        self._line.refuse(answer, message, content=is_about_content(message, said.get("type")))
