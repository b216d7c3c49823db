"""`darkroom up` and `demo` as a person runs them: real commands, real signals, nothing left behind."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from app.local import stack
from app.local.supervisor import http_ready
from app.settings import environment_of_child

DARKROOM = [sys.executable, "-c", "from app.cli import main; main()"]


@pytest.fixture
def state() -> Iterator[Path]:
    """A state folder in a place that `nobody` can reach, deleted with its data afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="darkroom-e2e-"))
    folder.chmod(0o755)
    yield folder / "state"
    stack.discard(folder / "state")
    shutil.rmtree(folder)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def eventually(check: Callable[[], bool], *, within: float, what: str) -> None:
    until = time.monotonic() + within
    pause = threading.Event()
    while not check():
        assert time.monotonic() < until, f"not within {within} s: {what}"
        pause.wait(0.05)


def processes_of(state: Path) -> list[str]:
    """The command lines of all processes that name the state folder in their arguments or environment."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            except OSError:
                continue  # it has ended, or is somebody else's
            if str(state).encode() in words:
                found.append(words.split(b"\0DARKROOM")[0].decode(errors="replace")[:200])
    return found


def environment(**changes: str) -> dict[str, str]:
    """Ours, without what would point the commands at somebody else's servers."""
    return {
        name: value
        for name, value in environment_of_child(**changes).items()
        if not name.startswith("DARKROOM_") or name in changes
    }


def darkroom(*words: str, state: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DARKROOM, *words, "--state", str(state)],
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


class Up:
    """A running `darkroom up`."""

    def __init__(self, process: subprocess.Popen[bytes], *, url: str, key: str) -> None:
        self.process = process
        self.url = url
        self.headers = {"X-API-Key": key}

    def submit(self, **changes: int) -> str:
        body = {"modelId": "sketch", "prompt": "a cat on a hill", "width": 64, "height": 64, **changes}
        answer = requests.post(f"{self.url}/v1/images/generate", json=body, headers=self.headers, timeout=10)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["jobId"])

    def job(self, job_id: str) -> dict[str, Any]:
        answer = requests.get(f"{self.url}/v1/images/jobs/{job_id}", headers=self.headers, timeout=10)
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    def completed(self, job_id: str) -> dict[str, Any]:
        eventually(lambda: self.job(job_id)["status"] == "completed", within=30, what="job completed")
        return self.job(job_id)

    def signal(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=40)


