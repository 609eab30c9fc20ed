"""Rank correlation, also within strata, with intervals from resampled methods and seeds. NumPy.

Spearman's ρ: Pearson's correlation of midranks. Within strata, ranks are taken in each stratum,
centred and scaled to its size, and strata are pooled: what differs between them plays no part.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ht_bench.ranking.estimate import Estimate
from ht_bench.ranking.score import BOOTSTRAP_SEED, DRAWS, Array, interval

CHUNK = 2_000_000
"""Numbers of a table of weights that are worked on at a time."""
Integers = NDArray[np.integer[Any]]


def spearman(x: Array, y: Array, strata: Integers) -> float:
    """Return the rank correlation of x and y [rows] within strata; nan where one is constant."""
    return float(_correlations(x, y, strata, np.ones((1, len(x))))[0])


def spearman_estimate(
    x: Array, y: Array, strata: Integers, clusters: tuple[Integers, Integers], name: str
) -> Estimate:
    """Return the rank correlation within strata and its 95 % bootstrap interval.

    clusters: two partitions of the rows, methods and seeds; each draw resamples the members of
    both, and a row counts as often as the product says (Owen 2007, the pigeonhole bootstrap), so
    that rows of one method or one seed, which are not independent, move together. Draws depend on
    `name` and the numbers of members alone. A draw in which nothing can be correlated could be
    anything from −1 to 1, and so could all of them with one seed.
    """
    value = spearman(x, y, strata)
    if np.isnan(value):
        return Estimate(value, value, value)
    if len(np.unique(clusters[1])) < 2:
        return Estimate(value, -1.0, 1.0)
    draws = [_correlations(x, y, strata, weights) for weights in _weights(clusters, name)]
    low, high = interval(np.concatenate(draws))
    return Estimate(value, max(low, -1.0), min(high, 1.0))


def _weights(clusters: tuple[Integers, Integers], name: str) -> Iterator[Array]:
    """Yield tables [draws, rows] of how often each row is drawn, DRAWS in all."""
    rows = len(clusters[0])
    generator = np.random.default_rng([BOOTSTRAP_SEED, zlib.crc32(name.encode())])
    members = [np.unique(cluster, return_inverse=True)[1] for cluster in clusters]
    counts = []
    for index in members:
        size = int(index.max()) + 1
        counts.append(generator.multinomial(size, np.full(size, 1 / size), DRAWS))
    step = max(1, CHUNK // max(rows, 1))
    for start in range(0, DRAWS, step):
        parts = [c[start : start + step][:, m] for c, m in zip(counts, members, strict=True)]
        yield (parts[0] * parts[1]).astype(np.float64)


def _correlations(x: Array, y: Array, strata: Integers, weights: Array) -> Array:
    """Return one correlation for each row of weights [draws, rows], [draws]."""
    across, along = (_midranks(values, strata, weights) for values in (x, y))
    both = (weights * across * along).sum(1)
    size = (weights * across**2).sum(1) * (weights * along**2).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(size > 1e-20, both / np.sqrt(size), np.nan)


@dataclass(frozen=True)
class _Order:
    """Rows sorted by stratum and value; groups are ties, strata begin at some of the groups."""

    rows: NDArray[np.intp]
    group_starts: NDArray[np.intp]
    group_of: NDArray[np.intp]
    stratum_starts: NDArray[np.intp]
    stratum_of_group: NDArray[np.intp]


def _order(values: Array, strata: Integers) -> _Order:
    rows = np.lexsort((values, strata))
    level, number = strata[rows], values[rows]
    new_stratum = np.append(True, level[1:] != level[:-1])
    new_group = new_stratum | np.append(True, number[1:] != number[:-1])
    group_of = np.cumsum(new_group) - 1
    starts = np.flatnonzero(new_group)
    begins = new_stratum[starts]
    return _Order(rows, starts, group_of, np.flatnonzero(begins), np.cumsum(begins) - 1)


def _midranks(values: Array, strata: Integers, weights: Array) -> Array:
    """Return weighted midranks less their mean, as shares of their stratum: [draws, rows]."""
    order = _order(values, strata)
    groups = np.add.reduceat(weights[:, order.rows], order.group_starts, axis=1)
    sizes = np.add.reduceat(groups, order.stratum_starts, axis=1)[:, order.stratum_of_group]
    below = np.cumsum(groups, axis=1) - groups
    below -= below[:, order.stratum_starts][:, order.stratum_of_group]
    with np.errstate(invalid="ignore", divide="ignore"):
        middle = np.where(sizes > 0, (below + groups / 2) / sizes - 0.5, 0.0)
    ranks = np.empty_like(weights)
    ranks[:, order.rows] = middle[:, order.group_of]
    return ranks
