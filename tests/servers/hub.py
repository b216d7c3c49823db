"""A small Hugging Face hub on loopback: repositories of files at one commit, with ranges, gates and stalls.

It speaks the part of the hub's wire form that its own client uses: model info, the tree of a commit, and
files by name with an ETag, their commit, and ranges.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

_INFO = re.compile(r"/api/models/(?P<id>[^/]+/[^/]+)(?:/revision/(?P<revision>[^/]+))?")
_TREE = re.compile(r"/api/models/(?P<id>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)")
_FILE = re.compile(r"/(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")


@dataclass
class Shelved:
    """A repository.

    Attributes:
        gated: its files want a token.
    """

    files: Mapping[str, bytes]
    licence: str | None = "openrail++"
    commit: str = "c0ffee" * 6 + "0000"
    gated: bool = False


@dataclass
class FakeHub:
    """Its state; `asked` holds each request for a file's content: its name and the range asked for."""

    repositories: dict[str, Shelved] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""
    stall_after: int | None = None
    """Bytes of a file after which nothing more comes; None: all come."""
    stalled: threading.Event = field(default_factory=threading.Event)
    """Set when a file has stopped coming."""
    going_on: threading.Event = field(default_factory=threading.Event)
    """Ends the stall, and the connection with it."""


@contextmanager
def opened() -> Iterator[FakeHub]:
    """Give a hub that listens on loopback; it is gone afterwards."""
    hub = FakeHub()

    class Bound(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="fake hub")
    thread.start()
    try:
        yield hub
    finally:
        hub.going_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def _route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        for pattern, answer in ((_TREE, self._tree), (_INFO, self._info), (_FILE, self._file)):
            if (match := pattern.fullmatch(path)) is not None:
                repository = self.state.repositories.get(match["id"])
                if repository is None:
                    self._refuse(404, "RepoNotFound")
                elif match["revision"] not in {None, "main", repository.commit}:
                    self._refuse(404, "RevisionNotFound")
                elif repository.gated and self.headers.get("Authorization") is None:
                    self._refuse(401, "GatedRepo")
                else:
                    answer(repository, match.groupdict())
                return
        self._refuse(404, "EntryNotFound")

    def _info(self, repository: Shelved, named: dict[str, str]) -> None:
        files = repository.files.items()
        self._json(
            {
                "_id": "1",
                "id": named["id"],
                "modelId": named["id"],
                "sha": repository.commit,
                "private": False,
                "tags": [],
                "cardData": {"license": repository.licence} if repository.licence else {},
                "siblings": [
                    {"rfilename": name, "size": len(data), "blobId": _etag(data)} for name, data in files
                ],
            }
        )

    def _tree(self, repository: Shelved, _named: dict[str, str]) -> None:
        self._json(
            [
                {"type": "file", "path": name, "size": len(data), "oid": _etag(data)}
                for name, data in repository.files.items()
            ]
        )

    def _file(self, repository: Shelved, named: dict[str, str]) -> None:
        data = repository.files.get(named["name"])
        if data is None:
            self._refuse(404, "EntryNotFound")
            return
        wanted = self.headers.get("Range")
        first = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(data) - first))
        self.send_header("Accept-Ranges", "bytes")
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.send_header("ETag", f'"{_etag(data)}"')
        self.send_header("X-Repo-Commit", repository.commit)
        self.end_headers()
        if self.command == "GET":
            self.state.asked.append((named["name"], wanted))
            self._send(data[first:])

    def _send(self, data: bytes) -> None:
        most = self.state.stall_after
        if most is None or len(data) <= most:
            self.wfile.write(data)
            return
        self.wfile.write(data[:most])
        self.wfile.flush()
        self.state.stalled.set()
        self.state.going_on.wait(timeout=60)
        self.close_connection = True

    def _json(self, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
