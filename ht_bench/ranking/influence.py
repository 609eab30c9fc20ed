"""A statistic with the influence of every run on it: intervals and paired tests from one thing.

To first order a smooth statistic moves by the sum of its runs' influences (the infinitesimal
jackknife, Jaeckel 1972); for a trimmed mean these are the winsorized values (Tukey and McLaughlin
1963). Influences of statistics on the same runs add and subtract, so a ratio, a mean over tasks and
a paired difference each have one, and with it a standard error. Student's t has the degrees of
freedom of Welch (1947) over tasks: for an interval n − 2 of a task's n seeds; for tests, whose
level lies far out, one less than the seeds that its interquartile mean keeps (Yuen 1974). A middle
half of few runs may agree by chance far better than all of them do, so a task's variance is never
taken below FLOOR of what plain means would have. What these intervals and tests keep to, and
percentile bootstraps, `python -m benchmarks.coverage` tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

from ht_bench.ranking.estimate import Estimate

LEVEL = 0.95
FAMILY_WISE = 0.05
"""The chance of any false "surely above" among all pairs of a table."""
FLOOR = 0.5
"""Least variance of a task's interquartile mean, in that of its mean: as for Student's t with three
degrees of freedom (0.51). Of normal runs it is 1.2: they meet the floor where the middles of few
seeds agree by chance."""
TIE = 1e-9
"""Numbers this near are equal: frozen anchors are written with ten decimals, runs with all."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Statistic:
    """A number and the influence of every run on it.

    influences: an array [seeds] per task, known up to a constant in each. Two statistics of the
    same tasks and seeds are paired run by run. plain: those that the runs would have on means in
    place of interquartile means; empty where runs of several tasks are ordered together.
    """

    value: float
    influences: tuple[Array, ...]
    plain: tuple[Array, ...] = ()

    def estimate(self) -> Estimate:
        """Return the value with its 95 % interval, unbounded where a task has too few seeds."""
        squares = [_square(x) for x in self.influences]
        floors = [_square(x) for x in self.plain] or [0.0] * len(squares)
        if not np.isfinite(self.value):
            return Estimate(self.value, self.value, self.value)
        if any(square is None for square in squares):
            return Estimate(self.value, -np.inf, np.inf)
        variances = np.maximum(np.array(squares, float), FLOOR * np.array(floors, float))
        freedom = _freedom(variances[:, None], [n - 2 for n in self._seeds()])[0]
        if not variances.sum() > TIE**2 * max(1.0, self.value**2):  # rounding
            return Estimate(self.value, self.value, self.value)
        if freedom <= 0:
            return Estimate(self.value, -np.inf, np.inf)
        width = float(stdtrit(freedom, (1 + LEVEL) / 2) * np.sqrt(variances.sum()))
        return Estimate(self.value, self.value - width, self.value + width)

    def p_value(self) -> float:
        """Return the two-sided p-value of a value of zero."""
        still = tuple(np.zeros(len(x)) for x in self.influences)
        nothing = Statistic(0.0, still, still)
        return p_value(self, nothing)

    def _seeds(self) -> list[int]:
        return [len(x) for x in self.influences]


def _square(influence: Array) -> float | None:
    """Return a task's part of the variance; None for a lone seed."""
    n = len(influence)
    return None if n < 2 else float(n * influence.var(ddof=1))


def _freedom(variances: Array, by_task: Sequence[int]) -> Array:
    """Return Welch's degrees of freedom [...] of variances [tasks, ...]; 0: a task has none.

    Tasks without variance play no part.
    """
    left = np.reshape(np.asarray(by_task, dtype=np.float64), (-1, *[1] * (variances.ndim - 1)))
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(variances > 0, variances**2 / np.maximum(left, 0), 0.0)
        freedom = variances.sum(axis=0) ** 2 / parts.sum(axis=0)
    return np.nan_to_num(freedom, nan=0.0, posinf=0.0)


def interquartile_mean(x: ArrayLike, axis: int = -1) -> Array:
    """Mean of what is left along `axis` after floor(n / 4) values are dropped at each end."""
    values = np.sort(np.asarray(x, dtype=np.float64), axis=axis)
    ordered, cut = np.moveaxis(values, axis, -1), values.shape[axis] // 4
    return np.asarray(ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1))


