"""Numbers and intervals as every view writes them."""

import math

import pytest

from ht_bench.ranking.score import Estimate
from ht_bench.views.text import format_estimate, format_interval, number, times

INFINITE = math.inf


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (math.nan, "–"), (INFINITE, "∞"), (-0.001, "0.00"), (-1.239, "-1.24")],
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_an_interval_shows_the_ends_that_the_data_bound() -> None:
    assert format_estimate(Estimate(1.0, 0.9, 1.1), 1) == "1.0 [0.9, 1.1]"
    assert format_estimate(Estimate(1.0, -INFINITE, INFINITE)) == "1.00"
    assert format_interval(Estimate(1.0, -INFINITE, 2.0)) == "[−∞, 2.00]"
    assert format_estimate(None) == "–"
    assert (times(None), times(1.5)) == ("–", "1.50×")
