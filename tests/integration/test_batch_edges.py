"""Calls beside slow uploads, beside siblings that cannot be read, and of workers that are not ready."""

import hashlib
import io
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.db import Database
from app.settings import Settings
from app.storage import Storage
from tests import invariants, rows
from tests.conftest import Account
from tests.integration.test_batches import LEASE, Press
from tests.platen import Platen
from workers.outcomes import Kind
from workers.providers.base import Attempt, Provider, Share

PATIENCE = 20
"""Seconds after which a test gives up waiting for another thread."""


@pytest.fixture
def press(settings: Settings, database: Database, storage: Storage, account: Account) -> Press:
    return Press(settings.model_copy(update={"lease": LEASE}), database, storage, account)


class Hanging(Storage):
    """A store in which every upload hangs until `opened` is set; all else goes well."""

    opened: threading.Event
    waiting: threading.Semaphore

    @classmethod
    def beside(cls, store: Storage) -> "Hanging":
        made = cls.__new__(cls)
        made.__dict__.update(store.__dict__)
        made.opened, made.waiting = threading.Event(), threading.Semaphore(0)
        return made

    def put(self, key: str, data: bytes, *, media_type: str) -> None:
        self.waiting.release()
        assert self.opened.wait(2 * PATIENCE)
        super().put(key, data, media_type=media_type)


def image(storage: Storage, *, there: bool = True) -> dict[str, Any]:
    """Give the columns of a job that changes an image, which lies in the store or does not."""
    file = io.BytesIO()
    Image.new("RGB", (32, 24), (9, 99, 199)).save(file, "PNG")
    data = file.getvalue()
    key = f"inputs/{'there' if there else 'gone'}"
    if there:
        storage.put(key, data, media_type="image/png")
    given = {"key": key, "sha256": hashlib.sha256(data).hexdigest(), "width": 32, "height": 24}
    return {"spec": {"operation": "image_to_image", "image": given}, "operation": "image_to_image"}


def test_a_call_is_drawn_though_all_uploads_of_the_last_one_hang(press: Press) -> None:
    given = image(press.storage)
    press.storage = store = Hanging.beside(press.storage)
    first = [press.submit(f"a{n}") for n in range(4)]
    second_draws = threading.Event()

    def note(shares: Sequence[Share]) -> None:
        if shares[0].spec.prompt.startswith("b"):
            assert all(share.inputs.image is not None for share in shares)
            second_draws.set()

    platen = Platen(rows=4, before=note)
    with press.runner(platen) as runner, ThreadPoolExecutor(2) as slots:
        running = [slots.submit(runner.run, first[0])]
        for _ in range(2):  # both threads that upload
            assert store.waiting.acquire(timeout=PATIENCE)
        second = [press.submit(f"b{n}", key="other", **given) for n in range(4)]
        running.append(slots.submit(runner.run, second[0]))
        drawn = second_draws.wait(PATIENCE)
        store.opened.set()
        assert [future.result() for future in running] == [Kind.COMPLETED, Kind.COMPLETED]

    assert drawn
    assert [len(call) for call in platen.calls] == [4, 4]
    assert press.statuses() == {"completed": 8}
    invariants.assert_all_hold(press.database, press.storage, accepted=[*first, *second])


@dataclass
class Timed(Platen):
    """Notes how a job stands when the device is given back."""

    database: Database | None = None
    after: list[dict[str, str]] = field(default_factory=list)

    @contextmanager
    def turn(self, attempt: Attempt) -> Iterator[None]:
        with super().turn(attempt):
            yield
            assert self.database is not None
            found = rows.query(self.database, "SELECT spec->>'prompt' AS prompt, status FROM jobs")
            self.after.append({row.prompt: row.status for row in found})


