"""Customers who submit jobs over HTTP while servers die: what they were answered and promised."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import requests

from app.local.supervisor import http_ready

_PAUSE = 0.1
"""Seconds between two requests of one customer: two of them submit half of what two cores can draw."""
_PATIENCE = 30.0


@dataclass
class Refusal:
    """An answer other than 202."""

    status: int
    retry_after: str | None


@dataclass
class Customers:
    """What several threads that submit all the time have seen so far; lists only grow."""

    url: str
    headers: dict[str, str]
    pause: float
    """Seconds between two requests of one customer."""
    accepted: list[UUID] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """Requests that got no answer at all."""
    _leave: threading.Event = field(default_factory=threading.Event)

    def ready(self) -> bool:
        """Whether web says that it is ready."""
        return http_ready(f"{self.url}/readyz")

    def leave(self) -> None:
        """Have them send no further request."""
        self._leave.set()

    def run(self) -> None:
        """Submit until told to leave."""
        with requests.Session() as session:
            session.trust_env = False
            while not self._leave.wait(self.pause):
                self._submit(session)

    def _submit(self, session: requests.Session) -> None:
        try:
            answer = session.post(
                f"{self.url}/v1/images/generate",
                json={"modelId": "sketch", "prompt": "a hill", "width": 32, "height": 32},
                headers=self.headers,
                timeout=_PATIENCE,
            )
        except requests.RequestException as error:
            self.broken.append(repr(error))
            return
        if answer.status_code == requests.codes.accepted:
            self.accepted.append(UUID(hex=answer.json()["jobId"].removeprefix("job_")))
        else:
            self.refused.append(Refusal(answer.status_code, answer.headers.get("Retry-After")))


@contextmanager
def submitting(
    url: str, headers: dict[str, str], *, customers: int = 2, pause: float = _PAUSE
) -> Iterator[Customers]:
    """Give customers at work in threads of their own; afterwards they have left."""
    made = Customers(url, headers, pause)
    threads = [threading.Thread(target=made.run, name=f"customer {n}") for n in range(customers)]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        made.leave()
        for thread in threads:
            thread.join(timeout=_PATIENCE + 5)
