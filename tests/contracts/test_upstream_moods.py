"""Every adapter meets every mood of its vendor's fake, and makes of it what `tests.upstreams.verdicts` says.

Each case is one image, ordered through the real provider on a real database, attempt after attempt as a
runner makes them. Most of their time is waiting, so all that a run asks for are met together.
"""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import cast

import pytest

from app.db import Database, connect
from app.db.tables import metadata
from app.errors import ProviderError
from app.settings import Settings
from tests import rows, upstreams
from tests.upstreams import Kind, Mood, moods
from tests.upstreams.desk import COST, LONGEST_WAIT, SIZES, TIMEOUT, Desk, open_desk
from tests.upstreams.verdicts import ATTEMPTS, Verdict, verdict
from workers.providers.base import Picture

_TOGETHER = 10
_MARGIN = 2.0
"""Seconds beyond its own limits that an attempt may take, on a machine that has other things to do."""
_OURS = frozenset({"content_refused", "provider_refused"})
"""Codes of errors that are no fault of the provider's, so that its breaker does not count them."""


@dataclass(kw_only=True)
class Met:
    """What came of a case."""

    errors: list[ProviderError] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """Of each attempt."""
    paused: list[float] = field(default_factory=list)
    """Seconds for which the account was paused after each failed attempt."""
    failures: list[int] = field(default_factory=list)
    """Failures in a row that the breaker had counted then."""
    opened: list[bool] = field(default_factory=list)
    paid: int = 0
    cost: Decimal | None = None
    """Of the job, as its row says."""
    trespasses: int = 0
    calls: list[rows.Look] = field(default_factory=list)
    key: str = ""
    well: bool = False
    """Whether the breaker was closed in the end, with no failure counted."""

    @property
    def codes(self) -> tuple[str, ...]:
        return tuple(error.code for error in self.errors)


def meet(vendor: str, mood: Mood, *, name: str, database: Database, settings: Settings) -> Met:
    """Order one image of a vendor in this mood, as often as it is worth it and at most `ATTEMPTS` times."""
    met = Met()
    with upstreams.upstream(vendor) as fake:
        desk = open_desk(fake, database, settings, name=name)
        if vendor == "imgprocessing" and mood.kind is Kind.POLL:
            fake.script(moods.RESET)  # it is only asked for what was lost
        fake.script(_as_met(mood))
        for number in range(1, ATTEMPTS + 1):
            if not try_once(desk, met, number):
                break
            fake.up()
        met.paid, met.trespasses, met.key = len(fake.charged), len(fake.trespasses), fake.key
        met.calls, met.cost = desk.calls(), desk.job().cost
        met.well = (desk.state().failures, desk.state().opened_until) == (0, None)
    return met


def _as_met(mood: Mood) -> Mood:
    """Give the mood in the size of `TIMEOUT` and `LONGEST_WAIT`."""
    match mood.name:
        case "slow":
            return mood.lasting(TIMEOUT / 4)
        case "pending":
            return mood.for_polls(1)
    return mood


def try_once(desk: Desk, met: Met, number: int) -> bool:
    """Make an attempt; whether another one is worth it."""
    started = time.monotonic()
    try:
        met.pictures = desk.draw(number=number)
    except ProviderError as error:
        met.errors.append(error)
    met.seconds.append(time.monotonic() - started)
    if met.pictures:
        return False
    state = desk.state()
    met.paused.append(state.paused_for)
    met.failures.append(state.failures)
    met.opened.append(state.opened_until is not None)
    desk.let_time_pass()
    return met.errors[-1].retryable


@pytest.fixture(scope="module")
def empty_database(base_settings: Settings) -> Iterator[Database]:
    opened = connect(base_settings, pool_size=_TOGETHER, application_name="darkroom tests")
    with opened.transaction() as tx:
        names = ", ".join(table.name for table in metadata.sorted_tables)
        tx.exec_driver_sql(f"TRUNCATE {names} RESTART IDENTITY CASCADE")
    yield opened
    opened.close()


