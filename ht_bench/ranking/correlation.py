"""Whether methods that are good at one thing are good at another: rank correlation over methods."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from ht_bench.ranking.estimate import Estimate
from ht_bench.ranking.influence import Array, Statistic
from ht_bench.ranking.score import BOOTSTRAP_SEED, DRAWS, interval


def correlate(x: Sequence[Statistic], y: Sequence[Statistic], name: str) -> tuple[Estimate, float]:
    """Return Spearman's ρ of methods' values of x and y, with its 95 % interval and p-value.

    x, y: of one method at one place, on tasks of its own each. The interval is of a two-level
    bootstrap: each draw resamples the methods, and the seeds within each task, the same ones for
    all methods, whose values move by their runs' influences. A draw without a correlation could be
    anything. Noise over seeds pulls ρ of the runs toward zero, and the interval with it: where
    methods differ little by their standard errors, both are of the runs, not of the methods' true
    scores. p_value: two-sided, that ρ is zero; never below what DRAWS can tell.
    """
    value = float(_spearman(_values(x)[None], _values(y)[None])[0])
    if len(x) < 3 or not np.isfinite(value):
        return Estimate(value, -1.0, 1.0), 1.0
    draw = np.random.default_rng([BOOTSTRAP_SEED, zlib.crc32(name.encode())])
    methods = draw.integers(len(x), size=(DRAWS, len(x)))
    moved = [np.take_along_axis(_moved(each, draw), methods, axis=1) for each in (x, y)]
    draws = _spearman(*moved)
    low, high = interval(draws)
    undefined = np.isnan(draws)
    tails = [float(np.mean(side | undefined)) for side in (draws <= 0, draws >= 0)]
    p_value = min(1.0, max(2 * min(tails), 1 / DRAWS))
    return Estimate(value, max(low, -1.0), min(high, 1.0)), p_value


def _values(statistics: Sequence[Statistic]) -> Array:
    return np.array([each.value for each in statistics])


def _moved(statistics: Sequence[Statistic], draw: np.random.Generator) -> Array:
    """Return the methods' values on resampled seeds, [DRAWS, methods]."""
    values = np.tile(_values(statistics), (DRAWS, 1))
    for influences in zip(*(each.influences for each in statistics), strict=True):
        table = np.stack(influences)
        n = table.shape[1]
        counts = draw.multinomial(n, np.full(n, 1 / n), DRAWS)
        values += (counts - 1.0) @ (table - table.mean(axis=1, keepdims=True)).T
    return values


def _spearman(x: Array, y: Array) -> Array:
    """Return a correlation for each row, nan where one side is constant."""
    first, second = (rankdata(each, axis=1) for each in (x, y))
    first, second = (each - each.mean(axis=1, keepdims=True) for each in (first, second))
    size = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    with np.errstate(invalid="ignore"):
        return np.asarray((first * second).sum(axis=1) / np.where(size > 0, size, np.nan))
