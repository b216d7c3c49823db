"""The rules of a job's life, as a truth table."""

from datetime import timedelta

import pytest

from app.domain.job import TERMINAL, TRANSITIONS, Status, is_charged, may_retry, retry_delay, sources


def test_exactly_completed_failed_and_cancelled_are_final() -> None:
    assert {Status.COMPLETED, Status.FAILED, Status.CANCELLED} == TERMINAL


def test_every_status_can_be_reached_from_queued() -> None:
    reached, todo = set[Status](), [Status.QUEUED]
    while todo:
        status = todo.pop()
        if status not in reached:
            reached.add(status)
            todo += TRANSITIONS[status]

    assert reached == set(Status)


def test_every_open_status_has_a_way_out() -> None:
    for status in set(Status) - TERMINAL:
        assert TRANSITIONS[status] & TERMINAL


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Status.QUEUED, {Status.PROCESSING}),
        (Status.PROCESSING, {Status.QUEUED}),
        (Status.COMPLETED, {Status.PROCESSING}),
        (Status.FAILED, {Status.QUEUED, Status.PROCESSING}),
        (Status.CANCELLED, {Status.QUEUED, Status.PROCESSING}),
    ],
)
def test_a_status_is_reached_only_from_its_sources(target: Status, expected: set[Status]) -> None:
    assert sources(target) == expected


@pytest.mark.parametrize(
    ("retryable", "failures", "max_attempts", "expected"),
    [(True, 1, 5, True), (True, 4, 5, True), (True, 5, 5, False), (True, 1, 1, False), (False, 1, 5, False)],
)
def test_a_job_is_tried_again_while_it_has_attempts_and_the_error_may_pass(
    *, retryable: bool, failures: int, max_attempts: int, expected: bool
) -> None:
    assert may_retry(retryable=retryable, failures=failures, max_attempts=max_attempts) is expected


@pytest.mark.parametrize(
    ("ours_is_away", "attempt", "expected"),
    [(False, 1, True), (True, 1, False), (True, 250, False), (True, 251, True)],
)
def test_an_outage_of_ours_is_not_charged_to_the_job_unless_it_never_ends(
    *, ours_is_away: bool, attempt: int, expected: bool
) -> None:
    assert is_charged(ours_is_away=ours_is_away, attempt=attempt) is expected


@pytest.mark.parametrize(("failures", "longest"), [(1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (1000, 30)])
def test_the_wait_doubles_up_to_half_a_minute(failures: int, longest: int) -> None:
    assert retry_delay(failures, chance=0.0) == timedelta(0)
    assert retry_delay(failures, chance=0.5) == timedelta(seconds=longest / 2)


@pytest.mark.parametrize(
    ("asked", "waited"),
    [(0, 1), (7, 7), (600, 600), (86_400, 600)],
    ids=["short", "as asked", "edge", "long"],
)
def test_a_retry_after_wins_within_its_bounds(asked: int, waited: int) -> None:
    after = timedelta(seconds=asked)

    assert retry_delay(1, chance=0.0, retry_after=after) == timedelta(seconds=waited)
    assert retry_delay(1, chance=1.0, retry_after=after) == timedelta(seconds=waited * 1.1)
