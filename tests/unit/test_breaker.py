"""How many of an upstream's jobs may go: its breaker, its concurrency and its rate limit together."""

import pytest

from app.domain.breaker import BreakerState, Condition, room


def condition(breaker: str = "closed", *, closed_for: float = 0.0, left: int | None = None) -> Condition:
    return Condition(breaker=BreakerState(breaker), closed_for=closed_for, calls_left=left)


@pytest.mark.parametrize(
    ("now", "occupied", "free"),
    [
        (condition(), 0, 4),
        (condition(), 3, 1),
        (condition(), 9, 0),
        (condition(left=2), 0, 2),
        (condition(left=0), 0, 0),
        (condition(left=9), 1, 3),
        (condition(closed_for=0.1), 0, 0),
        (condition("open", closed_for=15), 0, 0),
        (condition("half_open"), 0, 1),
        (condition("half_open"), 1, 0),
        (condition("half_open", closed_for=3), 0, 0),
    ],
)
def test_the_narrowest_limit_decides(now: Condition, occupied: int, free: int) -> None:
    assert room(now, concurrency=4, occupied=occupied) == free
