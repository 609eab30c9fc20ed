"""Influences: against finite differences and plain loops; intervals, Holm's ranks, bands."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from ht_bench.ranking.influence import (
    Statistic,
    bands,
    interquartile_mean,
    mean_of,
    of_error_reduction,
    of_gap_closed,
    of_interquartile_mean,
    p_value,
    surely_above,
)


def spread(n, center, key, size=0.02):
    return center + size * np.random.default_rng(key).normal(size=n)


def weighted_iqm(values, weights):
    """Interquartile mean of a distribution of weighted values, a quarter cut off at each end."""
    order = np.argsort(values)
    x, w = np.asarray(values)[order], np.asarray(weights)[order] / np.sum(weights)
    upper = np.cumsum(w)
    share = np.clip(np.minimum(upper, 0.75) - np.maximum(upper - w, 0.25), 0, None)
    return float(np.sum(share * x) / np.sum(share))


def derivative(statistic, shape, epsilon=1e-5):
    """Return d statistic / d weight of each run, less its mean per task: the influences."""
    found = []
    for t, n in enumerate(shape):
        column = []
        for s in range(n):
            up, down = ([np.full(k, 1 / k) for k in shape] for _ in range(2))
            up[t][s] += epsilon
            down[t][s] -= epsilon
            column.append((statistic(up) - statistic(down)) / (2 * epsilon) / n)
        found.append(np.array(column) - np.mean(column))
    return found


@pytest.mark.parametrize("seeds", [(400,), (200, 300, 400)])
def test_influences_are_the_derivatives_by_the_weights_of_the_runs(seeds):
    """Independent of the code's winsorizing: the statistic of reweighted runs is differentiated.

    The two differ by less than what one run more or less would change at a quartile.
    """
    method, warm, fresh = (
        [spread(n, center, (t, k)) for t, n in enumerate(seeds)]
        for k, center in enumerate((0.92, 0.9, 0.97))
    )

    def score(weights):
        runs, masses = [], []
        for m, w, f, weight in zip(method, warm, fresh, weights, strict=True):
            start, end = weighted_iqm(w, weight), weighted_iqm(f, weight)
            runs.append((m - start) / (end - start))
            masses.append(weight / weight.sum() * len(m))
        return weighted_iqm(np.concatenate(runs), np.concatenate(masses))

    found = of_gap_closed(method, warm, fresh)
    assert found.value == pytest.approx(score([np.ones(n) for n in seeds]))
    for own, wanted in zip(found.influences, derivative(score, seeds), strict=True):
        np.testing.assert_allclose(own - own.mean(), wanted, atol=0.05 * np.abs(wanted).max())


def test_influences_of_error_reduction_are_derivatives_too():
    own, none = spread(400, 0.95, 1, 0.01), spread(400, 0.9, 2, 0.01)

    def reduction(weights):
        [weight] = weights
        return 1 - (1 - weighted_iqm(own, weight)) / (1 - weighted_iqm(none, weight))

    found = of_error_reduction(own, none)
    assert found.value == pytest.approx(reduction([np.ones(400)]))
    [influence], [wanted] = found.influences, derivative(reduction, (400,))
    atol = 0.05 * np.abs(wanted).max()
    np.testing.assert_allclose(influence - influence.mean(), wanted, atol=atol)
    assert math.isnan(of_error_reduction(own, np.ones(400)).value)


def test_gap_closed_of_one_task_is_the_ratio_of_interquartile_means_and_of_several_pools_runs():
    method, warm, fresh = ([spread(9, c, k), spread(9, c, k + 9)] for k, c in enumerate((4, 3, 7)))
    iqm = interquartile_mean
    one = of_gap_closed(method[:1], warm[:1], fresh[:1])
    ratio = (iqm(method[0]) - iqm(warm[0])) / (iqm(fresh[0]) - iqm(warm[0]))
    assert one.value == pytest.approx(float(ratio))
    pooled = [
        (run - iqm(w)) / (iqm(f) - iqm(w))
        for m, w, f in zip(method, warm, fresh, strict=True)
        for run in m
    ]
    both = of_gap_closed(method, warm, fresh)
    assert both.value == pytest.approx(stats.trim_mean(pooled, 0.25))


def test_anchors_are_sure_of_themselves_on_one_task():
    warm, fresh = [spread(20, 0.9, 1)], [spread(20, 0.95, 2)]
    for method, value in ((warm, 0.0), (fresh, 1.0)):
        estimate = of_gap_closed(method, warm, fresh).estimate()
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((value,) * 3)


FLOORED = (1, 3, 6, 7)
"""Draws of eight whose middle half agrees by chance."""


@pytest.mark.parametrize("draw", range(8))
def test_an_interval_is_students_with_two_degrees_of_freedom_lost(draw):
    """Of the winsorized deviation, or where that is less of half the mean's variance."""
    values = spread(8, 0.9, draw)
    found = of_interquartile_mean(values).estimate()
    ordered = np.sort(values)
    winsorized = np.clip(values, ordered[2], ordered[5])
    own, plain = winsorized.var(ddof=1) / (0.25 * 8), values.var(ddof=1) / 8
    assert (own < plain / 2) == (draw in FLOORED)
    width = stats.t.ppf(0.975, 6) * math.sqrt(max(own, plain / 2))
    assert (found.value - found.low, found.high - found.value) == pytest.approx((width, width))


