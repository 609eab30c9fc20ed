"""Scores from per-seed numbers: gap closed, error reduction, and every 95 % interval.

Arrays hold one number per seed on their last axis, in the same order of seeds everywhere, so that
seed k of a method, of the warm anchor and of the fresh anchor stand at one index: comparisons are
paired. Means over seeds have Student's interval (`mean_interval`); interquartile means and what is
made of them have that of their runs' influences (`influence`); shares of seeds have Wilson's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri, stdtrit

from ht_bench.errors import UsageError
from ht_bench.ranking import influence
from ht_bench.ranking.estimate import NO_GAP
from ht_bench.ranking.estimate import Estimate as Estimate
from ht_bench.ranking.influence import LEVEL, TIE, Statistic
from ht_bench.ranking.influence import Array as Array
from ht_bench.ranking.influence import interquartile_mean as interquartile_mean

DRAWS = 10_000
BOOTSTRAP_SEED = 0
Values = Mapping[str, ArrayLike]
"""Task name → one number per seed."""


@dataclass(frozen=True, eq=False)
class SuiteScore:
    """A method on the tasks of a suite.

    gap_closed: the score, the interquartile mean over all (task, seed) values, so that no task can
    swamp it; of one task, the ratio of interquartile means. mean_of_tasks: the mean over tasks of
    each one's gap closed, benchmark 0.1's score. error_reduction: against none, averaged over
    tasks; None where the metric is no accuracy. without_gap: the tasks where full-reset is not
    surely above none on these seeds; what is printed is `shown`. least_gap: the smallest of the
    tasks' gaps in its standard errors. statistic: the score with every run's influence, to be
    paired with any other method's on the same tasks and seeds.
    """

    tasks: tuple[str, ...]
    gap_closed: Estimate
    mean_of_tasks: Estimate
    error_reduction: Estimate | None
    statistic: Statistic
    without_gap: tuple[str, ...] = ()
    least_gap: float = math.inf

    def shown(self, estimate: Estimate) -> Estimate:
        """Return a gap closed as it may be shown: NO_GAP where some task has none for sure."""
        return NO_GAP if self.without_gap else estimate


def gap_closed(
    method: ArrayLike,
    warm: ArrayLike,
    fresh: ArrayLike,
    statistic: Callable[..., Array] = interquartile_mean,
) -> Array:
    """Return (A_method − A_warm) / (A_fresh − A_warm), A being `statistic` over the last axis.

    0: as `none`; 1: as `full-reset`. Never clipped; without a gap between
    the anchors the result is infinite, or nan when the method does not differ either.
    """
    return _ratio(*(statistic(np.asarray(x, np.float64), axis=-1) for x in (method, warm, fresh)))


def interval(draws: ArrayLike, level: float = LEVEL) -> tuple[float, float]:
    """Return the percentile interval of bootstrap `draws` [draws].

    Its ends are draws themselves (the next one outward), so infinite draws spoil no others.
    An undefined draw (nan) could lie anywhere and counts against both ends.
    """
    values = np.asarray(draws, dtype=np.float64)
    undefined = np.isnan(values)
    rank = _outside(values.size, level)
    low = np.partition(np.where(undefined, -np.inf, values), rank)[rank]
    high = np.partition(np.where(undefined, np.inf, values), values.size - 1 - rank)
    return float(low), float(high[values.size - 1 - rank])


def _outside(draws: int, level: float) -> int:
    """Return how many draws lie below an interval's lower end."""
    return math.floor((1 - level) / 2 * (draws - 1))


def suite_score(
    method: Values, warm: Values, fresh: Values, *, accuracies: bool = True
) -> SuiteScore:
    """Score a method on the tasks of a suite; each mapping holds the same tasks and seeds.

    accuracies: whether the numbers are, and have errors. Raises UsageError naming the task where
    tasks or numbers of seeds differ. With two seeds or one the intervals are infinite.
    """
    tasks = _same_tasks(method, warm, fresh)
    arrays = [_paired(task, method[task], warm[task], fresh[task]) for task in tasks]
    own, starts, ends = ([three[k] for three in arrays] for k in range(3))
    total = influence.of_gap_closed(own, starts, ends)
    each = [influence.of_gap_closed([m], [w], [f]) for m, w, f in arrays]
    errors = [influence.of_error_reduction(m, w) for m, w, _ in arrays] if accuracies else []
    gaps = {task: paired_interval(f, w) for task, (_, w, f) in zip(tasks, arrays, strict=True)}
    return SuiteScore(
        tasks,
        total.estimate(),
        influence.mean_of(each).estimate(),
        influence.mean_of(errors).estimate() if errors else None,
        total,
        tuple(task for task, gap in gaps.items() if not gap.low > 0),
        min(gap_in_errors(w, f) for _, w, f in arrays),
    )


