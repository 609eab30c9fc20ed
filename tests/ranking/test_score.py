import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from ht_bench.errors import UsageError
from ht_bench.ranking.admission import admission
from ht_bench.ranking.score import (
    Estimate,
    gap_closed,
    interquartile_mean,
    interval,
    mean_estimate,
    mean_interval,
    paired_interval,
    performance_profile,
    probability_of_improvement,
    seed_scores,
    suite_score,
)


def spread(n, center, key):
    return center + 0.01 * np.random.default_rng(key).normal(size=n)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 19, 20, 21])
def test_interquartile_mean_is_scipys_trimmed_mean(n):
    x = np.random.default_rng(n).normal(size=(3, n))
    np.testing.assert_allclose(interquartile_mean(x), stats.trim_mean(x, 0.25, axis=1), rtol=1e-14)
    np.testing.assert_allclose(interquartile_mean(x, axis=0), stats.trim_mean(x, 0.25, axis=0))


def test_interquartile_mean_by_hand():
    assert interquartile_mean([9, 1, 2, 3, -50, 4, 6, 1000]) == (2 + 3 + 4 + 6) / 4


def test_gap_closed_by_hand_and_never_clipped():
    warm, fresh = [0.5, 0.5], [0.75, 0.75]
    assert gap_closed([0.625, 0.625], warm, fresh) == 0.5
    assert gap_closed([1.0, 1.0], warm, fresh) == 2.0
    assert gap_closed([0.25, 0.25], warm, fresh) == -1.0
    assert gap_closed([0, 0, 3.0], [0] * 3, [1] * 3, np.mean) == 1.0
    assert gap_closed([1.0], [0.5], [0.5]) == math.inf
    assert math.isnan(gap_closed([0.5], [0.5], [0.5]))


def test_the_order_of_tasks_and_of_entries_changes_nothing():
    warm = {task: spread(6, 0.90, i) for i, task in enumerate("abc")}
    fresh = {task: spread(6, 0.95, 9 + i) for i, task in enumerate("abc")}
    first = suite_score(fresh, warm, fresh)
    assert dataclasses.astuple(first.mean_of_tasks) == pytest.approx((1.0, 1.0, 1.0))
    method = {task: spread(6, 0.92, 19 + i) for i, task in enumerate("abc")}
    turned = dict(reversed(method.items()))
    expected = suite_score(method, warm, fresh).gap_closed
    assert suite_score(turned, warm, fresh).gap_closed == expected
    order = np.random.default_rng(1).permutation(6)
    shuffled = ({t: x[order] for t, x in values.items()} for values in (method, warm, fresh))
    again = suite_score(*shuffled).gap_closed
    assert again.value == pytest.approx(expected.value, rel=1e-12)


def test_pairing_narrows_the_interval():
    noise = 0.05 * np.random.default_rng(0).normal(size=20)
    warm, fresh = 0.80 + noise, 0.90 + noise
    paired = suite_score({"a": 0.85 + noise}, {"a": warm}, {"a": fresh}).gap_closed
    assert paired.high - paired.low < 1e-9
    apart = suite_score({"a": 0.85 + noise[::-1]}, {"a": warm}, {"a": fresh}).gap_closed
    assert apart.high - apart.low > 0.1


def test_undefined_draws_count_against_both_ends():
    assert interval(np.arange(1000.0)) == (24.0, 975.0)
    assert interval(np.append(np.arange(900.0), [math.nan] * 100)) == (-math.inf, math.inf)
    assert interval([math.inf] * 999 + [1.0]) == (math.inf, math.inf)
    assert interval(np.append(np.arange(999.0), math.nan)) == (23.0, 975.0)


def test_one_seed_bounds_nothing():
    gap = suite_score({"a": [0.6]}, {"a": [0.5]}, {"a": [0.7]}).gap_closed
    assert (gap.value, gap.low, gap.high) == (pytest.approx(0.5), -math.inf, math.inf)
    assert not admission([0.5], [0.9]).passes


def test_probability_of_improvement_counts_ties_half():
    x, y = [0.9, 0.8, 0.7, 0.6], [0.8, 0.8, 0.8, 0.5]
    forward, backward = probability_of_improvement(x, y), probability_of_improvement(y, x)
    assert forward.value == (1 + 0.5 + 0 + 1) / 4
    assert forward.value + backward.value == 1
    equal = probability_of_improvement(x, x)
    assert equal.value == 0.5 and equal.low + equal.high == pytest.approx(1) and equal.low < 0.2
    thirds = np.arange(1, 4) / 3  # as a suite's file holds them
    assert probability_of_improvement(thirds, np.round(thirds, 10)).value == 0.5


