"""The rules of webhooks, as truth tables."""

from datetime import UTC, datetime, timedelta

import pytest

from app.domain.webhook import (
    SCHEDULE,
    Breaker,
    Event,
    Verdict,
    after_try,
    has_recovered,
    in_order,
    judge,
    next_try,
    opening,
    parse_retry_after,
)

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
NOW = datetime(2026, 11, 21, 10, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("tries", "since_the_first"),
    [
        (1, 5 * SECOND),
        (2, 30 * SECOND),
        (3, 2 * MINUTE),
        (4, 5 * MINUTE),
        (5, 15 * MINUTE),
        (6, 30 * MINUTE),
        (7, HOUR),
        (8, 2 * HOUR),
        (9, 5 * HOUR),
        (10, 10 * HOUR),
        (11, 14 * HOUR),
        (12, 20 * HOUR),
        (13, 24 * HOUR),
    ],
)
def test_a_delivery_is_tried_again_by_the_schedule(tries: int, since_the_first: timedelta) -> None:
    waits = [next_try(number, chance=0.0) or timedelta(0) for number in range(1, tries + 1)]

    assert sum(waits, timedelta(0)) == since_the_first


@pytest.mark.parametrize("tries", [14, 15, 1000])
def test_after_a_day_of_tries_it_is_given_up(tries: int) -> None:
    assert next_try(tries, chance=0.5) is None
    assert next_try(tries, chance=0.5, retry_after=SECOND) is None


def test_the_schedule_ascends_and_has_a_try_for_each_of_its_times() -> None:
    assert list(SCHEDULE) == sorted(set(SCHEDULE))
    assert sum(next_try(tries, chance=0.0) is not None for tries in range(1, 99)) == len(SCHEDULE) - 1


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 5.0), (0.5, 5.25), (0.999, 5.4995)])
def test_a_wait_is_stretched_by_up_to_a_tenth(chance: float, seconds: float) -> None:
    wait = next_try(1, chance=chance)

    assert wait is not None
    assert wait.total_seconds() == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("tries", "asked", "waited"),
    [(1, SECOND, 5 * SECOND), (1, MINUTE, MINUTE), (9, MINUTE, 3 * HOUR), (9, 20 * HOUR, 20 * HOUR)],
)
def test_the_later_of_schedule_and_retry_after_counts(
    tries: int, asked: timedelta, waited: timedelta
) -> None:
    assert next_try(tries, chance=0.0, retry_after=asked) == waited


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("0", 1),
        ("00000000000000000005", 5),
        ("86400", 86_400),
        ("86401", 86_400),
        ("9" * 5000, 86_400),
        ("Sat, 21 Nov 2026 10:02:00 GMT", 120),
        ("Sat, 21 Nov 2026 12:02:00 +0200", 120),
        ("Sat, 21 Nov 2026 10:02:00 -0000", 120),
        ("Saturday, 21-Nov-26 10:02:00 GMT", 120),
        ("Sat Nov 21 10:02:00 2026", 120),
        ("Sat, 21 Nov 2026 09:00:00 GMT", 1),
        ("Sat, 21 Nov 2099 09:00:00 GMT", 86_400),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("١٢", None),
        ("Sat, 99 Nov 2026 10:02:00 GMT", None),
        ("Sat, 21 Nov 99999 10:02:00 GMT", None),
        ("Sat, 21 Nov 2026 10:02:00 +99999999", None),
    ],
)
def test_retry_after_is_read_in_both_its_forms(text: str | None, seconds: int | None) -> None:
    expected = None if seconds is None else timedelta(seconds=seconds)

    assert parse_retry_after(text, now=NOW) == expected


