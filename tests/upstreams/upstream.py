"""The fake upstream: lets moods strike and keeps the ledger, in front of one vendor's words."""

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, Self

from tests.upstreams import pictures
from tests.upstreams.door import Door
from tests.upstreams.house import FILES, House, Refused, Vendor
from tests.upstreams.imgprocessing import ImgProcessing
from tests.upstreams.ledger import Call, Ledger, Told
from tests.upstreams.modelslab import ModelsLab
from tests.upstreams.moods import Kind, Mood, Trouble
from tests.upstreams.openai import OpenAI
from tests.upstreams.realm import Realm
from tests.upstreams.script import Gate, Script
from tests.upstreams.wire import Answer, Line, Request

_VENDORS: Final[dict[str, type[Vendor]]] = {
    "modelslab": ModelsLab,
    "imgprocessing": ImgProcessing,
    "realm": Realm,
    "openai": OpenAI,
}
_MOVED: Final = f"{FILES}moved/"
"""Where redirects of pictures lead; no mood strikes there, so that a redirect for good is no circle."""
_KEYS: Final = {"imgprocessing": "live_fake-key-of-a-test", "openai": "sk-fake-key-of-a-test"}


class Upstream(Told):
    """One vendor with one account, listening on loopback. Thread-safe; `tests.upstreams` has the guide.

    Attributes:
        vendor: its name, one of `VENDORS`.
        key: the account's key.
        honours_idempotency: whether a submit with the `Idempotency-Key` of an earlier one gets that one's
            answer again, uncharged. None of the vendors documents it for images.
    """

    def __init__(self, vendor: str) -> None:
        self.vendor = vendor
        self.key = _KEYS.get(vendor, "fake-key-of-a-test")
        self.honours_idempotency = False
        super().__init__(Ledger())
        self._house = House(self.ledger)
        self._made = _VENDORS[vendor](self._house, key=self.key)
        self._script = Script()
        self._gate = Gate()
        self._replays: dict[str, Answer] = {}
        self._replaying = threading.Lock()
        self._leaving = threading.Event()
        self._door = Door(self._serve, self._leaving, self.ledger)
        self._elsewhere = Door(self._serve_elsewhere, self._leaving, self.ledger)
        self._recovering: threading.Thread | None = None

    # --- what tests look at ---------------------------------------------------------------------------------

    @property
    def base_url(self) -> str:
        """Scheme, host and port, without a path: `http://127.0.0.1:1234`."""
        return self._door.url

    @property
    def elsewhere_url(self) -> str:
        """The port that nobody has any business to ask; `trespasses` tells who did."""
        return self._elsewhere.url

    @property
    def allowed(self) -> int:
        """How many requests the rate limit or a storm let pass."""
        return self._gate.allowed

    @property
    def refused(self) -> int:
        """How many it refused with a 429."""
        return self._gate.refused

    # --- what tests set -------------------------------------------------------------------------------------

    def script(self, *moods: Mood) -> None:
        """Add moods; a request uses up the first for its kind, and `refuse_connection` acts at once."""
        for mood in moods:
            assert mood.applies_to(self.vendor), f"{self.vendor} never has {mood} on {mood.kind}"
            if mood.name == "refuse_connection":
                self._go_down_for(mood.seconds)
            else:
                self._script.add(mood)

    def always(self, *moods: Mood) -> None:
        """Let each mood strike every request of its kind that finds no scripted one, until `calm`."""
        for mood in moods:
            assert mood.applies_to(self.vendor), f"{self.vendor} never has {mood} on {mood.kind}"
            if mood.name == "refuse_connection":
                self.down()
            else:
                self._script.add_for_good(mood)

    def calm(self) -> None:
        """Forget all moods, the rate limit and the storm, and listen."""
        self._script.clear()
        self._gate.open()
        self.up()

    def limit(self, calls: int, per_seconds: float, *, form: str = "retry_after_seconds") -> None:
        """Let pass so many requests in each window, and answer the rest 429; downloads are free.

        A window begins with the first request after the one before. `form` is the name of a 429's mood.
        """
        self._gate.limit(calls, per_seconds, form)

    def storm(self, until: float, *, form: str = "retry_after_seconds") -> None:
        """Answer every request but downloads 429 until `time.monotonic()` is `until`."""
        self._gate.storm(until, form)

    def finish_all(self) -> None:
        """End all jobs that are still processing, stuck ones too."""
        self._house.finish_all()

    def unused(self) -> list[Mood]:
        """Give the scripted moods that no request has met yet."""
        return self._script.left()

    @property
    def inline_images(self) -> bool:
        """Whether modelslab takes images as base64 or data URI; else by URL only."""
        return self._house.inline_images

    @inline_images.setter
    def inline_images(self, value: bool) -> None:
        self._house.inline_images = value

    @property
    def queue_limit(self) -> int | None:
        """How many unfinished jobs modelslab takes before it answers 429; None: any number."""
        return self._house.queue_limit

    @queue_limit.setter
    def queue_limit(self, value: int | None) -> None:
        self._house.queue_limit = value

    def down(self) -> None:
        """Refuse connections from now on, and cut those that there are; the port stays ours."""
        self._door.down()

    def up(self) -> None:
        """Listen again, on the same port."""
        self._door.up()

    # --- running --------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._door.up()
        self._elsewhere.up()
        self._house.base_url, self._house.elsewhere = self.base_url, self.elsewhere_url
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._leaving.set()
        if self._recovering is not None:
            self._recovering.join()
        self._door.close()
        self._elsewhere.close()
        if kind is None and self.ledger.breakages:
            raise AssertionError("the fake upstream broke:\n" + "\n".join(self.ledger.breakages))

    def _go_down_for(self, seconds: float) -> None:
        def recover() -> None:
            if not self._leaving.wait(seconds):
                self.up()

        self.down()
        self._recovering = threading.Thread(target=recover, daemon=True)
        self._recovering.start()

    def _serve(self, request: Request, line: Line) -> bool:
        """Answer one request; whether the connection can be used again."""
        kind = self._made.kind_of(request)
        wait = self._gate.ask() if kind is not Kind.DOWNLOAD else None
        moved = request.path.startswith(_MOVED)
        mood = self._script.take(kind) if wait is None and not moved else None
        call = self._enter(request, kind, mood)
        if wait is not None:
            answer = self._made.dress(self._made.limited(wait.form, wait.seconds))
        else:
            answer = self._answer(request, kind, mood)
        call.status = answer.status
        if mood is None or mood.stage != "wire":
            line.send(answer, head_only=request.method == "HEAD")
            return True
        if mood.name in {"hang", "reset"}:
            call.status = None
        return line.send_badly(answer, mood)

    def _enter(self, request: Request, kind: Kind, mood: Mood | None) -> Call:
        with self.ledger.lock:
            call = _call(len(self.ledger.calls) + 1, request, kind)
            call.mood = mood.name if mood else None
            self.ledger.calls.append(call)
        return call

    def _answer(self, request: Request, kind: Kind, mood: Mood | None) -> Answer:
        if mood is not None and mood.stage == "instead":
            if kind is Kind.SUBMIT and mood.charges:
                self._vendor_answer(request, kind, mood)
            return self._instead(request, mood)
        if mood is not None and mood.stage == "wire" and kind is Kind.SUBMIT and not mood.charges:
            return Answer.json({"status": "nothing was done"})
        answer = self._vendor_answer(request, kind, mood)
        if mood is not None and mood.stage == "picture" and kind is Kind.DOWNLOAD and answer.status == 200:
            body, content_type = pictures.spoil(mood.name, answer.body, answer.headers["Content-Type"])
            return replace(answer, body=body).having(Content_Type=content_type)
        return answer

    def _vendor_answer(self, request: Request, kind: Kind, mood: Mood | None) -> Answer:
        key = request.headers.get("idempotency-key")
        if kind is not Kind.SUBMIT or key is None or not self.honours_idempotency:
            return self._ask(request, mood)
        with self._replaying:
            if key not in self._replays:
                answer = self._ask(request, mood)
                if answer.status >= 300:
                    return answer
                self._replays[key] = answer
            return self._replays[key]

    def _ask(self, request: Request, mood: Mood | None) -> Answer:
        if request.path.startswith(FILES):
            if request.path.startswith(_MOVED):
                request = replace(request, path=request.path.replace(_MOVED, FILES, 1))
            return self._house.file(request)
        try:
            return self._made.dress(self._made.answer(request, mood))
        except Refused as refusal:
            return self._made.dress(refusal.answer)

    def _instead(self, request: Request, mood: Mood) -> Answer:
        match mood.name:
            case "bad_gateway" | "gateway_timeout":
                return Answer.html(mood.status)
            case "expired":
                return Answer(
                    status=mood.status, headers={"Content-Type": "application/xml"}, body=b"<Error/>"
                )
            case "redirected_inside":
                place = f"{self.elsewhere_url}{request.path}"
                return Answer(status=mood.status, headers={"Location": place})
            case "redirected":
                return Answer(status=mood.status, headers={"Location": self._moved(request)})
        return self._made.dress(self._refusal(mood))

    def _moved(self, request: Request) -> str:
        if request.path.startswith(FILES):
            return f"{self.base_url}{_MOVED}{request.path.removeprefix(FILES)}"
        id_ = request.path.split("/")[-2]  # of /v1/images/{id}/download
        return f"{self.base_url}{_MOVED}{self._house.jobs[id_].names[0]}"

    def _refusal(self, mood: Mood) -> Answer:
        if mood.trouble is Trouble.TOO_MANY:
            return self._made.limited(mood.name, mood.seconds)
        if mood.trouble is not None:
            answer = self._made.refuse(mood.trouble)
            return answer.having(Retry_After=f"{mood.seconds:.0f}") if mood.seconds else answer
        return self._made.own_error(mood.name)

    def _serve_elsewhere(self, request: Request, line: Line) -> bool:
        with self.ledger.lock:
            self.ledger.trespasses.append(_call(len(self.ledger.trespasses) + 1, request, Kind.OTHER))
        picture = pictures.encode(pictures.draw("trespass", seed=0, width=64, height=64), "png")
        line.send(Answer(headers={"Content-Type": "image/png"}, body=picture))
        return True


def _call(number: int, request: Request, kind: Kind) -> Call:
    return Call(
        number=number,
        method=request.method,
        path=request.path,
        query=request.query,
        headers=request.headers,
        body=request.parsed(),
        kind=kind,
        at=time.monotonic(),
        when=datetime.now(UTC),
    )
