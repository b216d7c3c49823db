"""Jobs that are drawn together: who is taken into a call, and that each ends as if it were alone."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from app.db import Database, bell, jobs
from app.errors import DarkroomError, ProviderDown
from app.settings import Settings
from app.storage import Storage
from tests import invariants, rows
from tests.conftest import Account
from tests.platen import Platen
from tests.waiting import eventually
from workers.leases import Leases
from workers.outcomes import Kind
from workers.providers.base import BatchProvider, Provider, Share
from workers.runner import Runner

LEASE = timedelta(seconds=30)


@dataclass
class Press:
    """A GPU worker's inside, without Celery and without a GPU."""

    settings: Settings
    database: Database
    storage: Storage
    account: Account

    def submit(
        self, prompt: str, *, account: Account | None = None, key: str | None = "shape", **columns: Any
    ) -> UUID:
        spec = rows.make_spec(prompt=prompt, num_images=columns.pop("images", 1), **columns.pop("spec", {}))
        placed = {"provider": "platen", "queue": "gpu.test", "batch_key": key, "target_model": "m", **columns}
        job_id = rows.insert_job(self.database, (account or self.account).id, spec=spec, **placed)
        rows.execute(
            self.database,
            "INSERT INTO job_events (job_id, to_status, attempt, reason) "
            "VALUES (%(id)s, 'queued', 0, 'submitted')",
            id=job_id,
        )
        return job_id

    @contextmanager
    def runner(
        self, provider: BatchProvider, *, providers: Callable[[str], Provider] | None = None
    ) -> Iterator[Runner]:
        doorbell = bell.Doorbell(self.database)
        leases = Leases(
            self.settings,
            self.database,
            queues=["gpu.test"],
            slots=2,
            is_draining=lambda: False,
            doorbell=doorbell,
            warm_models=provider.warm_models,
        )
        leases.start()
        made = Runner(
            self.settings,
            database=self.database,
            storage=self.storage,
            providers=providers or (lambda _: provider),
            leases=leases,
            doorbell=doorbell,
        )
        yield made
        made.close()
        leases.stop()

    def statuses(self) -> Counter[str]:
        return Counter(row.status for row in rows.query(self.database, "SELECT status FROM jobs"))


@pytest.fixture
def press(settings: Settings, database: Database, storage: Storage, account: Account) -> Press:
    return Press(settings.model_copy(update={"lease": LEASE}), database, storage, account)


def test_the_fake_keeps_the_promise_of_a_provider_that_draws_together() -> None:
    assert isinstance(Platen(), BatchProvider)


def test_forty_jobs_of_one_shape_are_drawn_in_few_calls_each_exactly_once(press: Press) -> None:
    ids = [press.submit(f"p{n}") for n in range(40)]
    platen = Platen()

    with press.runner(platen) as runner, ThreadPoolExecutor(3) as slots:
        kinds = list(slots.map(runner.run, ids))

    assert press.statuses() == {"completed": 40}
    drawn = [prompt for call in platen.calls for prompt in call]
    assert sorted(drawn) == sorted(f"p{n}" for n in range(40))
    assert len(platen.calls) <= 8
    assert max(map(len, platen.calls)) == 8
    # The wake-ups of those that others took along find nothing to do.
    assert Counter(kinds)[None] == 40 - len(platen.calls)
    invariants.assert_all_hold(press.database, press.storage, accepted=ids)


def test_two_gpus_share_a_queue_without_drawing_anything_twice(press: Press) -> None:
    ids = [press.submit(f"p{n}") for n in range(30)]
    left, right = Platen(rows=4), Platen(rows=4)

    with (
        press.runner(left) as one,
        press.runner(right) as other,
        ThreadPoolExecutor(2) as here,
        ThreadPoolExecutor(2) as there,
    ):
        futures = [pool.submit(gpu.run, job) for job in ids for pool, gpu in ((here, one), (there, other))]
        for future in futures:
            future.result()

    drawn = Counter(prompt for call in left.calls + right.calls for prompt in call)
    assert drawn == {f"p{n}": 1 for n in range(30)}
    assert press.statuses() == {"completed": 30}


