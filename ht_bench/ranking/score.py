"""Scores from per-seed numbers: gap closed, ranks, and every 95 % interval. NumPy, SciPy's t.

Means over seeds have Student's interval (`mean_interval`); gap closed, a ratio of interquartile
means, has the bootstrap's.

Arrays hold one number per seed on their last axis, in the same order of seeds everywhere, so that
seed k of a method, of the warm anchor and of the fresh anchor stand at one index: comparisons are
paired. A bootstrap draw resamples the seeds within every task with indices that depend on the
task's name and number of seeds alone, so all methods and anchors are recomputed on the same draw
(stratified percentile bootstrap, Agarwal et al. 2021, 2108.13264).
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from ht_bench.errors import UsageError
from ht_bench.ranking.estimate import NO_GAP
from ht_bench.ranking.estimate import Estimate as Estimate

DRAWS = 10_000
BOOTSTRAP_SEED = 0
LEVEL = 0.95
TIE = 1e-9
"""Numbers this near are equal: frozen anchors are written with ten decimals, runs with all."""

Array = NDArray[np.float64]
Values = Mapping[str, ArrayLike]
"""Task name → one number per seed."""


@dataclass(frozen=True, eq=False)
class SuiteScore:
    """Gap closed, averaged over tasks, by three statistics over seeds.

    `gap_closed` (interquartile means) is the score; the other two stand beside it.
    `denominator_crosses_zero` is the share of draws in which some task's A_fresh − A_warm is not
    above zero: there the ratio means nothing, and the interval, never clipped, may explode.
    `without_gap` names the tasks where full-reset is not surely above none on these seeds (the
    paired 95 % interval of their difference): what is printed is `shown`.
    `draws` [DRAWS] are the bootstrap values of `gap_closed`, comparable draw by draw with any
    other method's on the same tasks and seeds.
    """

    tasks: tuple[str, ...]
    gap_closed: Estimate
    by_mean: Estimate
    by_median: Estimate
    denominator_crosses_zero: float
    draws: Array
    without_gap: tuple[str, ...] = ()

    def shown(self, estimate: Estimate) -> Estimate:
        """Return a gap closed as it may be shown: NO_GAP where some task has none for sure."""
        return NO_GAP if self.without_gap else estimate


def interquartile_mean(x: ArrayLike, axis: int = -1) -> Array:
    """Mean of what is left along `axis` after floor(n / 4) values are dropped at each end."""
    values = np.sort(np.asarray(x, dtype=np.float64), axis=axis)
    return _trimmed(np.moveaxis(values, axis, -1), values.shape[axis] // 4)


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


@functools.lru_cache(maxsize=32)
def seed_indices(task: str, seeds: int) -> NDArray[np.intp]:
    """Return the bootstrap's table of indices [DRAWS, seeds] for a task of that many seeds.

    It depends on nothing else, so every method, anchor and suite uses the same resamples.
    """
    generator = np.random.default_rng([BOOTSTRAP_SEED, zlib.crc32(task.encode())])
    indices = generator.integers(seeds, size=(DRAWS, seeds))
    indices.setflags(write=False)
    return indices


def bootstrap(values: ArrayLike, task: str) -> Array:
    """Return the interquartile mean of `values` [seeds] per draw, [DRAWS]; nan for one seed."""
    return _drawn(_vector(values, task).tobytes(), task)["iqm"]


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


def suite_score(method: Values, warm: Values, fresh: Values) -> SuiteScore:
    """Score a method on the tasks of a suite; each mapping holds the same tasks and seeds.

    Raises UsageError naming the task where tasks or numbers of seeds differ. With one seed the
    intervals are infinite: nothing can be resampled.
    """
    tasks = _same_tasks(method, warm, fresh)
    points: dict[str, list[Array]] = {}
    draws: dict[str, list[Array]] = {}
    no_gap = np.zeros(DRAWS, dtype=bool)
    without = []
    for task in tasks:
        arrays = _paired(task, method[task], warm[task], fresh[task])
        exact = [_statistics(np.sort(x)) for x in arrays]
        drawn = [_drawn(x.tobytes(), task) for x in arrays]
        if not mean_estimate(arrays[2] - arrays[1]).low > 0:
            without.append(task)
        no_gap |= drawn[2]["iqm"] - drawn[1]["iqm"] <= 0
        for name in ("iqm", "mean", "median"):
            points.setdefault(name, []).append(_ratio(*(x[name] for x in exact)))
            draws.setdefault(name, []).append(_ratio(*(x[name] for x in drawn)))
    mean_draws = {name: _mean_over_tasks(parts) for name, parts in draws.items()}
    estimates = {
        name: Estimate(float(_mean_over_tasks(points[name])), *interval(mean_draws[name]))
        for name in points
    }
    share = float(np.mean(no_gap))
    three = estimates["iqm"], estimates["mean"], estimates["median"]
    return SuiteScore(tasks, *three, share, mean_draws["iqm"], tuple(without))


def probability_of_improvement(x: ArrayLike | Values, y: ArrayLike | Values) -> Estimate:
    """Share of seeds at which x lies above y, ties counting half; averaged over tasks if mapped."""
    first, second = _by_task(x), _by_task(y)
    points, draws = [], []
    for task in _same_tasks(first, second):
        a, b = _paired(task, first[task], second[task])
        wins = (a > b + TIE) + 0.5 * (np.abs(a - b) <= TIE)
        points.append(wins.mean())
        draws.append(_mean_draws(wins, task))
    return Estimate(float(np.mean(points)), *interval(_mean_over_tasks(draws)))


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


def ranks(draws: Mapping[str, ArrayLike]) -> dict[str, int]:
    """Rank entries by their bootstrap draws, which must come from the same resamples.

    Rank = 1 + the number of entries whose paired-difference interval over this one lies wholly
    above zero; entries that cannot be told apart share a rank.
    """
    arrays = {label: np.asarray(values, dtype=np.float64) for label, values in draws.items()}
    return {
        label: 1 + sum(_above(other, own) for name, other in arrays.items() if name != label)
        for label, own in arrays.items()
    }


def _above(x: Array, y: Array) -> bool:
    """Whether interval(x − y) lies above zero, found without its ends: there are many pairs."""
    with np.errstate(invalid="ignore"):  # inf − inf is undefined and counts against x
        higher = np.count_nonzero(x - y > 0)
    return bool(x.size - higher <= _outside(x.size, LEVEL))


def _ratio(method: Array, warm: Array, fresh: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((np.asarray(method) - warm) / (np.asarray(fresh) - warm))


def _mean_over_tasks(parts: Sequence[ArrayLike]) -> Array:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.mean(np.asarray(parts, dtype=np.float64), axis=0))


def _trimmed(ordered: Array, cut: int) -> Array:
    return np.asarray(ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1))


def _statistics(ordered: Array) -> dict[str, Array]:
    # All three are trimmed means, so one sort of the resamples serves them.
    n = ordered.shape[-1]
    cuts = {"iqm": n // 4, "mean": 0, "median": (n - 1) // 2}
    return {name: _trimmed(ordered, cut) for name, cut in cuts.items()}


@functools.lru_cache(maxsize=64)
def _drawn(values: bytes, task: str) -> dict[str, Array]:
    # Cached because the anchors come back with every method that is scored against them.
    drawn = _statistics(_resampled(np.frombuffer(values), task))
    for draws in drawn.values():
        draws.setflags(write=False)
    return drawn


def _resampled(values: Array, task: str) -> Array:
    if values.size < 2:
        return np.full((DRAWS, 1), np.nan)
    return np.sort(values[seed_indices(task, values.size)], axis=-1)


def _mean_draws(halves: Array, task: str) -> Array:
    """Return the mean per draw, [DRAWS], of numbers that are whole halves, whose sums are exact."""
    if halves.size < 2:
        return np.full(DRAWS, np.nan)
    return np.asarray(_seed_counts(task, halves.size) @ halves / halves.size)


@functools.lru_cache(maxsize=32)
def _seed_counts(task: str, seeds: int) -> Array:
    """Return how often each draw has each seed, [DRAWS, seeds]."""
    flat = seed_indices(task, seeds) + seeds * np.arange(DRAWS)[:, None]
    counts = np.bincount(flat.ravel(), minlength=DRAWS * seeds).astype(np.float64)
    return counts.reshape(DRAWS, seeds)


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