@pytest.mark.parametrize(("won", "n"), [(0, 5), (4, 5), (5, 5), (18, 20), (20, 20)])
def test_the_interval_of_a_probability_of_improvement_is_wilsons(won, n):
    found = probability_of_improvement(np.arange(n) < won, np.full(n, 0.5))
    wanted = stats.binomtest(won, n).proportion_ci(0.95, "wilson")
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    halves = {"a": np.arange(n) < won, "b": np.arange(n) < won}
    both = probability_of_improvement(halves, {task: np.full(n, 0.5) for task in halves})
    wanted = stats.binomtest(2 * won, 2 * n).proportion_ci(0.95, "wilson")
    assert (both.low, both.high) == pytest.approx((wanted.low, wanted.high))


def test_probability_of_improvement_averages_over_tasks():
    x = {"a": [1.0, 1.0], "b": [0.0, 0.0, 0.0, 1.0]}
    y = {"a": [0.0, 0.0], "b": [0.5, 0.5, 0.5, 0.5]}
    assert probability_of_improvement(x, y).value == (1 + 0.25) / 2


def test_performance_profile_by_hand():
    profile = performance_profile({"a": [0.0, 1.0], "b": [0.5, 0.5, 0.5, 2.0]}, [-1, 0.5, 1])
    np.testing.assert_allclose(profile, [1, (0.5 + 0.25) / 2, (0 + 0.25) / 2])
    np.testing.assert_allclose(seed_scores([0.5, 0.75], [0.5, 0.5], [1.0, 1.0]), [0, 0.5])


@pytest.mark.parametrize("n", [2, 3, 5, 20, 1000])
def test_the_interval_of_a_mean_is_students(n):
    values = np.random.default_rng(n).normal(3, 2, n)
    wanted = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
    assert mean_interval(values) == pytest.approx((values.mean(), *wanted))
    curves = np.stack([values, values + 1], axis=1)
    np.testing.assert_allclose(mean_interval(curves)[1], wanted[0] + np.arange(2))
    assert paired_interval(values, np.zeros(n)) == mean_estimate(values)


def test_the_interval_of_a_mean_over_tasks_is_welchs():
    draw = np.random.default_rng(0)
    x, y = draw.normal(1, 1, 5), draw.normal(0, 3, 9)
    welch = stats.ttest_ind(x, -y, equal_var=False).confidence_interval(0.95)
    mean, *ends = mean_interval(x, y)
    assert mean == pytest.approx((x.mean() + y.mean()) / 2)
    assert ends == pytest.approx([welch.low / 2, welch.high / 2])


def test_equal_numbers_have_no_width_and_a_lone_one_no_bounds():
    assert mean_estimate([0.5] * 4) == Estimate(0.5, 0.5, 0.5)
    assert mean_estimate([0.5], [0.1, 0.3]) == Estimate(0.35, -math.inf, math.inf)


def test_the_interval_of_a_mean_holds_it_as_often_as_it_says():
    samples = np.random.default_rng(1).normal(0, 1, (5, 20_000))
    _, low, high = mean_interval(samples)
    assert np.mean((low <= 0) & (high >= 0)) == pytest.approx(0.95, abs=0.005)


@pytest.mark.parametrize(
    ("gaps", "passes"),
    [
        ([0.03, 0.04, 0.03, 0.04], True),
        ([0.015, 0.016, 0.017, 0.018], False),  # surely above zero, but too small
        ([-0.2, 0.4, -0.2, 0.4], False),  # large on average, but not surely above zero
        ([0.02, 0.06, 0.02, 0.06], False),  # surely above zero, but less than 4 standard errors
        ([-0.02, -0.03, -0.02, -0.03], False),
    ],
)
def test_admission(gaps, passes):
    warm = np.full(4, 0.9)
    verdict = admission(warm, warm + gaps)
    assert verdict.passes is passes
    assert verdict.gap.value == pytest.approx(np.mean(gaps))
    assert verdict.gap.low <= verdict.gap.value <= verdict.gap.high
    assert admission(warm, warm + gaps, minimum=0.004).passes is (passes or gaps[0] == 0.015)


def test_unequal_seeds_and_tasks_are_refused_by_name():
    with pytest.raises(UsageError, match="'a' hold 2 and 3 seeds"):
        suite_score({"a": [1, 2, 3]}, {"a": [1, 2]}, {"a": [1, 2, 3]})
    with pytest.raises(UsageError, match="'b' is on one side only"):
        suite_score({"a": [1], "b": [1]}, {"a": [1]}, {"a": [1]})
    with pytest.raises(UsageError, match="no task to score"):
        suite_score({}, {}, {})
    with pytest.raises(UsageError, match="one number per seed"):
        paired_interval([], [])
