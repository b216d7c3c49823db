"""`darkroom demo`: from nothing to two pictures, over HTTP and with an API key, like any service would."""

import io
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import requests
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from app.db import connect
from app.errors import DarkroomError
from app.local import up
from app.local.stack import Stack, discard

_PATIENCE: Final = timedelta(seconds=60)
_PROMPT: Final = "misty mountains at sunrise above a quiet lake, two birds"
_CHANGE: Final = "the same valley in a starry night, aurora over the mountains"
_SEED: Final = 7


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A finished job of the demo: where its picture lies and how many seconds each stage took."""

    path: Path
    seconds: dict[str, float]


def run(state: Path, *, output: Path, out: Console) -> None:
    """Start everything in a folder below `state`, draw, and stop; the folder is removed again.

    Raises:
        DarkroomError: something did not start, or a job did not complete; the message says what.
    """
    began = time.monotonic()
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="demo-", dir=state))
    out.print("Starting PostgreSQL, Valkey, an S3 store and every process of Darkroom:")
    try:
        with Stack.open(folder, on_event=lambda event: up.tell(event, out)) as stack:
            drawn = _draw(stack, output=output, out=out)
    finally:
        discard(folder)
    _report(drawn, out=out, seconds=time.monotonic() - began)


def _draw(stack: Stack, *, output: Path, out: Console) -> list[Drawn]:
    port = _free_port()
    loaded = up.start_everything(stack, port=port)
    key = (stack.state / up.KEY_FILE).read_text().strip()
    client = _Client(f"http://{up.HOST}:{port}", key)
    output.mkdir(parents=True, exist_ok=True)
    with _progress(out) as progress:
        first = client.generate(output / "text-to-image.png", _shown(progress, "text to image"))
        second = client.modify(first.path, output / "image-to-image.png", _shown(progress, "image to image"))
    database = connect(loaded, pool_size=1)
    for drawn, job_id in zip((first, second), client.job_ids, strict=True):
        with database.autocommit() as tx:
            detail = tx.exec_driver_sql(
                "SELECT e.detail->'seconds' AS seconds, "
                "extract(epoch FROM j.started_at - j.created_at)::float AS waited "
                "FROM job_events e JOIN jobs j ON j.id = e.job_id "
                "WHERE e.reason = 'completed' AND replace(j.id::text, '-', '') = %(id)s",
                {"id": job_id.removeprefix("job_")},
            ).one()
        drawn.seconds.update({"queued": detail.waited, **detail.seconds})
    database.close()
    return [first, second]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((up.HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class _Client:
    """A service that speaks Realm's API, as one would write it against the original."""

    def __init__(self, url: str, key: str) -> None:
        self.job_ids: list[str] = []
        self._url = url
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["X-API-Key"] = key

    def generate(self, path: Path, show: Callable[[float], None]) -> Drawn:
        began = time.monotonic()
        body = {"modelId": "sketch", "prompt": _PROMPT, "width": 768, "height": 512, "seed": _SEED}
        answer = self._session.post(f"{self._url}/v1/images/generate", json=body, timeout=10)
        return self._fetch(_accepted(answer), path, show, began=began)

    def modify(self, image: Path, path: Path, show: Callable[[float], None]) -> Drawn:
        began = time.monotonic()
        fields = {"modelId": "sketch", "prompt": _CHANGE, "strength": "0.7", "seed": str(_SEED)}
        with image.open("rb") as file:
            answer = self._session.post(
                f"{self._url}/v1/images/modify", data=fields, files={"image": file}, timeout=10
            )
        return self._fetch(_accepted(answer), path, show, began=began)

    def _fetch(self, job_id: str, path: Path, show: Callable[[float], None], *, began: float) -> Drawn:
        accepted = time.monotonic()
        self.job_ids.append(job_id)
        job = self._await(job_id, show)
        done = time.monotonic()
        picture = self._session.get(job["results"][0]["url"], timeout=10)
        picture.raise_for_status()
        path.write_bytes(picture.content)
        Image.open(io.BytesIO(picture.content)).load()
        seconds = {"submit": accepted - began, "job": done - accepted, "download": time.monotonic() - done}
        return Drawn(path=path, seconds=seconds)

    def _await(self, job_id: str, show: Callable[[float], None]) -> dict[str, Any]:
        until = time.monotonic() + _PATIENCE.total_seconds()
        while time.monotonic() < until:
            job: dict[str, Any] = self._session.get(f"{self._url}/v1/images/jobs/{job_id}", timeout=10).json()
            if job["status"] == "failed":
                raise DarkroomError(f"The demo's job failed: {job['errorCode']}: {job['errorMessage']}")
            if job["status"] == "completed":
                show(1.0)
                return job
            show(job["progress"])
            time.sleep(0.1)  # the steps of what a terminal shows
        raise DarkroomError(f"The demo's job {job_id} was not done within {_PATIENCE.seconds} s.")


def _accepted(answer: requests.Response) -> str:
    if answer.status_code != 202:  # noqa: PLR2004 - HTTP's Accepted
        raise DarkroomError(f"The demo's request was refused: {answer.status_code} {answer.text[:500]}")
    return str(answer.json()["jobId"])


def _progress(out: Console) -> Progress:
    return Progress(TextColumn("  {task.description:<16}"), BarColumn(), TimeElapsedColumn(), console=out)


def _shown(progress: Progress, title: str) -> Callable[[float], None]:
    task = progress.add_task(title, total=1.0)
    return lambda share: progress.update(task, completed=share)


def _report(drawn: list[Drawn], *, out: Console, seconds: float) -> None:
    stages = ("submit", "queued", "read", "generate", "finish", "job", "download")
    out.print("\nSeconds per stage (job = from the 202 to the poll that saw it completed):")
    out.print("  " + " ".join(f"{stage:>9}" for stage in stages))
    for one in drawn:
        out.print("  " + " ".join(f"{one.seconds.get(stage, 0.0):9.3f}" for stage in stages))
    out.print(f"\nEverything is stopped again; {seconds:.1f} s in all. The pictures:")
    for one in drawn:
        out.print(f"  {one.path}")
    out.print("\nNext: make up, then paste the curl command it prints.")