def test_a_sibling_that_cannot_be_read_keeps_nobody_waiting_and_ends_alone(press: Press) -> None:
    first = press.submit("first")
    lost = press.submit("lost", **image(press.storage, there=False))
    third = press.submit("third", **image(press.storage))
    platen = Timed(database=press.database)

    with press.runner(platen) as runner:
        assert runner.run(first) is Kind.COMPLETED

    assert platen.calls == [["first", "third"]]
    assert platen.after == [dict.fromkeys(["first", "lost", "third"], "processing")]
    assert [rows.job(press.database, one).status for one in (first, lost, third)] == [
        "completed",
        "failed",
        "completed",
    ]
    assert rows.job(press.database, lost).error_code != "internal_error"
    invariants.assert_all_hold(press.database, press.storage, accepted=[first, lost, third])


def test_a_sibling_that_cannot_be_read_ends_though_the_call_breaks(press: Press) -> None:
    first = press.submit("first")
    lost = press.submit("lost", **image(press.storage, there=False))

    def explode(_shares: Sequence[Share]) -> None:
        raise RuntimeError("no such thing was thought of")

    with press.runner(Platen(before=explode)) as runner:
        assert runner.run(first) is Kind.FAILED

    assert rows.job(press.database, lost).status == "failed"
    assert rows.job(press.database, lost).error_code != "internal_error"


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: device(s) is/are busy"), OSError("libcuda")])
def test_a_provider_that_cannot_be_made_for_any_reason_ends_the_attempt_at_once(
    press: Press, error: Exception
) -> None:
    job_id = press.submit("a")

    def providers(_name: str) -> Provider:
        raise error

    with press.runner(Platen(), providers=providers) as runner:
        assert runner.run(job_id) is Kind.FAILED

    job = rows.job(press.database, job_id)
    assert (job.status, job.error_code, job.lease_owner) == ("failed", "internal_error", None)
    (event,) = rows.query(press.database, "SELECT detail FROM job_events WHERE to_status = 'failed'")
    assert str(error) in event.detail["traceback"]


def test_a_worker_without_slots_sends_the_wake_up_back_and_takes_nothing(press: Press) -> None:
    first, second = (press.submit(prompt, dispatched_at="now()") for prompt in ("first", "second"))
    platen = Platen()

    with press.runner(platen) as runner:
        runner._leases.slots = 0
        assert runner.run(first) is None
        job, other = (rows.job(press.database, one) for one in (first, second))
        assert (job.status, job.attempt, job.dispatched_at) == ("queued", 0, None)  # relay sends it again
        assert (other.status, other.dispatched_at is None) == ("queued", False)
        assert platen.calls == []
        runner._leases.slots = 2
        assert runner.run(first) is Kind.COMPLETED

    assert press.statuses() == {"completed": 2}


def test_jobs_of_the_same_shape_in_another_queue_stay_there(press: Press) -> None:
    first = press.submit("first")
    press.submit("second")
    elsewhere = press.submit("elsewhere", queue="gpu.large")
    platen = Platen()

    with press.runner(platen) as runner:
        runner.run(first)

    assert platen.calls == [["first", "second"]]
    job = rows.job(press.database, elsewhere)
    assert (job.status, job.attempt) == ("queued", 0)


def test_the_file_says_with_what_it_was_drawn_and_not_what_was_asked_for(press: Press, weights: Path) -> None:
    from tests.engine import studio  # noqa: PLC0415 - it needs the extra

    wish = {"width": 64, "height": 64, "num_inference_steps": 30, "guidance_scale": 7.5}
    job_id = press.submit("a", target_model="lightning", key=None, spec=wish)
    with press.runner(studio.engine(weights)) as runner:
        assert runner.run(job_id) is Kind.COMPLETED

    (output,) = rows.query(press.database, "SELECT key FROM outputs")
    told = Image.open(io.BytesIO(press.storage.get(output.key))).info
    assert (told["num_inference_steps"], told["guidance_scale"]) == ("4", "0.0")
    assert (told["engine"], told["model"]) == ("diffusers", "lightning")
    warnings = rows.job(press.database, job_id).warnings
    assert [sentence.split()[0] for sentence in warnings] == ["num_inference_steps", "guidance_scale"]