def test_other_shapes_other_times_and_cancelled_jobs_stay_where_they_are(press: Press) -> None:
    first = press.submit("first")
    press.submit("other shape", key="other")
    press.submit("no key", key=None)
    press.submit("later", run_at="now() + interval '1 hour'")
    press.submit("cancelled", cancel_requested_at="now()")
    press.submit("second")
    platen = Platen()

    with press.runner(platen) as runner:
        runner.run(first)

    assert platen.calls == [["first", "second"]]
    assert press.statuses() == {"completed": 2, "queued": 4}


def test_a_call_takes_as_many_images_as_it_has_room_for_whoever_they_belong_to(press: Press) -> None:
    first = press.submit("two", images=2)
    press.submit("three", images=3)
    press.submit("four", images=4)
    press.submit("one")
    platen = Platen(rows=6)

    with press.runner(platen) as runner:
        runner.run(first)

    assert sum({"two": 2, "three": 3, "four": 4, "one": 1}[prompt] for prompt in platen.calls[0]) <= 6
    assert platen.calls[0][:2] == ["two", "three"]


def test_a_job_larger_than_a_call_goes_alone(press: Press) -> None:
    first = press.submit("large", images=5)
    press.submit("small")
    platen = Platen(rows=4)

    with press.runner(platen) as runner:
        runner.run(first)

    assert platen.calls == [["large"]]


def test_an_account_with_many_jobs_leaves_room_for_one_with_few(press: Press, stranger: Account) -> None:
    first = press.submit("mine 0")
    for n in range(1, 20):
        press.submit(f"mine {n}")
    for n in range(3):
        press.submit(f"theirs {n}", account=stranger)
    platen = Platen(rows=6)

    with press.runner(platen) as runner:
        runner.run(first)

    assert sum(prompt.startswith("theirs") for prompt in platen.calls[0]) == 3


def test_within_an_account_priority_goes_before_age(press: Press) -> None:
    first = press.submit("first")
    for n in range(4):
        press.submit(f"old {n}")
    press.submit("urgent", priority=5)
    platen = Platen(rows=2)

    with press.runner(platen) as runner:
        runner.run(first)

    assert platen.calls == [["first", "urgent"]]


def test_one_share_that_is_cancelled_does_not_end_the_others(press: Press) -> None:
    first, second = press.submit("first"), press.submit("second")

    def cancel(_shares: Sequence[Share]) -> None:
        with press.database.autocommit() as tx:
            jobs.cancel(tx, second, account_id=press.account.id)
        rows.execute(press.database, f"NOTIFY {bell.CANCELS}")
        eventually(lambda: _has_ended(_shares[1]), within=10)

    with press.runner(Platen(before=cancel)) as runner:
        assert runner.run(first) is Kind.COMPLETED

    assert press.statuses() == {"completed": 1, "cancelled": 1}
    invariants.assert_all_hold(press.database, press.storage, accepted=[first, second])


def _has_ended(share: Share) -> bool:
    try:
        share.attempt.check()
    except DarkroomError:
        return True
    return False


def test_when_a_call_fails_for_a_known_reason_all_of_it_is_tried_again(press: Press) -> None:
    ids = [press.submit("a"), press.submit("b")]
    down = iter([ProviderDown("The device is away.")])

    def fail(_shares: Sequence[Share]) -> None:
        for error in down:
            raise error

    with press.runner(Platen(before=fail)) as runner:
        assert runner.run(ids[0]) is Kind.RETRY
        assert press.statuses() == {"queued": 2}
        rows.execute(press.database, "UPDATE jobs SET run_at = now()")
        runner.run(ids[0])

    assert press.statuses() == {"completed": 2}


def test_an_error_that_nobody_foresaw_fails_only_the_job_that_brings_it_about(press: Press) -> None:
    ids = [press.submit(prompt) for prompt in ("a", "poison", "c")]

    def explode(shares: Sequence[Share]) -> None:
        if any(share.spec.prompt == "poison" for share in shares):
            raise RuntimeError("no such thing was thought of")

    with press.runner(Platen(before=explode)) as runner:
        assert runner.run(ids[0]) is Kind.RETRY
        rows.execute(press.database, "UPDATE jobs SET run_at = now()")
        kinds = [runner.run(job) for job in ids]

    assert kinds == [Kind.COMPLETED, Kind.FAILED, Kind.COMPLETED]
    assert rows.job(press.database, ids[1]).error_code == "internal_error"
    assert rows.job(press.database, ids[0]).failures == 1