def gap_in_errors(warm: ArrayLike, fresh: ArrayLike) -> float:
    """Return the mean of fresh − warm over seeds in its standard errors; 0 of a lone seed."""
    difference = np.subtract(fresh, warm)
    if difference.size < 2:
        return 0.0
    error = float(difference.std(ddof=1)) / math.sqrt(difference.size)
    mean = float(difference.mean())
    return mean / error if error else math.copysign(math.inf, mean) if mean else 0.0


def probability_of_improvement(x: ArrayLike | Values, y: ArrayLike | Values) -> Estimate:
    """Share of seeds at which x lies above y, ties counting half; averaged over tasks if mapped.

    Its interval is Wilson's (1927) for a share of as many trials as would have the variance of the
    tasks' mean: of all seeds, where every task has as many.
    """
    first, second = _by_task(x), _by_task(y)
    shares, seeds = [], []
    for task in _same_tasks(first, second):
        a, b = _paired(task, first[task], second[task])
        wins = (a > b + TIE) + 0.5 * (np.abs(a - b) <= TIE)
        shares.append(wins.mean())
        seeds.append(len(wins))
    trials = len(seeds) ** 2 / sum(1 / n for n in seeds)
    return _wilson(float(np.mean(shares)), trials)


def _wilson(share: float, trials: float) -> Estimate:
    z = float(ndtri((1 + LEVEL) / 2))
    centre = share + z**2 / (2 * trials)
    width = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    low, high = ((centre + side) / (1 + z**2 / trials) for side in (-width, width))
    return Estimate(share, max(low, 0.0), min(high, 1.0))


def performance_profile(values: ArrayLike | Values, thresholds: ArrayLike) -> Array:
    """Share of runs that score above each threshold [thresholds], every task weighing the same."""
    tau = np.asarray(thresholds, dtype=np.float64)
    parts = [
        (np.ravel(np.asarray(x, np.float64))[:, None] > tau).mean(axis=0)
        for x in _by_task(values).values()
    ]
    return np.asarray(np.mean(parts, axis=0))


def seed_scores(method: ArrayLike, warm: ArrayLike, fresh: ArrayLike) -> Array:
    """Gap closed of each seed of a method, [seeds], against the anchors' interquartile means."""
    return _ratio(
        np.asarray(method, np.float64), interquartile_mean(warm), interquartile_mean(fresh)
    )


def mean_interval(*samples: ArrayLike) -> tuple[Array, Array, Array]:
    """Return the mean of samples' means over seeds, and the ends of its 95 % interval.

    samples: arrays [seeds, …], one per task, of independent seeds; the results have the shape of
    what follows the seeds. The interval is Student's, for several samples with the degrees of
    freedom of Welch (1947); a lone seed leaves it unbounded.
    """
    arrays = [np.asarray(x, dtype=np.float64) for x in samples]
    mean = np.mean([x.mean(axis=0) for x in arrays], axis=0)
    if min(map(len, arrays)) < 2:
        return mean, np.full_like(mean, -np.inf), np.full_like(mean, np.inf)
    squares = np.array([x.var(axis=0, ddof=1) / len(x) for x in arrays])
    weights = np.array([np.full(x.shape[1:], 1 / (len(x) - 1)) for x in arrays])
    total = squares.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0: equal numbers, no width
        freedom = total**2 / (weights * squares**2).sum(axis=0)
    t = stdtrit(np.where(total > 0, freedom, 1.0), (1 + LEVEL) / 2)
    width = t * np.sqrt(total) / len(arrays)
    return mean, mean - width, mean + width


def mean_estimate(*samples: ArrayLike) -> Estimate:
    """Return `mean_interval` of samples [seeds] as an Estimate."""
    return Estimate(*map(float, mean_interval(*samples)))


def paired_interval(x: ArrayLike, y: ArrayLike) -> Estimate:
    """Mean of x − y over seeds with its 95 % interval."""
    a, b = _paired("", x, y)
    return mean_estimate(a - b)


def _ratio(method: Array, warm: Array, fresh: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((np.asarray(method) - warm) / (np.asarray(fresh) - warm))


def _vector(values: ArrayLike, task: str) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size:
        raise UsageError(
            f"The values of {_place(task)} have shape {array.shape}; give one number per seed."
        )
    return array


def _paired(task: str, *values: ArrayLike) -> list[Array]:
    arrays = [_vector(x, task) for x in values]
    sizes = {x.size for x in arrays}
    if len(sizes) > 1:
        raise UsageError(
            f"The values of {_place(task)} hold {' and '.join(map(str, sorted(sizes)))} seeds; "
            "a paired comparison needs the same seeds on both sides."
        )
    return arrays


def _place(task: str) -> str:
    return f"task '{task}'" if task else "a comparison"


def _by_task(values: ArrayLike | Values) -> Values:
    return values if isinstance(values, Mapping) else {"": values}


def _same_tasks(first: Values, *others: Values) -> tuple[str, ...]:
    for other in others:
        for task in first.keys() ^ other.keys():
            raise UsageError(f"Task '{task}' is on one side only; leave it out or run it for all.")
    if not first:
        raise UsageError("There is no task to score; name at least one.")
    return tuple(sorted(first))
