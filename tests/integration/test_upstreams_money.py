"""How often a job is paid for at the most, and who may pay for it: on a fake vendor.

Which errors a vendor's moods bring about is in tests/contracts/test_upstream_moods.py; here attempts go on
for longer than its three, and make more than one call.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

import pytest

from app.db import Database
from app.errors import (
    AttemptEnded,
    CancelRequested,
    Lost,
    ProviderBusy,
    ProviderError,
    UpstreamAmbiguous,
)
from app.settings import Settings
from tests import rows
from tests.upstreams import Mood, Upstream, moods, upstream
from tests.upstreams.desk import COST, Desk, open_desk
from workers.providers.base import Inputs

PRICE = Decimal(COST)
ONE_PER_CALL = {"honours": ["seed"], "images_per_call": 1}
MANY = 30
"""Attempts: more than any job may pay for."""


@pytest.fixture
def openai() -> Iterator[Upstream]:
    with upstream("openai") as fake:
        yield fake


@pytest.fixture
def modelslab() -> Iterator[Upstream]:
    with upstream("modelslab") as fake:
        yield fake


def failures(desk: Desk) -> list[ProviderError]:
    """Attempt after attempt, each after the time that it was told to wait, until one is not worth another."""
    found: list[ProviderError] = []
    while len(found) < MANY and (not found or found[-1].retryable):
        found.append(desk.fails(len(found) + 1))
        desk.let_time_pass()
    return found


# --- how often is paid at the most --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vendor", "mood"),
    [
        ("openai", moods.ABSURDLY_WRONG_SIZE),
        ("openai", moods.TOO_FEW_PICTURES),
        ("openai", moods.GATEWAY_TIMEOUT),
        ("modelslab", moods.FAILED),
    ],
    ids=str,
)
def test_a_vendor_that_bills_and_brings_nothing_is_paid_at_most_as_often_as_the_job_has_attempts(
    database: Database, settings: Settings, vendor: str, mood: Mood
) -> None:
    with upstream(vendor) as fake:
        desk = open_desk(fake, database, settings)
        fake.always(mood)

        errors = failures(desk)

        # The breaker is open by then, so that the attempts themselves are free for the job.
        assert not all(error.charged for error in errors[:-1])
        assert len(fake.charged) == desk.max_attempts
        assert (errors[-1].code, errors[-1].retryable) == ("provider_failed", False)
        assert "5 paid calls" in errors[-1].message


def test_pictures_that_cannot_be_kept_are_not_bought_for_ever(
    openai: Upstream, database: Database, settings: Settings
) -> None:
    desk = open_desk(openai, database, settings)
    for number in range(1, desk.max_attempts + 1):
        desk.draw(number=number)  # and the store was away, which no attempt is charged for

    assert not desk.fails(desk.max_attempts + 1).retryable
    assert len(openai.charged) == desk.max_attempts
    assert desk.job().cost == PRICE * desk.max_attempts


def test_each_position_of_a_job_is_counted_on_its_own(
    openai: Upstream, database: Database, settings: Settings
) -> None:
    desk = open_desk(openai, database, settings, capability=ONE_PER_CALL)
    desk.max_attempts = 1

    assert len(desk.draw(desk.spec(num_images=3))) == 3
    assert len(openai.charged) == 3


def test_a_call_that_an_idempotent_account_takes_for_the_same_is_no_other_purchase(
    openai: Upstream, database: Database, settings: Settings
) -> None:
    openai.honours_idempotency = True
    desk = open_desk(openai, database, settings, idempotent=True, ambiguous="fail")
    openai.script(moods.RESET)
    desk.fails()

    for number in range(2, desk.max_attempts + 3):
        assert len(desk.draw(number=number)) == 1

    assert len(openai.charged) == 1
    assert desk.job().cost == PRICE


def test_a_call_that_was_refused_is_no_purchase(
    openai: Upstream, database: Database, settings: Settings
) -> None:
    desk = open_desk(openai, database, settings)
    for number in range(1, desk.max_attempts + 2):
        openai.script(moods.RETRY_AFTER_SECONDS)
        assert isinstance(desk.fails(number), ProviderBusy)
        desk.let_time_pass()

    assert len(desk.draw(number=desk.max_attempts + 2)) == 1


# --- an account that never pays twice -----------------------------------------------------------------------


@pytest.mark.parametrize("vendor", ["modelslab", "realm", "openai"])
def test_who_never_pays_twice_is_told_so_again_when_the_end_of_the_job_was_lost(
    database: Database, settings: Settings, vendor: str
) -> None:
    with upstream(vendor) as fake:
        desk = open_desk(fake, database, settings, ambiguous="fail")
        fake.script(moods.RESET)
        desk.fails()

        for number in (2, 3, 4):
            assert isinstance(desk.fails(number), UpstreamAmbiguous)

        assert (len(fake.charged), desk.states()) == (1, ["unknown"])


def test_who_never_pays_twice_does_not_for_pictures_that_came_either(
    openai: Upstream, database: Database, settings: Settings
) -> None:
    desk = open_desk(openai, database, settings, ambiguous="fail")
    desk.draw()

    assert isinstance(desk.fails(2), UpstreamAmbiguous)
    assert len(openai.charged) == 1


def test_who_never_pays_twice_does_not_for_pictures_of_no_use_either(
    openai: Upstream, database: Database, settings: Settings
) -> None:
    desk = open_desk(openai, database, settings, ambiguous="fail")
    openai.script(moods.TRUNCATED_IMAGE)
    desk.fails()

    assert isinstance(desk.fails(2), UpstreamAmbiguous)
    assert len(openai.charged) == 1


# --- between two calls of one job ---------------------------------------------------------------------------


def test_a_job_with_paid_pictures_in_hand_waits_for_its_next_turn_where_it_is(
    openai: Upstream, database: Database, settings: Settings
) -> None:
    desk = open_desk(openai, database, settings, calls_per_minute=2, capability=ONE_PER_CALL)

    def check() -> None:
        if desk.states() == ["completed"]:
            desk.let_time_pass()  # it waits; else its turn would come in half a minute

    assert len(desk.draw(desk.spec(num_images=2), check=check)) == 2
    assert len(openai.charged) == 2


def test_a_job_with_paid_pictures_in_hand_waits_where_it_is_while_the_vendor_is_busy(
    openai: Upstream, database: Database, settings: Settings
) -> None:
    desk = open_desk(openai, database, settings, capability=ONE_PER_CALL)
    openai.script(moods.SLOW.lasting(0.01), moods.RETRY_AFTER_SECONDS, moods.RETRY_AFTER_ABSENT)

    assert len(desk.draw(desk.spec(num_images=2))) == 2
    assert len(openai.charged) == 2
    assert desk.states() == ["completed", "refused", "refused", "completed"]


def test_a_job_that_waits_with_pictures_in_hand_hears_that_it_is_cancelled(
    openai: Upstream, database: Database, settings: Settings
) -> None:
    desk = open_desk(openai, database, settings, calls_per_minute=2, capability=ONE_PER_CALL)

    def check() -> None:
        if "completed" in desk.states():
            raise CancelRequested

    with pytest.raises(CancelRequested):
        desk.draw(desk.spec(num_images=2), check=check)
    assert len(openai.charged) == 1


# --- who may buy for a job ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meanwhile", "end"),
    [
        ("attempt = 2", Lost),
        ("cancel_requested_at = now()", CancelRequested),
        ("status = 'queued', lease_owner = NULL, lease_until = NULL, deadline_at = NULL", Lost),
    ],
)
def test_a_worker_whose_job_moved_on_unheard_buys_nothing_for_it(
    modelslab: Upstream, database: Database, settings: Settings, meanwhile: str, end: type[AttemptEnded]
) -> None:
    desk = open_desk(modelslab, database, settings)
    attempt = desk.attempt()
    rows.execute(database, f"UPDATE jobs SET {meanwhile} WHERE id = %(id)s", id=desk.job_id)

    with pytest.raises(end):
        list(desk.provider.generate(desk.spec(), Inputs(), attempt))

    assert not modelslab.calls
    assert desk.calls() == []


@pytest.mark.parametrize(("vendor", "state"), [("modelslab", "accepted"), ("openai", "completed")])
def test_a_drain_is_put_off_until_it_is_known_what_came_of_a_call(
    database: Database, settings: Settings, vendor: str, state: str
) -> None:
    with upstream(vendor) as fake:
        desk = open_desk(fake, database, settings)
        known: list[tuple[int, list[str]]] = []

        @contextmanager
        def paying() -> Iterator[None]:
            known.append((len(fake.charged), desk.states()))
            yield
            known.append((len(fake.charged), desk.states()))

        desk.draw(paying=paying)

        assert known == [(0, []), (1, [state])]