def test_of_three_seeds_interquartile_means_and_means_are_one():
    method, warm, fresh = (spread(3, center, 1, 0.02) for center in (0.92, 0.9, 0.97))
    found = [
        of_interquartile_mean(method),
        of_gap_closed([method], [warm], [fresh]),
        of_error_reduction(method, warm),
    ]
    for each in [*found, mean_of(found[:2])]:
        for own, plain in zip(each.influences, each.plain, strict=True):
            assert plain - plain.mean() == pytest.approx(own - own.mean())


def test_runs_of_several_tasks_have_no_floor():
    """They are ordered together: a task at one end bears no weight, however it scatters."""
    method, warm, fresh = (
        [spread(20, center, (t, k)) for t in range(3)] for k, center in enumerate((0.92, 0.9, 0.97))
    )
    assert of_gap_closed(method, warm, fresh).plain == ()
    alone = of_gap_closed(method[:1], warm[:1], fresh[:1])
    assert mean_of([alone, Statistic(0.5, alone.influences)]).plain == ()


def test_a_mean_over_tasks_has_welchs_degrees_of_freedom():
    statistics = [of_interquartile_mean(spread(n, 0.9, n, 0.01 * n)) for n in (8, 20)]
    squares = [n * s.influences[0].var(ddof=1) for n, s in zip((8, 20), statistics, strict=True)]
    freedom = sum(squares) ** 2 / (squares[0] ** 2 / 6 + squares[1] ** 2 / 18)
    found = mean_of(statistics).estimate()
    width = stats.t.ppf(0.975, freedom) * math.sqrt(sum(squares)) / 2
    assert found.value == pytest.approx(np.mean([s.value for s in statistics]))
    assert found.high - found.value == pytest.approx(width)


@pytest.mark.parametrize("n", [1, 2])
def test_too_few_seeds_bound_nothing(n):
    found = of_interquartile_mean(np.arange(n) / 7).estimate()
    assert (found.low, found.high) == (-math.inf, math.inf)


def test_a_middle_half_of_equal_numbers_is_not_sure_of_itself():
    values = np.array([500.0] * 6 + [80.0, 30.0])
    found = of_interquartile_mean(values).estimate()
    assert found.value == 500.0 and found.low < 400
    assert of_interquartile_mean(np.full(8, 0.5)).estimate().high == 0.5


def statistics_of(values):
    return {label: of_interquartile_mean(np.asarray(x)) for label, x in values.items()}


def test_pairs_are_tested_as_scipy_would_and_stepped_down_as_holm_says():
    draw = np.random.default_rng(4)
    values = {
        label: draw.normal(shift, 1, 12) for label, shift in zip("abcdef", range(6), strict=True)
    }
    entries = statistics_of(values)
    p_values = {}
    for x, y in itertools.combinations(values, 2):
        influence = entries[x].influences[0] - entries[y].influences[0]
        t = (entries[x].value - entries[y].value) / math.sqrt(12 * influence.var(ddof=1))
        p_values[x, y] = 2 * stats.t.sf(abs(t), 12 - 2 * 3 - 1)
    wanted = set()
    for place, pair in enumerate(sorted(p_values, key=p_values.__getitem__)):
        if p_values[pair] > 0.05 / (len(p_values) - place):
            break
        wanted.add(pair)
    above = surely_above(entries)
    told = {(x, y) for x, y in p_values if y in above[x] or x in above[y]}
    assert told == wanted and 0 < len(wanted) < len(p_values)
    assert all(entries[y].value > entries[x].value for x in above for y in above[x])


def test_pairing_tells_apart_what_differs_less_than_seeds_do():
    noise = 0.02 * np.random.default_rng(0).normal(size=24)
    swing = 0.004 * np.array([1, -1] * 12)
    values = {"good": 0.95 + noise, "as good": 0.95 + noise + swing, "worse": 0.94 + noise}
    above = surely_above(statistics_of(values))
    assert above == {"good": set(), "as good": set(), "worse": {"good", "as good"}}
    turned = dict(reversed(values.items()))
    assert surely_above(statistics_of(turned)) == above