def of_interquartile_mean(values: Array) -> Statistic:
    """Return the interquartile mean of one task's runs, [seeds]."""
    plain = (values / len(values),)
    return Statistic(float(interquartile_mean(values)), tuple(_winsorized([values])), plain)


def _winsorized(parts: Sequence[Array]) -> list[Array]:
    """Return the influence of each value on the interquartile mean of all of them, by part.

    A middle half of equal numbers would claim to be sure of itself: then the tails speak.
    """
    low, high = quartile_ends(parts)
    n = sum(map(len, parts))
    if low == high:
        return [part / n for part in parts]
    return [np.clip(part, low, high) / (n - 2 * (n // 4)) for part in parts]


def quartile_ends(parts: Sequence[Array]) -> tuple[float, float]:
    """Return the least and the greatest of the values that the interquartile mean keeps."""
    ordered = np.sort(np.concatenate(parts))
    cut = len(ordered) // 4
    return float(ordered[cut]), float(ordered[len(ordered) - 1 - cut])


def of_gap_closed(
    method: Sequence[Array], warm: Sequence[Array], fresh: Sequence[Array]
) -> Statistic:
    """Return the interquartile mean of gap closed over all runs of some tasks, [seeds] arrays each.

    A run's gap closed is (A − Ā_warm) / (Ā_fresh − Ā_warm) with interquartile means Ā of its task's
    anchors, whose runs have their influence too. For one task it is the ratio of interquartile
    means of PROTOCOL's "Anchors and score". Not a number where a task has no gap at all.
    """
    starts = [float(interquartile_mean(x)) for x in warm]
    gaps = [float(interquartile_mean(x)) - w for x, w in zip(fresh, starts, strict=True)]
    if not all(gaps):
        return Statistic(np.nan, tuple(np.zeros(len(x)) for x in method))
    runs = [(m - w) / gap for m, w, gap in zip(method, starts, gaps, strict=True)]
    middle = _in_the_middle(runs)
    total = sum(kept.sum() for kept in middle)
    influences, plain = [], []
    for t, own in enumerate(_winsorized(runs)):
        kept, n = runs[t][middle[t]], len(runs[t])
        by_warm = -np.sum(1 - kept) / gaps[t] / total
        by_fresh = -np.sum(kept) / gaps[t] / total
        [at_warm], [at_fresh] = _winsorized([warm[t]]), _winsorized([fresh[t]])
        influences.append(own + by_warm * at_warm + by_fresh * at_fresh)
        plain.append((runs[t] + by_warm * warm[t] + by_fresh * fresh[t]) / n)
    value = float(interquartile_mean(np.concatenate(runs)))
    return Statistic(value, tuple(influences), tuple(plain) if len(runs) == 1 else ())


def _in_the_middle(parts: Sequence[Array]) -> list[NDArray[np.bool_]]:
    """Mark the values that the interquartile mean of all parts is the mean of."""
    sizes = [len(part) for part in parts]
    n = sum(sizes)
    order = np.argsort(np.concatenate(parts), kind="stable")
    kept = np.zeros(n, dtype=bool)
    kept[order[n // 4 : n - n // 4]] = True
    return np.split(kept, np.cumsum(sizes)[:-1])


def of_error_reduction(method: Array, warm: Array) -> Statistic:
    """Return 1 − error / error_none of interquartile means of one task's accuracies, [seeds]."""
    own, none = (float(interquartile_mean(x)) for x in (method, warm))
    if none >= 1:
        return Statistic(np.nan, (np.zeros(len(method)),))
    [at_own], [at_none] = _winsorized([method]), _winsorized([warm])
    by_own, by_none = 1 / (1 - none), -(1 - own) / (1 - none) ** 2
    influence = by_own * at_own + by_none * at_none
    plain = (by_own * method + by_none * warm) / len(method)
    return Statistic(1 - (1 - own) / (1 - none), (influence,), (plain,))


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """Return the mean of statistics of different tasks."""
    count = len(statistics)
    influences = [x / count for each in statistics for x in each.influences]
    plain = [x / count for each in statistics for x in each.plain]
    known = tuple(plain) if all(each.plain for each in statistics) else ()
    return Statistic(sum(each.value for each in statistics) / count, tuple(influences), known)


def surely_above(entries: Mapping[str, Statistic]) -> dict[str, set[str]]:
    """Return, for each entry, those that are surely above it, at FAMILY_WISE over all pairs.

    entries: statistics of the same tasks and seeds. Pairs are tested two-sided and paired by seed,
    and Holm's (1979) step-down keeps the chance of any false verdict among all of them.
    """
    labels = list(entries)
    above: dict[str, set[str]] = {label: set() for label in labels}
    if len(labels) < 2:
        return above
    differences, p_values = _pairs([entries[label] for label in labels])
    first, second = np.triu_indices(len(labels), 1)
    for k in rejected(p_values[first, second]):
        i, j = int(first[k]), int(second[k])
        better, worse = (i, j) if differences[i, j] > 0 else (j, i)
        above[labels[worse]].add(labels[better])
    return above


def p_value(first: Statistic, second: Statistic) -> float:
    """Return the two-sided p-value of a paired difference, of this pair alone."""
    return float(_pairs([first, second])[1][0, 1])


def _pairs(entries: Sequence[Statistic]) -> tuple[Array, Array]:
    """Return differences of values and two-sided p-values of all pairs, [entries, entries] each."""
    values = np.array([entry.value for entry in entries])
    differences = values[:, None] - values[None, :]
    variances = _by_task([entry.influences for entry in entries])
    alike = variances.sum(axis=0) == 0  # no kept difference varies
    if all(entry.plain for entry in entries):
        floors = _by_task([entry.plain for entry in entries])
        variances = np.maximum(variances, FLOOR * floors)
    seeds = entries[0]._seeds()
    freedom = _freedom(variances, [n - 2 * (n // 4) - 1 for n in seeds])
    total = variances.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(total > 0, np.abs(differences) / np.sqrt(total), np.inf)
        p_values = np.where(freedom > 0, 2 * stdtr(np.maximum(freedom, 1e-9), -t), 1.0)
    p_values[alike] = np.maximum(_signs(seeds), np.where(total > 0, p_values, 0.0))[alike]
    p_values[~(np.abs(differences) > TIE)] = 1.0  # so does what is not a number
    return differences, p_values


def _by_task(influences: Sequence[tuple[Array, ...]]) -> Array:
    """Return the variances of pairs' differences, [tasks, entries, entries]."""
    return np.stack([_variances(x) for x in zip(*influences, strict=True)])


def _signs(seeds: Sequence[int]) -> float:
    """Return the p-value of a sign test in which every seed that is kept says the same.

    Where no kept difference varies, as coarse accuracies of few seeds happen to do, Student's t
    would be sure of it.
    """
    return 2.0 ** (1 - sum(n - 2 * (n // 4) for n in seeds)) if min(seeds) > 1 else 1.0


def _variances(influences: Sequence[Array]) -> Array:
    """Return the variance of each pair's difference on one task, [entries, entries]."""
    x = np.stack(influences)
    n = x.shape[1]
    if n < 2:
        return np.full((len(x), len(x)), np.inf)
    x = x - x.mean(axis=1, keepdims=True)
    products = x @ x.T * n / (n - 1)
    own = np.diag(products)
    sums = own[:, None] + own[None, :]
    variances = sums - 2 * products
    return np.where(variances > 1e-12 * sums, variances, 0.0)  # less is rounding


def rejected(p_values: Array) -> NDArray[np.intp]:
    """Return the places of the hypotheses that Holm's step-down rejects."""
    order = np.argsort(p_values, kind="stable")
    levels = FAMILY_WISE / np.arange(len(p_values), 0, -1)
    kept = np.flatnonzero(p_values[order] > levels)
    return order[: kept[0] if len(kept) else len(order)]


def bands(order: Sequence[str], above: Mapping[str, set[str]]) -> dict[str, tuple[int, ...]]:
    """Return the numbers, from 1, of the bands that each entry belongs to.

    order: entries, best first. A band is a longest run of neighbours in that order of which no two
    can be told apart; an entry may belong to several.
    """
    found: dict[str, list[int]] = {label: [] for label in order}
    end = number = 0
    for start in range(len(order)):
        stop = max(end, start)
        while stop < len(order) and not _told_apart(order[start:stop], order[stop], above):
            stop += 1
        if stop > end:
            number += 1
            for label in order[start:stop]:
                found[label].append(number)
            end = stop
    return {label: tuple(numbers) for label, numbers in found.items()}


def _told_apart(labels: Sequence[str], other: str, above: Mapping[str, set[str]]) -> bool:
    return any(label in above[other] or other in above[label] for label in labels)
