"""IMG Processing's imagine: synchronous, 1024 × 1024, and each image has an id and the name that we gave it.

So it can be asked for a call whose answer got lost: the newest images are looked through for our reference.
"""

from collections.abc import Mapping
from typing import Any, Final, NoReturn
from urllib.parse import quote

from workers.providers.upstream.line import Answer, Line
from workers.providers.upstream.promise import AnswerLost, CallLost, Found, Order, Receipt
from workers.providers.upstream.words import is_about_content, sentence, text_of

_PAGE: Final = 100
"""Images on a page: the most it gives."""
_PAGES: Final = 5
"""Pages looked through: an ambiguous call is one of the account's newest."""
_OK: Final = 200
_MADE: Final = frozenset({_OK, 201})
_GONE: Final = frozenset({404, 410})
_REFUSED: Final = frozenset({400, 403, 422})
_CONTENT: Final = ("flagged", "content filter")
"""What its refusals say of content beside the words that all vendors use."""


class ImgProcessing:
    """See `FindingAdapter`."""

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
        if answer.status not in _MADE:
            self._refuse(answer)
        # A success that cannot be read may be an image all the same, so from here on `find` decides.
        upstream_id = text_of(answer.json().get("id"))
        if upstream_id is None:
            raise AnswerLost("The provider's answer names no image.")
        return Receipt(upstream_id=upstream_id, wait=0.0)

    def ask(self, upstream_id: str, detail: Mapping[str, object]) -> Receipt:
        """See `Adapter`: the image is there at once."""
        del detail
        answer = self._line.send("GET", f"{_path_of(upstream_id)}/download", headers=self._headers)
        if answer.status in _GONE:
            raise CallLost("The provider does not know the image any more.")
        if answer.status != _OK:
            self._refuse(answer)
        return Receipt(upstream_id=upstream_id, found=(Found(data=answer.body),))

    def find(self, order: Order) -> Receipt | None:
        """See `FindingAdapter`."""
        path = f"/images?take={_PAGE}"
        for _ in range(_PAGES):
            answer = self._line.send("GET", path, headers=self._headers)
            if answer.status != _OK:
                self._refuse(answer)
            page = answer.json()
            if (upstream_id := _named(page, order.reference)) is not None:
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
        self._line.send("DELETE", _path_of(upstream_id), headers=self._headers)

    def _refuse(self, answer: Answer) -> NoReturn:
        try:
            said = answer.json()
        except AnswerLost:
            said = {}
        message = sentence(said.get("message") or said.get("error") or said.get("errors"))
        content = is_about_content(message, said.get("type")) or any(
            mark in message.lower() for mark in _CONTENT
        )
        self._line.refuse(
            answer, message, code=said.get("type"), content=content and answer.status in _REFUSED
        )


def _path_of(upstream_id: str) -> str:
    return f"/images/{quote(upstream_id, safe='')}"


def _named(page: Mapping[str, Any], name: str) -> str | None:
    """Give the id of the image of this name on a page of the list."""
    images = page.get("data")
    if not isinstance(images, list):
        raise AnswerLost("The provider's answer is no list of images.")
    for one in images:
        if isinstance(one, dict) and one.get("name") == name:
            return text_of(one.get("id"))
    return None