def test_equal_entries_and_few_seeds_are_never_told_apart():
    values = spread(20, 0.9, 1)
    rounded = {"a": values, "b": np.round(values, 10)}
    assert surely_above(statistics_of(rounded)) == {"a": set(), "b": set()}
    assert surely_above(statistics_of({"a": [0.1], "b": [0.9]})) == {"a": set(), "b": set()}
    same = {"a": [0.1, 0.2, 0.3, 0.4], "b": [0.8, 0.9, 1.0, 1.1]}  # differ by one number
    assert surely_above(statistics_of(same)) == {"a": set(), "b": set()}
    assert surely_above(statistics_of({"a": values, "b": values + 0.7}))["a"] == {"b"}
    undefined = {"a": Statistic(math.nan, (values,)), "b": of_interquartile_mean(values)}
    assert not any(surely_above(undefined).values())
    assert surely_above({}) == {} and surely_above({"a": four_entry()}) == {"a": set()}


def four_entry():
    return of_interquartile_mean(np.arange(4.0))


def test_among_equal_methods_no_one_is_ranked_above_more_often_than_stated():
    draw = np.random.default_rng(5)
    wrong = 0
    for _ in range(300):
        values = {k: draw.standard_t(4, 12) for k in range(12)}
        wrong += any(surely_above(statistics_of(values)).values())
    assert wrong <= 300 * 0.05 + 2 * math.sqrt(300 * 0.05 * 0.95)


@pytest.mark.parametrize(("seeds", "methods"), [(5, 12), (10, 40)])
def test_middles_that_agree_by_chance_tell_no_equal_methods_apart(seeds, methods):
    """Runs fall into two peaks: the middle half may lie in one of them (no floor: 7, 14 %)."""
    draw, boards, wrong = np.random.default_rng(6), 200, 0
    for _ in range(boards):
        peaks = np.where(draw.random((methods, seeds)) < 0.3, -1.5, 0.65)
        shared = np.where(draw.random(seeds) < 0.3, -1.5, 0.65) + 0.2 * draw.normal(size=seeds)
        runs = shared + peaks + 0.2 * draw.normal(size=(methods, seeds))
        wrong += any(surely_above(statistics_of(dict(enumerate(runs)))).values())
    assert wrong <= boards * 0.03


def test_kept_differences_that_do_not_vary_are_a_sign_test():
    """Coarse accuracies of few seeds: equal in the middle half, whatever the ends do."""
    first = of_interquartile_mean(np.array([0.800, 0.810, 0.812, 0.814, 0.830]))
    second = of_interquartile_mean(np.array([0.700, 0.812, 0.814, 0.816, 0.817]))
    assert p_value(first, second) > 0.8  # the ends differ the more
    nearly = of_interquartile_mean(np.array([0.8101, 0.820, 0.822, 0.824, 0.8401]))
    assert p_value(first, nearly) == 2.0 ** (1 - 3)
    for n, kept in ((2, 2), (4, 2), (10, 6), (20, 10)):
        values = np.linspace(0.8, 0.9, n)
        statistics = [of_interquartile_mean(values + shift) for shift in (0.0, 0.01)]
        assert p_value(*statistics) == pytest.approx(2.0 ** (1 - kept))
    tasks = [mean_of([of_interquartile_mean(values + s)] * 3) for s in (0.0, 0.01)]
    assert p_value(*tasks) == pytest.approx(2.0 ** (1 - 30))


@pytest.mark.parametrize("n", [3, 4, 5])
def test_coarse_accuracies_of_few_seeds_tell_no_equal_methods_apart(n):
    """Ranks of one task, by the metric: accuracies in steps of a fifth of their deviation."""
    draw, boards, wrong = np.random.default_rng(5), 200, 0
    for _ in range(boards):
        shared = draw.normal(size=n)
        runs = np.round((shared + draw.normal(size=(12, n))) * 3.5) / 3.5
        entries = {str(k): of_interquartile_mean(run) for k, run in enumerate(runs)}
        wrong += any(surely_above(entries).values())
    assert wrong <= 0.05 * boards


def test_bands_are_the_longest_runs_of_which_no_two_are_told_apart():
    above = {"a": set(), "b": set(), "c": {"a"}, "d": {"a", "b"}, "e": {"a", "b", "c", "d"}}
    assert bands("abcde", above) == {"a": (1,), "b": (1, 2), "c": (2, 3), "d": (3,), "e": (4,)}
    assert bands("ab", {"a": set(), "b": set()}) == {"a": (1,), "b": (1,)}
    assert bands("", {}) == {}
