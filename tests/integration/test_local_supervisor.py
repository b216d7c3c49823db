"""The supervisor with real child processes: small shell scripts."""

import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.errors import SetupError
from app.local.supervisor import Event, Happened, Program, Supervisor, http_ready


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def supervisor(events: list[Event]) -> Iterator[Supervisor]:
    supervisor = Supervisor(on_event=events.append)
    yield supervisor
    supervisor.stop()


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Program]:
    def make(script: str = "exec sleep 60", **changes: Any) -> Program:
        name = changes.get("name", "it")
        settings: dict[str, Any] = {
            "name": name,
            "argv": ["/bin/sh", "-c", script],
            "environment": {"PATH": "/usr/bin:/bin"},
            "ready": lambda: True,
            "ready_within": timedelta(seconds=10),
            "stop_within": timedelta(seconds=10),
            "log": tmp_path / f"{name}.log",
            "cwd": tmp_path,
        }
        return Program(**(settings | changes))

    return make


def is_gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def holds_within(condition: Callable[[], bool], *, seconds: float = 5) -> bool:
    end, never = time.monotonic() + seconds, threading.Event()
    while not condition():
        if time.monotonic() > end:
            return False
        never.wait(0.01)
    return True


def running(supervisor: Supervisor, name: str = "it") -> int:
    pid = supervisor.pid(name)
    assert pid is not None
    return pid


def test_programs_start_in_order_and_stop_in_reverse_order(
    supervisor: Supervisor, events: list[Event], make: Callable[..., Program]
) -> None:
    for name in ("first", "second", "third"):
        supervisor.start(make(name=name))
    supervisor.stop()
    assert [(event.name, event.what) for event in events] == [
        ("first", Happened.READY),
        ("second", Happened.READY),
        ("third", Happened.READY),
        ("third", Happened.STOPPED),
        ("second", Happened.STOPPED),
        ("first", Happened.STOPPED),
    ]


def test_start_returns_when_the_program_is_ready(
    supervisor: Supervisor, make: Callable[..., Program], tmp_path: Path
) -> None:
    sign = tmp_path / "sign"
    supervisor.start(make("touch sign; exec sleep 60", ready=sign.exists))
    assert sign.exists()


def test_a_program_that_dies_while_starting_shows_the_last_lines_of_its_log(
    supervisor: Supervisor, make: Callable[..., Program], tmp_path: Path
) -> None:
    (tmp_path / "it.log").write_text("from an earlier life\n")
    with pytest.raises(SetupError) as caught:
        supervisor.start(make("seq 100; echo no such table >&2; exit 3", ready=lambda: False))
    lines = caught.value.message.splitlines()
    assert lines[0] == "it ended while starting (exit status 3):"
    assert lines[1:] == [*(str(number) for number in range(87, 101)), "no such table"]


def test_a_program_that_is_not_ready_in_time_is_ended_and_shows_its_log(
    supervisor: Supervisor, make: Callable[..., Program], tmp_path: Path
) -> None:
    script = "echo $$ > pid; echo still thinking; exec sleep 60"
    late = make(script, ready=lambda: False, ready_within=timedelta(seconds=0.3))
    with pytest.raises(SetupError, match=r"was not ready after 0\.3 s:\nstill thinking"):
        supervisor.start(late)
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_a_program_that_is_not_there_is_a_setup_error(
    supervisor: Supervisor, make: Callable[..., Program]
) -> None:
    with pytest.raises(SetupError, match="could not be started"):
        supervisor.start(make(argv=["/nowhere/to/be/found"]))


def test_a_killed_program_is_reported_and_restarted(
    supervisor: Supervisor, events: list[Event], make: Callable[..., Program]
) -> None:
    supervisor.start(make("echo working; exec sleep 60"))
    before = running(supervisor)
    os.kill(before, signal.SIGKILL)
    assert supervisor.watch(until=lambda: events[-1].what == Happened.RESTARTED, within=timedelta(seconds=5))
    assert running(supervisor) != before
    assert [event.what for event in events] == [Happened.READY, Happened.DIED, Happened.RESTARTED]
    assert events[1].detail == "killed by SIGKILL"


def test_what_a_dead_program_leaves_in_its_group_is_ended_with_it(
    supervisor: Supervisor, events: list[Event], make: Callable[..., Program], tmp_path: Path
) -> None:
    left = tmp_path / "left"
    supervisor.start(
        make("sleep 60 & echo $! > left; wait", ready=lambda: left.exists() and bool(left.read_text()))
    )
    helper = int(left.read_text())
    os.kill(running(supervisor), signal.SIGKILL)
    supervisor.watch(until=lambda: events[-1].what == Happened.DIED, within=timedelta(seconds=5))
    assert holds_within(lambda: is_gone(helper))


