"""One job from claim to settled, in this process, on a real database and a real store."""

import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import pytest
from PIL import Image

from app.db import Database, bell
from app.domain.spec import JobSpec, Operation, StoredImage
from app.errors import AttemptEnded, DarkroomError, ProviderDown, ProviderRefused
from app.settings import Settings
from app.storage import Storage
from tests import rows
from tests.conftest import Account
from workers import providers
from workers.leases import Leases
from workers.providers.base import Attempt, Inputs, Picture, Provider
from workers.runner import Kind, Runner


@dataclass
class Scripted:
    """A provider that does what a test says before each picture, and draws one flat colour."""

    before: Callable[[int, Attempt], None] = lambda _index, _attempt: None
    name: str = "scripted"

    def generate(self, spec: JobSpec, inputs: Inputs, attempt: Attempt) -> Iterator[Picture]:
        del inputs
        for index in range(spec.num_images):
            self.before(index, attempt)
            attempt.check()
            image = Image.new("RGB", (spec.width, spec.height), (index, 0, 0))
            yield Picture(image=image, seed=spec.seed_of(index))


@dataclass
class Workshop:
    """A worker process's inside, without Celery."""

    settings: Settings
    database: Database
    storage: Storage
    leases: Leases
    draining: threading.Event

    def runner(self, provider: Provider) -> Runner:
        return Runner(
            self.settings,
            database=self.database,
            storage=self.storage,
            providers=lambda _: provider,
            leases=self.leases,
            doorbell=bell.Doorbell(self.database),
        )


@pytest.fixture
def workshop(settings: Settings, database: Database, storage: Storage) -> Iterator[Workshop]:
    draining = threading.Event()
    leases = Leases(
        settings,
        database,
        queues=["cpu"],
        slots=1,
        is_draining=draining.is_set,
        doorbell=bell.Doorbell(database),
    )
    leases.start()
    yield Workshop(settings, database, storage, leases, draining)
    leases.stop()


def keys_of_job(storage: Storage, job_id: UUID) -> list[str]:
    return [found.key for found in storage.list("outputs/") if str(job_id) in found.key]


def test_a_job_ends_with_its_images_stored_and_listed(workshop: Workshop, account: Account) -> None:
    spec = rows.make_spec(num_images=3)
    job_id = rows.insert_job(workshop.database, account.id, spec=spec)

    assert workshop.runner(providers.load("sketch")).run(job_id) is Kind.COMPLETED

    outputs = rows.query(workshop.database, 'SELECT * FROM outputs ORDER BY "index"')
    assert [(o.index, o.seed, o.attempt) for o in outputs] == [(0, 1, 1), (1, 2, 1), (2, 3, 1)]
    for output in outputs:
        data = workshop.storage.get_verified(output.key, sha256=output.sha256)
        image = Image.open(io.BytesIO(data))
        assert image.size == (32, 24)
        assert image.text["seed"] == str(output.seed)  # type: ignore[attr-defined]  # a PNG's text chunks
        assert "not a model" in " ".join(image.text.values())  # type: ignore[attr-defined]  # as above
    assert rows.reasons(workshop.database, job_id) == ["claimed", "completed"]


def test_a_job_that_is_not_there_for_the_taking_is_nobodys_fault(
    workshop: Workshop, account: Account
) -> None:
    job_id = rows.insert_job(workshop.database, account.id)
    runner = workshop.runner(Scripted())

    assert runner.run(job_id) is Kind.COMPLETED
    assert runner.run(job_id) is None
    assert runner.run(UUID(int=1)) is None


def test_an_inpaint_keeps_every_pixel_outside_its_mask(workshop: Workshop, account: Account) -> None:
    image = Image.effect_noise((40, 30), 60).convert("RGB")
    mask = Image.new("L", (40, 30), 0)
    mask.paste(255, (10, 10, 20, 20))
    stored = {name: put_png(workshop.storage, name, made) for name, made in (("i", image), ("m", mask))}
    spec = rows.make_spec(
        operation=Operation.INPAINT,
        width=40,
        height=30,
        strength=0.9,
        image=stored["i"],
        mask_image=stored["m"],
    )
    job_id = rows.insert_job(workshop.database, account.id, spec=spec)

    assert workshop.runner(providers.load("sketch")).run(job_id) is Kind.COMPLETED

    (output,) = rows.query(workshop.database, "SELECT key FROM outputs")
    drawn = Image.open(io.BytesIO(workshop.storage.get(output.key)))
    outside = Image.composite(Image.new("RGB", mask.size), drawn, mask)
    assert outside.tobytes() == Image.composite(Image.new("RGB", mask.size), image, mask).tobytes()
    assert drawn.tobytes() != image.tobytes()


