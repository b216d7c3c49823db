"""A client of Server-Sent Events that reads them as section 9.2.6 of the HTML standard says."""

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from tests.conftest import Account


@dataclass
class Event:
    """One event; `id` is the last id seen so far, as a browser keeps it."""

    kind: str
    id: str
    data: Any


@dataclass
class Stream:
    """A stream that is open, or the answer that came instead."""

    answer: http.client.HTTPResponse
    connection: http.client.HTTPConnection
    last_id: str = ""
    comments: int = 0
    retry: int | None = None

    @classmethod
    def open(
        cls,
        port: int,
        path: str,
        account: Account,
        *,
        last_id: str | None = None,
        timeout: float = 30,
    ) -> Self:
        """Ask for a stream and give it as soon as the headers are there."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        headers = {**account.headers, "Accept": "text/event-stream"}
        if last_id is not None:
            headers["Last-Event-ID"] = last_id
        connection.request("GET", path, headers=headers)
        return cls(connection.getresponse(), connection)

    @property
    def status(self) -> int:
        """The answer's status."""
        return self.answer.status

    def events(self) -> Iterator[Event]:
        """Give the events as they come, up to the end of the stream."""
        kind, data = "message", list[str]()
        while line := self.answer.readline():
            name, _, value = line.decode().rstrip("\n").partition(":")
            value = value.removeprefix(" ")
            match name:
                case "" if line == b"\n":
                    if data:
                        yield Event(kind, self.last_id, json.loads("\n".join(data)))
                    kind, data = "message", []
                case "":
                    self.comments += 1
                case "event":
                    kind = value
                case "data":
                    data.append(value)
                case "id":
                    self.last_id = value
                case "retry":
                    self.retry = int(value)

    def until(self, kind: str, **members: Any) -> list[Event]:
        """Give the events up to the first of this kind whose data has these members."""
        seen = []
        for event in self.events():
            seen.append(event)
            if event.kind == kind and members.items() <= event.data.items():
                return seen
        raise AssertionError(f"the stream ended without {kind} {members}: {seen}")

    def close(self) -> None:
        """Leave, as a browser's tab does that is closed."""
        self.answer.close()
        self.connection.close()
