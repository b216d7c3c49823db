"""The arithmetic of the bench; what it measures with it is nobody's promise."""

import pytest

from bench.numbers import Series, Table, against_goal, interleaved, percentile, ratios, steady_rate


def test_a_series_shows_its_median_between_its_extremes() -> None:
    assert Series((1250.0, 1000.0, 1200.0)).show() == "1,200 [1,000-1,250]"


def test_ratios_are_taken_within_each_round() -> None:
    ours, base = Series((50.0, 500.0)), Series((100.0, 1000.0))
    assert ratios(ours, base).values == (0.5, 0.5)


def test_rounds_of_two_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratios(Series((1.0,)), Series((1.0, 2.0)))


def test_every_second_round_runs_in_reverse() -> None:
    assert list(interleaved(2, ["a", "b"])) == [(0, "a"), (0, "b"), (1, "b"), (1, "a")]


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 5), (0.99, 10), (1.0, 10)])
def test_a_percentile_is_one_of_the_values(share: float, value: float) -> None:
    assert percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], share) == value


def test_a_steady_rate_leaves_the_start_out() -> None:
    slow_start = [0.0, 10.0, *(20.0 + tick / 100 for tick in range(98))]
    assert steady_rate(slow_start) == pytest.approx(100)


def test_a_steady_rate_needs_only_two_events() -> None:
    assert steady_rate([3.0, 1.0]) == pytest.approx(0.5)


def test_a_goal_is_met_by_the_median() -> None:
    assert against_goal(Series((0.7, 0.8, 0.9)), at_least=0.8).endswith("goal 0.8: met")
    assert against_goal(Series((0.7, 0.75, 0.9)), at_least=0.8).endswith("goal 0.8: missed")


def test_a_table_becomes_markdown() -> None:
    table = Table("Door", ("", "jobs/s"), [("ours", "10")], ["A note."])
    assert table.markdown() == "### Door\n\n|  | jobs/s |\n|---|---:|\n| ours | 10 |\n\nA note.\n"
