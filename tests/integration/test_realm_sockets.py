"""The real web program over real sockets: big, slow, broken and senseless requests, and it stays up."""

import re
import socket
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import orjson
import pytest

from app.db import Database
from app.settings import Settings
from app.storage import Storage
from tests import rows
from tests.conftest import Account
from tests.factories import GENERATE, MODIFY, NOTHING, picture, written
from tests.servers.processes import Process, Processes
from tests.waiting import eventually

WISH = b'{"modelId":"sketch","prompt":"a hill"}'
JSON = b"Content-Type: application/json\r\n"
FORM = b"Content-Type: multipart/form-data; boundary=B\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
MEGABYTE = 1024 * 1024
TEXTS = b"".join(
    b'--B\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name, value)
    for name, value in ((b"modelId", b"sketch"), (b"prompt", b"snow"))
)
FILE = b'--B\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
END = b"\r\n--B--\r\n"


@dataclass
class Server:
    """A web process of its own, and what a client says to it."""

    process: Process
    port: int
    log: Path

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 10)

    def say(self, *parts: bytes) -> bytes:
        """Send all parts unless the server stops listening, and give the whole answer."""
        with self.connect() as line:
            return self.answer(line, parts)

    def answer(self, line: socket.socket, parts: Iterable[bytes], *, end: bool = False) -> bytes:
        try:
            for part in parts:
                line.sendall(part)
            if end:
                line.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # answered and closed before it heard everything
        return read_answer(line)


def read_answer(line: socket.socket) -> bytes:
    """Read one answer, to the length it announces or to the end of the connection."""
    got = b""
    while True:
        head, separator, rest = got.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if separator and length and len(rest) >= int(length[1]):
            return got
        more = line.recv(65536)
        if not more:
            return got
        got += more


def head(path: str, *headers: bytes, method: str = "POST", version: str = "1.1") -> bytes:
    return f"{method} {path} HTTP/{version}\r\nHost: x\r\n".encode() + b"".join(headers) + b"\r\n"


def length(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n" % len(body)


def key(account: Account) -> bytes:
    return f"X-API-Key: {account.key}\r\n".encode()


def chunks(body: bytes, size: int = 65536) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        piece = body[start : start + size]
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


def status(answer: bytes) -> int:
    found = re.match(rb"HTTP/1\.[01] (\d{3}) ", answer)
    return int(found[1]) if found else 0


def message(answer: bytes) -> str:
    told = orjson.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]
    assert isinstance(told, str)
    return told