def put_png(storage: Storage, name: str, image: Image.Image) -> StoredImage:
    import hashlib  # noqa: PLC0415 - used here only

    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    data = buffer.getvalue()
    key = f"inputs/test/{name}.png"
    storage.put(key, data, media_type="image/png")
    return StoredImage(
        key=key, sha256=hashlib.sha256(data).hexdigest(), width=image.width, height=image.height
    )


def test_a_retryable_error_makes_the_job_due_again_and_leaves_no_object(
    workshop: Workshop, account: Account
) -> None:
    def fail_at_the_second(index: int, _attempt: Attempt) -> None:
        if index == 1:
            raise ProviderDown

    job_id = rows.insert_job(workshop.database, account.id, spec=rows.make_spec(num_images=2))

    assert workshop.runner(Scripted(fail_at_the_second)).run(job_id) is Kind.RETRY

    row = rows.job(workshop.database, job_id)
    assert (row.status, row.failures, row.error_code) == ("queued", 1, "provider_unavailable")
    assert keys_of_job(workshop.storage, job_id) == []


def test_a_retryable_error_fails_the_job_once_its_attempts_are_used_up(
    workshop: Workshop, account: Account
) -> None:
    def fail(_index: int, _attempt: Attempt) -> None:
        raise ProviderDown

    job_id = rows.insert_job(workshop.database, account.id, max_attempts=1)

    assert workshop.runner(Scripted(fail)).run(job_id) is Kind.FAILED
    assert rows.job(workshop.database, job_id).error_code == "provider_unavailable"


def test_a_refusal_fails_the_job_at_once(workshop: Workshop, account: Account) -> None:
    def refuse(_index: int, _attempt: Attempt) -> None:
        raise ProviderRefused("too wide for us")

    job_id = rows.insert_job(workshop.database, account.id)

    assert workshop.runner(Scripted(refuse)).run(job_id) is Kind.FAILED

    row = rows.job(workshop.database, job_id)
    assert (row.status, row.error_code, row.error_message) == (
        "failed",
        "provider_refused",
        "too wide for us",
    )


def test_an_unknown_exception_fails_the_job_and_keeps_its_traceback_for_the_admin(
    workshop: Workshop, account: Account
) -> None:
    def break_down(_index: int, _attempt: Attempt) -> None:
        raise ZeroDivisionError

    job_id = rows.insert_job(workshop.database, account.id)

    assert workshop.runner(Scripted(break_down)).run(job_id) is Kind.FAILED

    row = rows.job(workshop.database, job_id)
    assert row.error_code == "internal_error"
    assert "ZeroDivisionError" not in row.error_message
    (event,) = rows.query(workshop.database, "SELECT detail FROM job_events WHERE reason = 'failed'")
    assert "ZeroDivisionError" in event.detail["traceback"]


def test_an_unknown_provider_fails_the_job_and_says_which_there_are(
    workshop: Workshop, account: Account
) -> None:
    job_id = rows.insert_job(workshop.database, account.id, provider="nobody")
    runner = Runner(
        workshop.settings,
        database=workshop.database,
        storage=workshop.storage,
        providers=providers.load,
        leases=workshop.leases,
        doorbell=bell.Doorbell(workshop.database),
    )

    assert runner.run(job_id) is Kind.FAILED
    assert "sketch" in rows.job(workshop.database, job_id).error_message


def test_a_cancel_request_ends_a_running_job_as_cancelled(workshop: Workshop, account: Account) -> None:
    def wait_for_the_end(_index: int, attempt: Attempt) -> None:
        rows.execute(workshop.database, "UPDATE jobs SET cancel_requested_at = now()")
        check_until_it_raises(attempt)

    job_id = rows.insert_job(workshop.database, account.id)

    assert workshop.runner(Scripted(wait_for_the_end)).run(job_id) is Kind.CANCELLED
    assert rows.job(workshop.database, job_id).status == "cancelled"


