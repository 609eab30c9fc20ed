"""Group-sequential levels against published ones and simulation; verdicts by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ht_bench.ranking.influence import of_interquartile_mean, p_value
from ht_bench.ranking.sequential import looks, nominal_levels, verdicts


def bounds(levels):
    return [stats.norm.isf(level / 2) for level in levels]


def test_levels_are_those_of_the_literature():
    """Lan and DeMets' O'Brien-Fleming spending, five equal looks, 5 % two-sided."""
    levels = nominal_levels((0.2, 0.4, 0.6, 0.8, 1.0), 0.05)
    assert bounds(levels) == pytest.approx([4.8769, 3.3569, 2.6803, 2.2898, 2.0310], abs=2e-4)
    assert nominal_levels((1.0,), 0.05) == pytest.approx((0.05,))
    assert bounds(nominal_levels((0.5, 1.0), 0.05)) == pytest.approx([2.9626, 1.9686], abs=2e-4)


@pytest.mark.parametrize("error", [0.05, 0.05 / 40])
def test_levels_spend_the_error_and_no_more(error):
    shares = (0.25, 0.5, 0.75, 1.0)
    levels = nominal_levels(shares, error)
    assert list(levels) == sorted(levels) and levels[-1] < error
    steps = np.random.default_rng(0).normal(0, 0.5, (400_000, 4))
    z = np.cumsum(steps, axis=1) / np.sqrt(shares)
    crossed = (np.abs(z) > bounds(levels)).any(axis=1).mean()
    assert crossed == pytest.approx(error, abs=4 * np.sqrt(error / 400_000))


@pytest.mark.parametrize(
    ("seeds", "step", "wanted"),
    [
        (20, 1, (5, 10, 15, 20)),
        (20, 10, (10, 20)),
        (10, 4, (4, 8, 10)),
        (5, 20, (5,)),
        (3, 1, (1, 2, 3)),
    ],
)
def test_looks_are_few_and_end_with_all_seeds(seeds, step, wanted):
    assert looks(seeds, step) == wanted


def test_verdicts_say_which_side_and_stay_open_otherwise():
    noise = 0.01 * np.random.default_rng(1).normal(size=10)
    entry = of_interquartile_mean(0.9 + noise)
    swing = 0.02 * np.random.default_rng(2).normal(size=10)
    others = {
        "worse": of_interquartile_mean(0.8 + noise + swing / 20),
        "better": of_interquartile_mean(0.95 + noise + swing / 20),
        "like": of_interquartile_mean(0.9 + noise + swing),
        "same": entry,
    }
    found = verdicts(entry, others, 10, (10, 20), pairs=4)
    assert [v.standing for v in found] == ["above", "below", "open", "open"]
    assert [v.other for v in found] == list(others)
    assert {v.level for v in found} == {nominal_levels((0.5, 1.0), 0.05 / 4)[0]}
    assert found[2].p_value == p_value(entry, others["like"])
    assert verdicts(entry, others, 20, (10, 20), 4)[0].level > found[0].level
