"""Requests and answers of a fake upstream as bytes: reading forms, writing answers, mangling them."""

import base64
import contextlib
import json
import re
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Final

from tests.upstreams.moods import Mood
from tests.upstreams.pictures import HTML

_MOST_ENDLESS: Final = 256 * 2**20
"""Where an endless body ends after all: a client that reads it whole must not take the machine along."""
_DEPTH: Final = 100_000


@dataclass(frozen=True)
class Upload:
    """A file of a form."""

    name: str
    content_type: str
    data: bytes = field(repr=False)


class Unreadable(Exception):
    """A body is not what its content type says."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request as it came in; header names in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    raw: bytes = field(repr=False)

    def json(self) -> Any:
        """Give the parsed body; Unreadable when it is no JSON."""
        try:
            return json.loads(self.raw)
        except ValueError as error:
            raise Unreadable(str(error)) from error

    def form(self) -> dict[str, list[str | Upload]]:
        """Give the fields of a multipart body, each in order; Unreadable when it is none."""
        found = re.search(r'boundary="?([^";,]+)"?', self.headers.get("content-type", ""))
        if found is None or "multipart/form-data" not in self.headers["content-type"]:
            raise Unreadable("no multipart form")
        fields: dict[str, list[str | Upload]] = {}
        first, *parts = (b"\r\n" + self.raw).split(b"\r\n--" + found[1].encode())
        if first or not parts or not parts[-1].startswith(b"--"):
            raise Unreadable("a multipart form without an end")
        for part in parts[:-1]:
            head, _, body = part.partition(b"\r\n\r\n")
            name, value = _field(head.decode("utf-8", "replace"), body)
            fields.setdefault(name, []).append(value)
        return fields

    def parsed(self) -> Any:
        """Give the body as the ledger keeps it."""
        if not self.raw:
            return None
        try:
            if "multipart/form-data" in self.headers.get("content-type", ""):
                return {name: value[0] if len(value) == 1 else value for name, value in self.form().items()}
            return self.json()
        except Unreadable:
            return self.raw


def _field(head: str, body: bytes) -> tuple[str, str | Upload]:
    name = re.search(r'[;\s]name="([^"]*)"', head)
    if name is None:
        raise Unreadable("a part without a name")
    file = re.search(r'filename="([^"]*)"', head)
    if file is None:
        return name[1], body.decode("utf-8", "replace")
    kind = re.search(r"(?im)^content-type:\s*(\S+)", head)
    return name[1], Upload(file[1], kind[1] if kind else "application/octet-stream", body)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is to be answered."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)

    @classmethod
    def json(cls, body: Any, status: int = 200, headers: dict[str, str] | None = None) -> "Answer":
        """Answer with JSON."""
        return cls(
            status=status,
            headers={"Content-Type": "application/json", **(headers or {})},
            body=json.dumps(body).encode(),
        )

    @classmethod
    def html(cls, status: int = 200) -> "Answer":
        """Answer with a page for people."""
        return cls(status=status, headers={"Content-Type": "text/html; charset=utf-8"}, body=HTML)

    def having(self, **headers: str) -> "Answer":
        """Give the same answer with these headers beside its own, `_` for `-`."""
        return replace(
            self, headers={**self.headers, **{name.replace("_", "-"): it for name, it in headers.items()}}
        )


class Line:
    """One connection, as far as an answer goes; every wait ends when the client goes or the server leaves."""

    def __init__(self, connection: socket.socket, leaving: threading.Event) -> None:
        self._connection = connection
        self._leaving = leaving

    def send(self, answer: Answer, *, head_only: bool = False) -> None:
        """Send an answer as it is; OSError when the client is gone."""
        self._connection.sendall(_head(answer, length=len(answer.body)))
        if not head_only:
            self._connection.sendall(answer.body)

    def send_badly(self, answer: Answer, mood: Mood) -> bool:
        """Send what a mood of stage `wire` leaves of an answer; whether the connection can be used again."""
        match mood.name:
            case "slow":
                return self.wait(mood.seconds) and self._sent(answer)
            case "hang":
                self.wait(float("inf"))
            case "reset":
                self.reset()
            case "slow_drip":
                return self._drip(answer, mood.seconds)
            case "cut":
                self._connection.sendall(_head(answer, length=max(len(answer.body), 2)))
                self._connection.sendall(answer.body[: len(answer.body) // 2])
            case "endless":
                self._endless(answer)
            case _:
                return self._sent(mangled(answer, mood.name))
        return False

    def wait(self, seconds: float) -> bool:
        """Wait; False, at once, when the client goes or the server leaves meanwhile."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._leaving.is_set():
                return False
            if select.select([self._connection], [], [], min(left, 0.02))[0]:
                # Bytes of a next request would be in the way of seeing the end; our clients send none.
                with contextlib.suppress(BlockingIOError):
                    if not self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                        return False
                self._leaving.wait(min(left, 0.02))
        return True

    def reset(self) -> None:
        """End the connection with a reset, as a machine does that lost it."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.close()

    def _sent(self, answer: Answer) -> bool:
        self.send(answer)
        return True

    def _drip(self, answer: Answer, pause: float) -> bool:
        self._connection.sendall(_head(answer, length=len(answer.body)))
        for byte in answer.body:
            self._connection.sendall(bytes((byte,)))
            if not self.wait(pause):
                return False
        return True

    def _endless(self, answer: Answer) -> None:
        self._connection.sendall(_head(answer, length=None))
        block = (b'{"output": "' if b"json" in _type(answer) else b"\x89PNG\r\n\x1a\n").ljust(65536, b"A")
        for _ in range(_MOST_ENDLESS // len(block)):
            if self._leaving.is_set():
                return
            self._connection.sendall(block)


def mangled(answer: Answer, mood: str) -> Answer:
    """Give the answer that these moods make of it."""
    match mood:
        case "garbage":
            noise = b"\x00\xff\xfe{" + base64.b85encode(b"nothing that parses") + b"\x80"
            return replace(answer, status=200, body=noise)
        case "truncated_json":
            return replace(answer, body=answer.body[: len(answer.body) // 2])
        case "deep_json":
            return Answer(headers={"Content-Type": "application/json"}, body=b"[" * _DEPTH + b"]" * _DEPTH)
        case "wrong_json":
            return Answer.json(["status", "success", None, 1])
        case "html_200":
            return Answer.html()
    raise AssertionError(mood)


def _head(answer: Answer, *, length: int | None) -> bytes:
    phrase = HTTPStatus(answer.status).phrase
    lines = [f"HTTP/1.1 {answer.status} {phrase}"]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    lines.append("Connection: close" if length is None else f"Content-Length: {length}")
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def _type(answer: Answer) -> bytes:
    return answer.headers.get("Content-Type", "").encode()