Case = tuple[str, Mood]
CASES = upstreams.cases()


@pytest.fixture(scope="module")
def all_met(
    request: pytest.FixtureRequest, empty_database: Database, base_settings: Settings
) -> dict[Case, Future[Met]]:
    """Every case that this run has a test of, met; what broke in one is for its test to raise."""
    asked = [
        cast("Case", item.callspec.params["case"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.path == request.path
    ]
    meeting = partial(meet, database=empty_database, settings=base_settings)
    with ThreadPoolExecutor(_TOGETHER) as pool:
        return {
            case: pool.submit(meeting, *case, name=f"vendor-{number}") for number, case in enumerate(asked)
        }


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_whatever_a_vendor_does_the_promise_holds(case: Case, all_met: dict[Case, Future[Met]]) -> None:
    met, expected = all_met[case].result(), verdict(*case)
    story = f"{met.codes}, paid {met.paid}, {[call.state for call in met.calls]}"
    assert met.codes == expected.errors, [error.message for error in met.errors]
    assert met.paid == expected.paid <= len(met.seconds), story
    assert tuple(call.state for call in met.calls) == expected.states, story
    assert not met.trespasses
    shows_what_was_asked_for(case, met)
    says_no_secret(met)
    is_written_down(case, met)
    is_counted(case, met)
    blames_only_the_provider(met)
    waits_as_asked(met, expected)
    assert max(met.seconds) < LONGEST_WAIT + TIMEOUT + _MARGIN, met.seconds


def shows_what_was_asked_for(case: Case, met: Met) -> None:
    for picture in met.pictures:
        assert (picture.image.mode, picture.image.size) == ("RGB", SIZES[case[0]])
    assert len(met.pictures) == (len(met.errors) < len(met.seconds))


def says_no_secret(met: Met) -> None:
    for error in met.errors:
        assert met.key not in f"{error!r} {error.public_message} {error.__cause__!r} {error.__context__!r}"
    for call in met.calls:
        assert met.key not in repr(call)


def is_written_down(case: Case, met: Met) -> None:
    """Each call has one word of ours, an end when it is over, and a cost exactly when it is known."""
    assert len({call.reference.split("-")[0] for call in met.calls}) == 1
    for call in met.calls:
        assert (call.ended_at is not None) == (call.state not in {"sending", "accepted"})
        # One without ids is paid for what it delivered, of whatever use that is.
        delivered = {"completed", "failed"} if case[0] == "openai" else {"completed"}
        is_known = call.upstream_id is not None or call.state in delivered
        assert call.cost == (Decimal(COST) if is_known else None)


def is_counted(case: Case, met: Met) -> None:
    """The job costs what the vendor bills, but for calls of which nobody could learn what became of them."""
    costs = [call.cost for call in met.calls if call.cost is not None]
    assert met.cost == (sum(costs) if costs else None)
    # IMG Processing's list has no image of a call that it billed and made none for.
    dark = "refused" if case[0] == "imgprocessing" else "unknown"
    assert 0 <= met.paid - len(costs) <= sum(call.state == dark for call in met.calls)


def blames_only_the_provider(met: Met) -> None:
    """The breaker counts what the provider did wrong, opens at once for a bad key, closes with a success."""
    for error, failures, opened in zip(met.errors, met.failures, met.opened, strict=True):
        assert (failures == 0) == (error.code in _OURS)
        assert opened == (error.code == "provider_denied")
        assert error.charged == (error.code not in {"provider_busy", "provider_denied"})
    if met.pictures:
        assert met.well


def waits_as_asked(met: Met, expected: Verdict) -> None:
    """Retry-After, in whatever form, is what the error says and what the account is paused for."""
    if not met.errors:
        return
    told, paused = met.errors[0].retry_after, met.paused[0]
    if expected.pause is None:
        assert told is None
        assert paused == 0
        return
    least, most = expected.pause
    assert told is not None
    assert least <= told.total_seconds() <= most
    assert 0 < paused <= told.total_seconds()