def test_a_sibling_whose_input_is_gone_ends_alone(press: Press) -> None:
    first = press.submit("first")
    lost = {"key": "inputs/gone", "sha256": "0" * 64, "width": 32, "height": 24}
    press.submit("lost", spec={"operation": "image_to_image", "image": lost}, operation="image_to_image")
    press.submit("third")
    platen = Platen()

    with press.runner(platen) as runner:
        assert runner.run(first) is Kind.COMPLETED

    assert platen.calls == [["first", "third"]]
    assert press.statuses() == {"completed": 2, "failed": 1}


def test_while_one_call_is_uploaded_the_next_is_drawn(press: Press) -> None:
    """The first call's job is held up at its upload, by a checker that waits for the second to be drawn."""
    second_is_drawn = threading.Event()

    class Slow(Storage):
        def put(self, key: str, data: bytes, *, media_type: str) -> None:
            assert second_is_drawn.wait(10)
            super().put(key, data, media_type=media_type)

    one, other = press.submit("one", key="x"), press.submit("other", key="y")

    def note(shares: Sequence[Share]) -> None:
        if shares[0].spec.prompt == "other":
            second_is_drawn.set()

    slow = Slow.__new__(Slow)
    slow.__dict__.update(press.storage.__dict__)
    press.storage = slow
    with press.runner(Platen(before=note)) as runner, ThreadPoolExecutor(2) as slots:
        kinds = [slots.submit(runner.run, job) for job in (one, other)]
        assert [kind.result() for kind in kinds] == [Kind.COMPLETED, Kind.COMPLETED]


def test_a_worker_that_dies_takes_its_siblings_along_twice_at_most(press: Press) -> None:
    poison = press.submit("poison")
    for crash in (1, 2, 3):
        rows.execute(
            press.database,
            "UPDATE jobs SET status = 'processing', lease_owner = 'w', lease_until = now() - interval '1 s', "
            "deadline_at = now() + interval '1 h', attempt = attempt + 1 WHERE id = %(id)s",
            id=poison,
        )
        with press.database.autocommit() as tx:
            jobs.rescue(tx)
        job = rows.job(press.database, poison)
        assert (job.batch_key is None) == (crash >= 2), crash


def test_a_worker_takes_a_job_of_a_model_in_memory_before_one_it_would_have_to_load(press: Press) -> None:
    cold = press.submit("cold", key="c", target_model="cold", dispatched_at="now()")
    warm = press.submit("warm", key="w", target_model="warm", dispatched_at="now()")
    platen = Platen(loaded=["warm"])

    with press.runner(platen) as runner:
        runner.run(cold)
        assert platen.calls == [["warm"]]
        assert rows.job(press.database, cold).dispatched_at is None  # relay sends for it again
        assert rows.job(press.database, warm).status == "completed"
        runner.run(cold)

    assert platen.calls == [["warm"], ["cold"]]


def test_a_job_that_has_waited_long_enough_is_not_passed_over(press: Press) -> None:
    cold = press.submit(
        "cold", key="c", target_model="cold", dispatched_at="now()", run_at="now() - interval '11 s'"
    )
    press.submit("warm", key="w", target_model="warm", dispatched_at="now()")
    platen = Platen(loaded=["warm"])

    with press.runner(platen) as runner:
        runner.run(cold)

    assert platen.calls == [["cold"]]


def test_what_a_provider_warns_of_is_kept_with_the_job_once(press: Press) -> None:
    job_id = press.submit("a")

    def warn(shares: Sequence[Share]) -> None:
        for _ in range(2):
            shares[0].attempt.warn("guidance_scale has no effect")
        shares[0].attempt.note("batch", len(shares))

    with press.runner(Platen(before=warn)) as runner:
        runner.run(job_id)

    assert rows.job(press.database, job_id).warnings == ["guidance_scale has no effect"]
    (event,) = rows.query(press.database, "SELECT detail FROM job_events WHERE reason = 'completed'")
    assert event.detail["batch"] == 1
    assert event.detail["seconds"].keys() == {"read", "wait", "generate", "finish"}