def test_a_program_that_keeps_dying_is_tried_again_with_growing_pauses(
    supervisor: Supervisor, events: list[Event], make: Callable[..., Program], tmp_path: Path
) -> None:
    sign = tmp_path / "sign"
    supervisor.start(make("test -e sign && exit 1; touch sign; exec sleep 60", ready=sign.exists))
    began = time.monotonic()
    os.kill(running(supervisor), signal.SIGKILL)

    def deaths() -> int:
        return sum(event.what == Happened.DIED for event in events)

    assert supervisor.watch(until=lambda: deaths() == 3, within=timedelta(seconds=10))
    assert time.monotonic() - began > 0.5 + 1.0


def test_a_program_that_ignores_its_stop_signal_is_killed_with_its_children(
    supervisor: Supervisor, events: list[Event], make: Callable[..., Program], tmp_path: Path
) -> None:
    left = tmp_path / "left"
    stubborn = make(
        "trap '' TERM; sleep 60 & echo $! > left; while :; do sleep 1; done",
        ready=lambda: left.exists() and bool(left.read_text()),
        stop_within=timedelta(seconds=0.2),
    )
    supervisor.start(stubborn)
    supervisor.stop()
    assert events[-1].what == Happened.KILLED
    assert holds_within(lambda: is_gone(int(left.read_text())))


def test_an_interrupt_while_stopping_ends_everything_at_once(
    supervisor: Supervisor, events: list[Event], make: Callable[..., Program], tmp_path: Path
) -> None:
    supervisor.start(make(name="other"))
    # Asked to stop, it presses Ctrl-C on us instead.
    script = "trap 'kill -INT $PPID' TERM; touch sign; while :; do sleep 0.05; done"
    supervisor.start(make(script, ready=(tmp_path / "sign").exists, stop_within=timedelta(seconds=60)))
    pids = [running(supervisor, "other"), running(supervisor)]
    before = signal.getsignal(signal.SIGINT)
    supervisor.stop()
    assert all(is_gone(pid) for pid in pids)
    assert events[-2].what == Happened.KILLED
    assert signal.getsignal(signal.SIGINT) is before


def test_a_stop_in_the_middle_of_a_start_ends_the_program(
    supervisor: Supervisor, make: Callable[..., Program], tmp_path: Path
) -> None:
    def stop_meanwhile() -> bool:
        if (tmp_path / "pid").exists():
            supervisor.stop()
        return False

    with pytest.raises(SetupError, match="was stopped while it was starting"):
        supervisor.start(make("echo $$ > pid.new; mv pid.new pid; exec sleep 60", ready=stop_meanwhile))
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_a_stopped_supervisor_stops_again_but_starts_nothing(
    supervisor: Supervisor, make: Callable[..., Program]
) -> None:
    supervisor.stop()
    supervisor.stop()
    with pytest.raises(SetupError, match="was stopped"):
        supervisor.start(make())


def test_run_until_stopped_returns_on_sigterm_and_leaves_the_programs_to_stop(
    supervisor: Supervisor, make: Callable[..., Program], tmp_path: Path
) -> None:
    # The signal must not come before somebody waits for it, so the test asks for it from inside the loop.
    supervisor.start(make("while ! test -e go; do sleep 0.02; done; kill -TERM $PPID; exec sleep 60"))
    before, pid = signal.getsignal(signal.SIGTERM), running(supervisor)

    def go_when_handled() -> None:
        assert holds_within(lambda: signal.getsignal(signal.SIGTERM) is not before)
        (tmp_path / "go").touch()

    asking = threading.Thread(target=go_when_handled)
    asking.start()
    supervisor.run_until_stopped()
    asking.join()
    assert not is_gone(pid)


def test_a_program_is_not_started_from_another_thread(
    supervisor: Supervisor, make: Callable[..., Program]
) -> None:
    caught: list[Exception] = []

    def start() -> None:
        try:
            supervisor.start(make())
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0])


def test_one_name_is_one_program(supervisor: Supervisor, make: Callable[..., Program]) -> None:
    supervisor.start(make())
    with pytest.raises(ValueError, match="started already"):
        supervisor.start(make())


def test_secrets_in_the_environment_stay_out_of_messages(make: Callable[..., Program]) -> None:
    assert "hunter2" not in repr(make(environment={"PASSWORD": "hunter2"}))


PARENT = """
import sys, pathlib
from datetime import timedelta
from app.local.supervisor import Program, Supervisor

supervisor = Supervisor(on_event=lambda event: None)
supervisor.start(Program(
    name="it", argv=["/bin/sleep", "60"], environment={}, ready=lambda: True, log=pathlib.Path(sys.argv[1]),
    ready_within=timedelta(seconds=9), stop_within=timedelta(seconds=9),
))
print(supervisor.pid("it"), flush=True)
supervisor.run_until_stopped()
"""


def test_killing_the_supervisor_ends_its_programs(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, tmp_path / "log"], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        parent.kill()
    assert holds_within(lambda: is_gone(child))


class Teapot(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_http_is_ready_when_the_answer_is_a_success() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Teapot) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        base = f"http://127.0.0.1:{server.server_port}"
        assert http_ready(f"{base}/healthz")
        assert not http_ready(f"{base}/readyz")
        server.shutdown()
        thread.join()
    assert not http_ready(f"{base}/healthz")