def check_until_it_raises(attempt: Attempt) -> None:
    """As a provider in the middle of its steps would, at most ten seconds."""
    for _ in range(200):
        attempt.check()
        threading.Event().wait(0.05)


def test_a_job_whose_row_moved_on_is_dropped_with_its_objects(workshop: Workshop, account: Account) -> None:
    def lose_the_row(index: int, _attempt: Attempt) -> None:
        if index == 1:
            rows.execute(workshop.database, "UPDATE jobs SET attempt = 7")

    job_id = rows.insert_job(workshop.database, account.id, spec=rows.make_spec(num_images=2))

    assert workshop.runner(Scripted(lose_the_row)).run(job_id) is Kind.GONE

    assert rows.query(workshop.database, "SELECT 1 AS one FROM outputs") == []
    assert keys_of_job(workshop.storage, job_id) == []


def test_the_heartbeat_ends_an_attempt_whose_row_moved_on(workshop: Workshop, account: Account) -> None:
    seen: list[AttemptEnded] = []

    def lose_the_row(_index: int, attempt: Attempt) -> None:
        rows.execute(workshop.database, "UPDATE jobs SET attempt = 7")
        try:
            check_until_it_raises(attempt)
        except AttemptEnded as error:
            seen.append(error)
            raise

    job_id = rows.insert_job(workshop.database, account.id)

    assert workshop.runner(Scripted(lose_the_row)).run(job_id) is Kind.GONE
    assert [error.code for error in seen] == ["lost"]


def test_a_running_job_keeps_its_lease_and_shows_its_progress(workshop: Workshop, account: Account) -> None:
    leases: list[timedelta] = []

    def take_longer_than_the_lease(_index: int, attempt: Attempt) -> None:
        attempt.progress(0.4)
        threading.Event().wait(workshop.settings.lease.total_seconds() * 1.5)
        (row,) = rows.query(
            workshop.database, "SELECT lease_until - now() AS left, progress FROM jobs WHERE progress > 0"
        )
        leases.append(row.left)

    job_id = rows.insert_job(workshop.database, account.id)

    assert workshop.runner(Scripted(take_longer_than_the_lease)).run(job_id) is Kind.COMPLETED
    assert leases[0] > timedelta(0)


def test_a_draining_worker_claims_nothing_and_hands_the_wake_up_back(
    workshop: Workshop, account: Account
) -> None:
    job_id = rows.insert_job(workshop.database, account.id, dispatched_at="now()")
    workshop.draining.set()

    assert workshop.runner(Scripted()).run(job_id) is None

    row = rows.job(workshop.database, job_id)
    assert (row.status, row.attempt, row.dispatched_at) == ("queued", 0, None)


def test_a_drain_gives_back_what_does_not_finish_in_time_uncharged(
    workshop: Workshop, account: Account
) -> None:
    def outlast_the_grace(_index: int, attempt: Attempt) -> None:
        workshop.draining.set()
        check_until_it_raises(attempt)

    job_id = rows.insert_job(workshop.database, account.id)

    assert workshop.runner(Scripted(outlast_the_grace)).run(job_id) is Kind.GONE

    row = rows.job(workshop.database, job_id)
    assert (row.status, row.failures) == ("queued", 0)
    assert rows.reasons(workshop.database, job_id) == ["claimed", "drained"]


def test_a_corrupt_input_fails_the_job_with_the_fields_name(workshop: Workshop, account: Account) -> None:
    stored = put_png(workshop.storage, "broken", Image.new("RGB", (32, 24)))
    workshop.storage.put(stored.key, b"not the bytes of the row", media_type="image/png")
    spec = rows.make_spec(operation=Operation.IMAGE_TO_IMAGE, image=stored)
    job_id = rows.insert_job(workshop.database, account.id, spec=spec, max_attempts=1)

    assert workshop.runner(Scripted()).run(job_id) is Kind.FAILED
    assert rows.job(workshop.database, job_id).error_code == "object_corrupt"


def test_what_a_provider_raises_of_our_tree_reaches_the_row_unchanged(
    workshop: Workshop, account: Account
) -> None:
    def fail(_index: int, _attempt: Attempt) -> None:
        raise DarkroomError("something rare")

    job_id = rows.insert_job(workshop.database, account.id)

    assert workshop.runner(Scripted(fail)).run(job_id) is Kind.FAILED
    assert rows.job(workshop.database, job_id).error_message == "something rare"