@pytest.mark.parametrize(
    ("status", "retry_after", "verdict"),
    [
        (200, None, Verdict.DELIVERED),
        (204, SECOND, Verdict.DELIVERED),
        (299, None, Verdict.DELIVERED),
        (199, None, Verdict.RETRY),
        (301, None, Verdict.RETRY),
        (302, MINUTE, Verdict.RETRY),
        (308, None, Verdict.RETRY),
        (400, MINUTE, Verdict.RETRY),
        (401, None, Verdict.RETRY),
        (404, None, Verdict.RETRY),
        (410, None, Verdict.GONE),
        (410, MINUTE, Verdict.GONE),
        (429, MINUTE, Verdict.PAUSE),
        (429, None, Verdict.RETRY),
        (500, MINUTE, Verdict.RETRY),
        (502, MINUTE, Verdict.PAUSE),
        (503, MINUTE, Verdict.PAUSE),
        (504, MINUTE, Verdict.PAUSE),
        (503, None, Verdict.RETRY),
    ],
)
def test_what_an_answers_status_means(status: int, retry_after: timedelta | None, verdict: Verdict) -> None:
    assert judge(status, retry_after=retry_after) is verdict


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(0, None), (4, None), (5, 5), (6, 10), (7, 20), (10, 160), (11, 300), (12, 300), (10_000, 300)],
)
def test_the_breaker_opens_after_five_failures_and_for_longer_each_time(
    failures: int, seconds: int | None
) -> None:
    assert opening(failures) == (None if seconds is None else timedelta(seconds=seconds))


CLOSED = timedelta(0)


@pytest.mark.parametrize(
    ("before", "verdict", "retry_after", "after"),
    [
        ((0, CLOSED), Verdict.DELIVERED, None, (0, CLOSED)),
        ((4, CLOSED), Verdict.DELIVERED, None, (0, CLOSED)),
        ((3, CLOSED), Verdict.RETRY, None, (4, CLOSED)),
        ((4, CLOSED), Verdict.RETRY, None, (5, 5 * SECOND)),
        ((5, CLOSED), Verdict.RETRY, None, (6, 10 * SECOND)),
        ((5, 3 * SECOND), Verdict.RETRY, None, (5, 3 * SECOND)),
        ((5, 3 * SECOND), Verdict.DELIVERED, None, (0, CLOSED)),
        ((0, CLOSED), Verdict.PAUSE, MINUTE, (1, MINUTE)),
        ((4, CLOSED), Verdict.PAUSE, SECOND, (5, 5 * SECOND)),
        ((1, 3 * SECOND), Verdict.PAUSE, MINUTE, (1, MINUTE)),
        ((1, MINUTE), Verdict.PAUSE, SECOND, (1, MINUTE)),
        ((1, MINUTE), Verdict.DELIVERED, None, (0, MINUTE)),
    ],
    ids=[
        "closed stays closed",
        "a success forgets failures",
        "a failure is counted",
        "the fifth opens",
        "a failed probe opens for longer",
        "a failure while open tells nothing new",
        "a success closes",
        "a pause is as long as asked",
        "of pause and opening the longer counts",
        "a longer pause replaces a shorter",
        "and not the other way round",
        "a success does not end a pause",
    ],
)
def test_the_breaker_after_a_try(
    before: tuple[int, timedelta],
    verdict: Verdict,
    retry_after: timedelta | None,
    after: tuple[int, timedelta],
) -> None:
    breaker = Breaker(failures=before[0], closed_for=before[1])

    found = after_try(breaker, verdict, retry_after=retry_after)

    assert (found.failures, found.closed_for) == after


@pytest.mark.parametrize(
    ("failures", "verdict", "expected"),
    [
        (5, Verdict.DELIVERED, True),
        (50, Verdict.DELIVERED, True),
        (4, Verdict.DELIVERED, False),
        (9, Verdict.RETRY, False),
    ],
)
def test_only_a_success_after_an_open_breaker_ends_an_outage(
    *, failures: int, verdict: Verdict, expected: bool
) -> None:
    assert has_recovered(Breaker(failures=failures, closed_for=CLOSED), verdict) is expected


def test_events_are_kept_once_and_in_the_order_of_a_jobs_life() -> None:
    asked = [Event.FAILED, Event.PROCESSING, Event.FAILED]

    assert in_order(asked) == [Event.PROCESSING, Event.FAILED]