@pytest.fixture(scope="module")
def server(base_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    logs = tmp_path_factory.mktemp("web")
    settings = base_settings.model_copy(update={"rate_limit_per_minute": 100_000, "web_threads": 64})
    with Processes(settings, logs=logs) as processes:
        process, url = processes.web()
        processes.await_web(url)
        (log,) = logs.glob("*web*")
        yield Server(process, int(url.rpartition(":")[2]), log)


@pytest.fixture(autouse=True)
def it_stays_up(server: Server, account: Account) -> Iterator[None]:
    """After each test the same process answers a new connection, and has logged no key and no traceback."""
    yield
    assert server.process.alive, server.process.last_words()
    assert status(server.say(head("/v1/models", key(account), method="GET"))) == 200
    logged = server.log.read_text()
    assert account.key not in logged
    assert "Traceback" not in logged


def test_thirty_megabytes_are_refused_with_and_without_a_length_and_leave_nothing(
    server: Server, account: Account, database: Database, storage: Storage
) -> None:
    form = TEXTS + FILE + b"x" * (30 * MEGABYTE) + END
    answers = {
        "form": server.say(head(MODIFY, key(account), FORM, length(form)), form),
        "chunked form": server.say(head(MODIFY, key(account), FORM, CHUNKED), *chunks(form)),
        "json": server.say(head(GENERATE, key(account), JSON, length(form)), form),
        "chunked json": server.say(head(GENERATE, key(account), JSON, CHUNKED), *chunks(form)),
        "expects a go-ahead": server.say(
            head(MODIFY, key(account), FORM, length(form), b"Expect: 100-continue\r\n")
        ),
    }

    assert {name: status(answer) for name, answer in answers.items()} == dict.fromkeys(answers, 413)
    assert message(answers["json"]) == "The JSON body may have at most 262,144 bytes."
    assert all(b"x-ratelimit-remaining" in answer.lower() for answer in answers.values())
    assert written(database, storage) == NOTHING


def test_a_chunked_body_is_not_cut_to_the_limit_and_taken_for_whole(
    server: Server, account: Account, database: Database, storage: Storage
) -> None:
    padded = WISH.ljust(300_000)

    answer = server.say(head(GENERATE, key(account), JSON, CHUNKED), *chunks(padded))

    assert status(answer) == 413
    assert written(database, storage) == NOTHING


def test_a_small_chunked_body_is_as_good_as_any(server: Server, account: Account) -> None:
    form = TEXTS + FILE + picture() + END

    assert status(server.say(head(GENERATE, key(account), JSON, CHUNKED), *chunks(WISH, 5))) == 202
    assert status(server.say(head(MODIFY, key(account), FORM, CHUNKED), *chunks(form, 7))) == 202


def test_a_stranger_with_a_big_body_gets_the_answer_before_it_is_sent(server: Server) -> None:
    big = b"x" * (30 * MEGABYTE)

    for headers, parts in (((JSON, length(big)), [big]), ((JSON, CHUNKED), chunks(big))):
        answer = server.say(head(GENERATE, *headers), *parts)
        assert status(answer) == 401
        assert message(answer) == "No valid API key was sent; put one into the X-API-Key header."


def test_after_a_small_refused_body_the_connection_can_be_used_again(
    server: Server, account: Account
) -> None:
    with server.connect() as line:
        # In one piece: of a body that comes after its answer the server reads nothing, and hangs up.
        refused = server.answer(line, [head(GENERATE, JSON, length(WISH)) + WISH])
        accepted = server.answer(line, [head(GENERATE, key(account), JSON, length(WISH)), WISH])

    assert (status(refused), status(accepted)) == (401, 202)


def test_an_upload_that_breaks_off_makes_no_job(
    server: Server, account: Account, database: Database, storage: Storage
) -> None:
    form = TEXTS + FILE + picture() + END
    with server.connect() as line:  # whole JSON, and yet less than was announced
        sent = [head(GENERATE, key(account), JSON, b"Content-Length: 500\r\n"), WISH]
        assert message(server.answer(line, sent, end=True)) == (
            "The body ended after 38 of 500 bytes; send it again."
        )
    with server.connect() as line:
        sent = [head(MODIFY, key(account), FORM, b"Content-Length: 5000\r\n"), form]
        assert status(server.answer(line, sent, end=True)) == 400
    for start in (form[:-40], form[: len(TEXTS)], b""):
        with server.connect() as line:
            line.sendall(head(MODIFY, key(account), FORM, length(form)) + start)
        with server.connect() as line:
            line.sendall(head(MODIFY, key(account), FORM, CHUNKED) + b"fff\r\n" + start)

    assert status(server.say(head("/v1/models", key(account), method="GET"))) == 200
    assert written(database, storage) == NOTHING


def test_fifty_at_once_are_fifty_jobs(
    server: Server, account: Account, database: Database, storage: Storage
) -> None:
    with ThreadPoolExecutor(50) as pool:
        request = head(GENERATE, key(account), JSON, length(WISH)) + WISH
        answers = list(pool.map(lambda _: server.say(request), range(50)))

    assert [status(answer) for answer in answers] == [202] * 50
    assert len({re.findall(rb"job_\w+", answer)[0] for answer in answers}) == 50
    assert written(database, storage)["jobs"] == 50


def test_an_accounts_slow_uploads_hold_up_nobody_else(
    server: Server, account: Account, stranger: Account
) -> None:
    """More of them than there are threads: the surplus is refused, and other accounts are served."""
    slow = [server.connect() for _ in range(150)]
    try:
        for line in slow:
            line.sendall(head(GENERATE, key(account), JSON, b"Content-Length: 500\r\n") + b"{")
        answer = server.say(head(GENERATE, key(stranger), JSON, length(WISH)), WISH)
        refused = slow[-1].recv(4096)
    finally:
        for line in slow:
            line.close()

    assert status(answer) == 202
    assert status(refused) == 429


def test_clients_that_do_not_read_their_output_hold_up_nobody_else(
    server: Server, account: Account, database: Database, storage: Storage
) -> None:
    """The surplus is told to come back; when the others have gone, everybody is served again."""
    path = large_output(database, storage, account)
    whole = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    part = f"GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9\r\nConnection: close\r\n\r\n".encode()
    deaf = [server.connect() for _ in range(70)]
    try:
        for line in deaf:
            line.sendall(whole)
        eventually(lambda: status(refused := server.say(part)) == 503 and b"etry-" in refused, within=20)
        answer = server.say(head(GENERATE, key(account), JSON, length(WISH)), WISH)
    finally:
        for line in deaf:
            line.close()

    assert status(answer) == 202
    eventually(lambda: status(server.say(part)) == 206, within=20)


def large_output(database: Database, storage: Storage, account: Account) -> str:
    """The path of an output larger than what sockets buffer."""
    prefix = uuid4()
    job_id = rows.insert_job(
        database, account.id, status="completed", finished_at="now()", output_prefix=prefix
    )
    data = bytes(24 * 1024 * 1024)
    storage.put(f"outputs/{job_id}/large", data, media_type="image/png")
    rows.insert_output(
        database, job_id, key=f"outputs/{job_id}/large", expires_in=timedelta(hours=1), size=len(data)
    )
    return f"/outputs/{prefix.hex}-0.png"


def test_http_1_0_is_spoken(server: Server, account: Account) -> None:
    get = f"GET /v1/models HTTP/1.0\r\nX-API-Key: {account.key}\r\n\r\n".encode()
    post = head(GENERATE, key(account), JSON, length(WISH), version="1.0")

    assert status(server.say(get)) == 200
    assert status(server.say(post, WISH)) == 202


SENSELESS: dict[str, tuple[bytes, set[int]]] = {
    "a TLS greeting": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10, {400}),
    "HTTP/0.9": (b"GET /v1/models\r\n\r\n", {400}),
    "a line that is no header": (b"GET /v1/models HTTP/1.1\r\nHost: x\r\nfoo bar\r\n\r\n", {400}),
    "NUL in a header": (head("/v1/models", b"X-API-Key: a\0b\r\n", method="GET"), {400}),
    "a key of other bytes": (head("/v1/models", b"X-API-Key: \xff\xfe\xe9\r\n", method="GET"), {401}),
    "an empty key": (head("/v1/models", b"X-API-Key: \r\n", method="GET"), {401}),
    "a header of a megabyte": (head("/v1/models", b"X-A: " + b"a" * MEGABYTE + b"\r\n", method="GET"), {431}),
    "5000 headers": (head("/v1/models", *(b"X-%d: a\r\n" % n for n in range(5000)), method="GET"), {431}),
    "an address of 100 kB": (head("/v1/models/" + "a" * 100_000, method="GET"), {414}),
    "a negative length": (head(GENERATE, JSON, b"Content-Length: -5\r\n"), {400}),
    "a length in words": (head(GENERATE, JSON, b"Content-Length: abc\r\n"), {400}),
    "a length beyond all": (head(GENERATE, JSON, b"Content-Length: 99999999999999999999999\r\n"), {400}),
    "CONNECT": (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", {404}),
    "an asterisk": (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", {404}),
    "a raw byte in the path": (b"GET /v1/images/jobs/\xff HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    "two slashes": (head("//v1/models", method="GET"), {401}),  # granian makes them one
    "dots": (head("/v1/../outputs/%2e%2e%2fetc", method="GET"), {404}),
}


@pytest.mark.parametrize("what", SENSELESS)
def test_what_makes_no_sense_is_a_4xx(what: str, server: Server) -> None:
    sent, expected = SENSELESS[what]

    answer = server.say(sent)

    assert status(answer) in expected, answer[:300]


def test_a_known_callers_senseless_requests_are_4xx_too(
    server: Server, account: Account, database: Database, storage: Storage
) -> None:
    mine = key(account)
    asks = {
        head(GENERATE, mine, JSON, CHUNKED) + b"zz\r\nabc\r\n": 400,
        head(GENERATE, mine, JSON) + WISH: 400,
        head(GENERATE, mine, JSON, b"Content-Length: 9999999999999\r\n"): 413,
        head(GENERATE, mine, JSON, b"Idempotency-Key: \xff\xe9\r\n", length(WISH)) + WISH: 422,
        head(GENERATE, mine, b"Content-Type: \xff\xe9\r\n", length(WISH)) + WISH: 415,
        head("/v1/images/jobs/%00", mine, method="GET"): 404,
        head("/v1/images/jobs/%ff%fe", mine, method="GET"): 404,
        head("/v1/models?limit=%00&status=%ff", mine, method="GET"): 422,
        head("/v1/models", mine, b"Connection: Upgrade\r\nUpgrade: websocket\r\n", method="GET"): 400,
        head("/outputs/x", b"Range: \xff\xe9\r\n", method="GET"): 404,
    }

    assert {request: status(server.say(request)) for request in asks} == asks
    assert written(database, storage) == NOTHING


def test_a_key_revoked_elsewhere_is_out_at_once(server: Server, account: Account, database: Database) -> None:
    ask = head("/v1/models", key(account), method="GET")
    assert status(server.say(ask)) == 200

    rows.execute(database, "UPDATE accounts SET disabled_at = now()")
    rows.execute(database, "SELECT pg_notify('darkroom_keys', '')")
    eventually(lambda: status(server.say(ask)) == 403, within=5)

    rows.execute(database, "UPDATE accounts SET disabled_at = NULL")
    rows.execute(database, "SELECT pg_notify('darkroom_keys', '')")
    eventually(lambda: status(server.say(ask)) == 200, within=5)
