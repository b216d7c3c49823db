"""What is known of a call whose answer got lost or came late, what it cost, when an account is left alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy.engine import Connection

from app.db import Database, upstreams
from app.domain.calls import CallState
from app.errors import DatabaseDown, Deferred, Draining
from app.settings import Settings
from tests import rows
from tests.upstreams import Upstream, moods, upstream
from tests.upstreams.desk import COST, TIMEOUT, have_claimed, open_desk
from tests.upstreams.plain import Customer
from workers.providers.base import Picture

PRICE = Decimal(COST)


@pytest.fixture
def openai() -> Iterator[Upstream]:
    with upstream("openai") as fake:
        yield fake


@pytest.fixture
def modelslab() -> Iterator[Upstream]:
    with upstream("modelslab") as fake:
        yield fake


# --- an answer that got lost, or came late ------------------------------------------------------------------


def test_a_lost_call_is_looked_for_by_its_own_reference(database: Database, settings: Settings) -> None:
    with upstream("imgprocessing") as fake:
        desk = open_desk(fake, database, settings)
        fake.script(moods.EXPIRED, moods.EXPIRED)
        desk.fails()  # so the next call has another reference
        fake.calm()
        fake.script(moods.RESET)
        desk.fails(2)

        desk.draw(number=3)

        first, second = fake.charged
        assert [call.upstream_id for call in desk.calls()] == [first.id, second.id]


def test_a_call_that_is_not_found_is_not_taken_for_never_made_while_the_vendor_may_be_at_it(
    database: Database, settings: Settings
) -> None:
    with upstream("imgprocessing") as fake:
        desk = open_desk(fake, database, settings)
        fake.script(moods.RESET.charging(False))
        desk.fails()

        error = desk.fails(2)

        assert isinstance(error, Deferred)
        assert error.retry_after is not None
        assert timedelta(0) < error.retry_after <= timedelta(seconds=2 * TIMEOUT)
        assert desk.states() == ["sending"]
        # Only now the vendor is done, and it is found.
        Customer(fake).order(name=desk.calls()[0].reference)
        assert len(desk.draw(number=3)) == 1
        assert (len(fake.charged), desk.states()) == (1, ["completed"])


def test_a_call_that_is_not_found_for_long_was_never_made(database: Database, settings: Settings) -> None:
    with upstream("imgprocessing") as fake:
        desk = open_desk(fake, database, settings)
        fake.script(moods.RESET.charging(False))
        desk.fails()
        desk.let_time_pass()

        assert len(desk.draw(number=2)) == 1
        assert (len(fake.charged), desk.states()) == (1, ["refused", "completed"])


def test_an_answer_that_comes_after_its_call_was_given_up_is_kept_and_goes_before_a_newer_call(
    modelslab: Upstream, database: Database, settings: Settings
) -> None:
    desk = open_desk(modelslab, database, settings)
    about: dict[str, Any] = {"provider": desk.name, "first_index": 0, "images": 1, "reference": "r-0"}
    for number in (1, 2):
        have_claimed(database, desk.job_id, number)
        with database.autocommit() as tx:
            upstreams.begin_call(tx, desk.job_id, attempt=number, **about)
    first, second = (call.id for call in desk.calls())
    with database.autocommit() as tx:
        assert upstreams.end_call(tx, first, CallState.UNKNOWN)
        upstreams.end_call(tx, second, CallState.REFUSED)
        upstreams.accept_call(tx, first, upstream_id="42", cost=PRICE)
        found = upstreams.newest_calls(tx, desk.job_id, provider=desk.name)[0]

        assert (found.id, found.state, found.upstream_id) == (first, CallState.ACCEPTED, "42")
        assert not upstreams.end_call(tx, first, CallState.UNKNOWN)
    assert desk.calls()[0].ended_at is None
    assert desk.job().cost == PRICE


def test_pictures_that_come_after_their_call_was_given_up_are_counted(
    openai: Upstream, database: Database, settings: Settings
) -> None:
    desk = open_desk(openai, database, settings)
    other = list[Picture]()

    def check() -> None:
        if openai.charged and not other:
            other.extend(desk.draw(number=2))  # another attempt, while the first has its answer in hand

    desk.draw(check=check)

    assert desk.states() == ["completed", "completed"]
    assert desk.job().cost == PRICE * len(openai.charged)


class Hiccups(Database):
    """Is away so many times from a moment on."""

    def __init__(self, settings: Settings, *, times: int, since: Callable[[], bool]) -> None:
        super().__init__(settings.database_url.get_secret_value(), pool_size=2)
        self.left = times
        self._since = since

    @contextmanager
    def autocommit(self) -> Iterator[Connection]:
        """See `Database`."""
        if self.left and self._since():
            self.left -= 1
            raise DatabaseDown
        with super().autocommit() as connection:
            yield connection


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("vendor", ["modelslab", "openai"])
def test_what_a_vendor_answered_outlives_a_moment_without_postgres(settings: Settings, vendor: str) -> None:
    with upstream(vendor) as fake:
        away = Hiccups(settings, times=2, since=lambda: bool(fake.charged))
        desk = open_desk(fake, away, settings, ambiguous="fail")

        assert len(desk.draw()) == 1

        assert (away.left, desk.states(), desk.job().cost) == (0, ["completed"], PRICE)
        away.close()


# --- a job that takes longer than an attempt may ------------------------------------------------------------


def test_a_job_whose_calls_take_longer_than_an_attempt_may_goes_on_in_another(
    modelslab: Upstream, database: Database, settings: Settings
) -> None:
    desk = open_desk(modelslab, database, settings)
    modelslab.script(moods.SLOW.lasting(0.01), moods.STUCK)
    have_claimed(database, desk.job_id, 1)
    rows.execute(database, "UPDATE jobs SET deadline_at = now() + interval '1 second'")

    with pytest.raises(Deferred):
        desk.draw(desk.spec(num_images=2))

    assert desk.states() == ["completed", "accepted"]
    modelslab.finish_all()
    assert len(desk.draw(desk.spec(num_images=2), number=2)) == 2
    assert len(modelslab.charged) == 2


def test_an_attempt_that_bought_nothing_is_not_put_off_for_ever(
    modelslab: Upstream, database: Database, settings: Settings
) -> None:
    desk = open_desk(modelslab, database, settings)
    modelslab.script(moods.STUCK)
    have_claimed(database, desk.job_id, 1)
    rows.execute(database, "UPDATE jobs SET deadline_at = now() + interval '1 second'")
    assert isinstance(desk.fails(), Deferred)

    assert desk.fails(2).code == "provider_unavailable"
    assert len(modelslab.charged) == 1


# --- what it cost is known ----------------------------------------------------------------------------------


def test_a_picture_that_is_gone_was_paid_for_all_the_same(
    openai: Upstream, database: Database, settings: Settings
) -> None:
    desk = open_desk(openai, database, settings)
    openai.script(moods.EXPIRED)
    desk.fails()

    assert [(call.state, str(call.cost)) for call in desk.calls()] == [("failed", COST)]
    assert desk.job().cost == PRICE


def test_a_picture_that_came_when_the_attempt_had_to_end_is_counted(
    openai: Upstream, database: Database, settings: Settings
) -> None:
    desk = open_desk(openai, database, settings)

    def check() -> None:
        if openai.charged:
            raise Draining

    with pytest.raises(Draining):
        desk.draw(check=check)

    assert [(call.state, str(call.cost)) for call in desk.calls()] == [("completed", COST)]
    assert desk.job().cost == PRICE


# --- when an account is left alone --------------------------------------------------------------------------


def test_an_outage_that_says_how_long_it_lasts_pauses_the_account(
    openai: Upstream, database: Database, settings: Settings
) -> None:
    desk = open_desk(openai, database, settings)
    openai.script(moods.UNAVAILABLE.lasting(120))

    assert desk.fails().retry_after == timedelta(seconds=120)
    assert 100 < desk.state().paused_for <= 120


def test_a_probe_that_is_refused_for_its_content_closes_the_breaker(
    openai: Upstream, database: Database, settings: Settings
) -> None:
    desk = open_desk(openai, database, settings)
    rows.execute(database, "UPDATE provider_state SET failures = 5, openings = 1, opened_until = now()")
    openai.script(moods.CONTENT_REFUSED)

    assert desk.fails().code == "content_refused"
    assert (desk.state().opened_until, desk.state().failures) == (None, 0)


def test_a_job_that_was_released_before_the_breaker_opened_buys_nothing(
    openai: Upstream, database: Database, settings: Settings
) -> None:
    desk = open_desk(openai, database, settings)
    with database.autocommit() as tx:
        upstreams.failed(tx, desk.name, reason="down", at_once=True)

    assert isinstance(desk.fails(), Deferred)
    assert not openai.calls