@contextmanager
def up(state: Path, **changes: str) -> Iterator[Up]:
    port = free_port()
    said = state.parent / "said.txt"
    with said.open("w") as output:
        process = subprocess.Popen(
            [*DARKROOM, "up", "--port", str(port), "--state", str(state)],
            env=environment(**changes),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(
            lambda: "Ctrl-C stops everything" in said.read_text() or process.poll() is not None,
            within=60,
            what="everything started",
        )
        assert f"http://127.0.0.1:{port}" in said.read_text(), said.read_text()
        assert "curl" in said.read_text()
        yield Up(process, url=f"http://127.0.0.1:{port}", key=(state / "api-key").read_text().strip())
    finally:
        process.kill()
        process.wait()
        eventually(is_gone(state), within=10, what="all processes gone")


def is_gone(state: Path) -> Callable[[], bool]:
    return lambda: not processes_of(state)


@pytest.mark.slow
def test_a_stack_that_is_killed_leaves_nothing_behind_and_keeps_jobs_and_pictures(state: Path) -> None:
    with up(state, DARKROOM_LEASE="5") as first:
        job_id = first.submit()
        url = first.completed(job_id)["results"][0]["url"]
        picture = requests.get(url, timeout=10).content

        running = first.submit(width=1600, height=1600, numOutputs=2)
        eventually(
            lambda: first.job(running)["status"] == "processing", within=30, what="a job is being drawn"
        )
        first.signal(signal.SIGKILL)
        eventually(is_gone(state), within=5, what="no process left after kill -9")

    with up(state, DARKROOM_LEASE="5") as second:
        second.completed(running)
        assert second.headers == first.headers
        again = second.completed(job_id)["results"][0]["url"]
        assert requests.get(again, timeout=10).content == picture
        second.completed(second.submit())

        doctor = darkroom("doctor", state=state)
        assert doctor.returncode == 0, doctor.stdout + doctor.stderr
        assert "NOT WELL" not in doctor.stdout

        assert second.signal(signal.SIGINT) == 0
        assert processes_of(state) == []


@pytest.mark.slow
def test_keys_are_made_listed_and_revoked_while_it_runs(state: Path, tmp_path: Path) -> None:
    preset = "the-key-my-service-already-has"
    with up(state, DARKROOM_BOOTSTRAP_API_KEY=preset) as running:
        assert running.headers == {"X-API-Key": preset}
        running.completed(running.submit())

        made = darkroom("keys", "create", "--account", "shop", "--name", "spare", state=state)
        assert made.returncode == 0, made.stderr
        key = made.stdout.strip()
        models = f"{running.url}/v1/models"
        assert requests.get(models, headers={"X-API-Key": key}, timeout=10).status_code == 200

        listed = darkroom("keys", "list", state=state).stdout
        (line,) = (line for line in listed.splitlines() if "spare" in line)
        assert line.split()[1] == "shop"
        assert key not in listed
        revoked = darkroom("keys", "revoke", line.split()[0], state=state)
        assert revoked.returncode == 0, revoked.stderr
        eventually(
            lambda: requests.get(models, headers={"X-API-Key": key}, timeout=10).status_code == 401,
            within=5,
            what="revoked key refused",
        )

        another_web_answers(state)
        beat_starts_without_a_folder_of_its_own(state, tmp_path)

        dry = darkroom("purge", "--dry-run", state=state)
        assert "Would delete 0 outputs" in dry.stdout, dry.stderr
        assert darkroom("purge", state=state).returncode == 0

        twice = darkroom("up", "--port", str(free_port()), state=state)
        assert twice.returncode == 1
        assert str(running.process.pid) in twice.stderr
        taken = darkroom("up", "--port", running.url.rpartition(":")[2], state=tmp_path / "other")
        assert taken.returncode == 1
        assert "is taken" in taken.stderr


def another_web_answers(state: Path) -> None:
    """`darkroom web --state` serves that stack, wherever it is started."""
    port = free_port()
    web = subprocess.Popen(
        [*DARKROOM, "web", "--port", str(port), "--state", str(state)], env=environment(), cwd="/"
    )
    try:
        eventually(lambda: http_ready(f"http://127.0.0.1:{port}/readyz"), within=30, what="web ready")
    finally:
        web.terminate()
        web.wait(timeout=30)


def beat_starts_without_a_folder_of_its_own(state: Path, empty: Path) -> None:
    said = empty / "beat.txt"
    with said.open("w") as output:
        beat = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "workers", "beat"],
            env=environment(DARKROOM_STATE=str(state)),
            cwd=empty,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(lambda: "beat: Starting" in said.read_text(), within=30, what="beat started")
        assert beat.poll() is None, said.read_text()
    finally:
        beat.terminate()
        assert beat.wait(timeout=30) == 0


@pytest.mark.slow
def test_the_demo_draws_two_pictures_and_leaves_nothing_behind(state: Path, tmp_path: Path) -> None:
    run = darkroom("demo", "--output", str(tmp_path), state=state)

    assert run.returncode == 0, run.stdout + run.stderr
    for name in ("text-to-image.png", "image-to-image.png"):
        with Image.open(tmp_path / name) as picture:
            picture.load()
            assert picture.size == (768, 512)
    assert "generate" in run.stdout
    assert processes_of(state) == []
    assert list(state.iterdir()) == []
    state.rmdir()


def test_a_command_without_servers_says_how_to_get_them(state: Path) -> None:
    run = darkroom("doctor", state=state)

    assert run.returncode == 1
    assert "DARKROOM_DATABASE_URL" in run.stderr
    assert "darkroom up" in run.stderr
    assert "Traceback" not in run.stderr


def test_discard_refuses_a_folder_that_is_no_state_folder(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")

    run = darkroom("discard", "--yes", state=tmp_path)

    assert run.returncode == 1
    assert (tmp_path / "precious.txt").exists()
