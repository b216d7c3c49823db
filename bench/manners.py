"""How a WSGI server behaves where speed is not the question: each check gives a short answer in words."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Final

from bench.client import Client, fetch
from bench.house import House
from bench.load import HOST
from bench.programs import Running, free_port, is_alive, wait_until

THREADS: Final = 64
"""Default of DARKROOM_WEB_THREADS, what each server is started with."""
_TOO_LARGE: Final = 30 * 1024 * 1024
_APART: Final = 0.5
"""Two pieces are sent a second apart; they arrive so, or they were held back."""
_LAZY: Final = 3
_SOON: Final = timedelta(seconds=4)


def examine(house: House, *, server: str, application: str) -> dict[str, str]:
    """Give question and answer of every check; starts the server anew for those that end it."""

    def started() -> tuple[Running, int]:
        port = free_port()
        name = f"manners {server}"
        return house.start_server(name, server=server, application=application, port=port), port

    answers = {}
    program, port = started()
    with program:
        for question, check in _GENTLE.items():
            # mypy cannot infer a lambda whose defaults bind the loop's variables.
            answers[question] = _answer(lambda check=check, port=port: check(house, port))  # type: ignore[misc]  # lambda
    for question, fatal in _FATAL.items():
        program, port = started()
        with program:
            answers[question] = _answer(lambda: fatal(program, port))  # noqa: B023 - called at once
    return answers


def open_waits(port: int) -> int:
    """Count the waits that a server's application is in, also those nobody reads any more."""
    return int(fetch(port, "/bench/open") or 0)


def _answer(check: Callable[[], str]) -> str:
    try:
        return check()
    except OSError as error:
        return f"broken off: {type(error).__name__}"


def _streams(_house: House, port: int) -> str:
    with Client(port) as client:
        began = time.monotonic()
        client.get("/bench/wait?seconds=2")
        arrivals = []
        while piece := client.receive():
            arrivals.extend([time.monotonic() - began] * piece.count(b"still here"))
    in_pieces = len(arrivals) > 1 and arrivals[-1] - arrivals[0] > _APART
    shown = ", ".join(f"{arrival:.1f} s" for arrival in arrivals)
    return f"yes, at {shown}" if in_pieces else f"no, all at {shown}"


def _frees_thread(_house: House, port: int) -> str:
    clients = [Client(port) for _ in range(5)]
    for client in clients:
        client.get("/bench/wait?seconds=8")
        client.receive()
    for client in clients:
        client.close()
    began = time.monotonic()
    if wait_until(lambda: open_waits(port) == 0, within=timedelta(seconds=6), every=0.1):
        return f"yes, after {time.monotonic() - began:.1f} s"
    return f"no: {open_waits(port)} of 5 still run"


def _refuses_early(house: House, port: int) -> str:
    """Declare 30 MB, send one, and look for the 413 before sending more."""
    with Client(port) as client:
        client.send(_large_head(house) + b"x" * 1024 * 1024)
        began = time.monotonic()
        status = client.receive()[9:12].decode()
        return f"{status} after {time.monotonic() - began:.1f} s"


def _refuses_late(house: House, port: int) -> str:
    """Send all 30 MB before looking, as simple clients do."""
    with Client(port) as client:
        with contextlib.suppress(OSError):
            client.send(_large_head(house) + b"x" * _TOO_LARGE)
        return f"{client.receive()[9:12].decode() or 'closed without an answer'}"


def _large_head(house: House) -> bytes:
    lines = (
        "POST /v1/images/generate HTTP/1.1",
        f"Host: {HOST}",
        f"X-API-Key: {house.key}",
        "Content-Type: application/json",
        f"Content-Length: {_TOO_LARGE}",
        "",
        "",
    )
    return "\r\n".join(lines).encode()


def _beyond_threads(_house: House, port: int) -> str:
    """Hold every thread for 3 s, and ask meanwhile on more connections than a server queues by itself."""
    began = time.monotonic()
    with ThreadPoolExecutor(THREADS * 5) as people:
        holders = [people.submit(fetch, port, "/bench/slow?seconds=3") for _ in range(THREADS)]
        time.sleep(0.3)  # until each of them has its thread, which the server does not tell
        late = [people.submit(fetch, port, "/bench/open") for _ in range(THREADS * 4)]
    served = sum(one.exception() is None and bool(one.result()) for one in [*holders, *late])
    return f"{served} of {len(holders) + len(late)} served in {time.monotonic() - began:.1f} s"


def _survives_leftovers(_house: House, port: int) -> str:
    """Let clients keep their end open after an answer with `Connection: close`, and time somebody else."""
    lazy = [Client(port) for _ in range(_LAZY)]
    for client in lazy:
        client.get("/bench/open")
    time.sleep(0.2)  # until the server is through with its own side of the closing
    began = time.monotonic()
    fetch(port, "/bench/open")
    took = time.monotonic() - began
    for client in lazy:
        client.close()
    return f"the next one waits {took:.1f} s"


def _drains(program: Running, port: int) -> str:
    found: list[bytes] = []

    def ask() -> None:
        with contextlib.suppress(OSError):
            found.append(fetch(port, "/bench/slow?seconds=2"))

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.5)  # until the request is being worked on, which the server does not tell
    began = time.monotonic()
    program.send(signal.SIGTERM)
    ended = wait_until(lambda: program.has_ended, within=timedelta(seconds=20))
    asking.join()
    what = "finishes the request" if found and found[0] else "breaks the request off"
    return (
        f"{what}, ends after {time.monotonic() - began:.1f} s" if ended else f"{what}, does not end in 20 s"
    )


def _leaves_nobody(program: Running, port: int) -> str:
    del port
    family = program.tree()
    program.send(signal.SIGKILL)
    if wait_until(lambda: not any(is_alive(pid) for pid in family), within=_SOON):
        return f"yes ({len(family)} processes)"
    return f"no: {sum(is_alive(pid) for pid in family)} of {len(family)} live on"


_GENTLE: Final[dict[str, Callable[[House, int], str]]] = {
    "a stream arrives in pieces": _streams,
    "a client that leaves frees its thread": _frees_thread,
    "413 while the body is still to come": _refuses_early,
    "413 after the whole body (30 MB)": _refuses_late,
    "64 threads held for 3 s, 256 more requests": _beyond_threads,
    "3 clients do not close after their answer": _survives_leftovers,
}
_FATAL: Final[dict[str, Callable[[Running, int], str]]] = {
    "SIGTERM during a request of 2 s": _drains,
    "kill -9 of the main process leaves no other": _leaves_nobody,
}
