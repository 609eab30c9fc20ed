"""Rank correlation, also within strata, with intervals from resampled methods and seeds. NumPy.

Spearman's ρ: Pearson's correlation of midranks. Within strata, ranks are taken in each stratum,
centred and scaled to its size, and strata are pooled: what differs between them plays no part.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ht_bench.ranking.estimate import Estimate
from ht_bench.ranking.score import BOOTSTRAP_SEED, DRAWS, Array, interval

CHUNK = 500_000
"""Numbers of a table of weights that are worked on at a time."""
Integers = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]


def spearman(x: Array, y: Array, strata: Integers) -> float:
    """Return the rank correlation of x and y [rows] within strata; nan where one is constant."""
    weights = np.ones((len(x), 1))
    return float(_correlations(_midranks(x, strata, weights), y, strata, weights)[0])


def spearman_estimates(
    x: Sequence[Array],
    y: Array,
    strata: Integers,
    clusters: tuple[Integers, Integers],
    name: str = "",
) -> list[Estimate]:
    """Return each x's rank correlation with y within strata, with its 95 % bootstrap interval.

    clusters: two partitions of the rows, methods and seeds; each draw resamples the members of
    both, and a row counts as often as the product says (Owen 2007, the pigeonhole bootstrap), so
    that rows of one method or one seed, which are not independent, move together. Draws depend on
    `name` and the numbers of members alone. A draw in which nothing can be correlated could be
    anything from −1 to 1, and so could all of them with one seed.
    """
    values = [spearman(each, y, strata) for each in x]
    draws: list[list[Array]] = [[] for _ in x]
    for weights in _weights(clusters, name):
        along = _midranks(y, strata, weights)
        for kept, each, value in zip(draws, x, values, strict=True):
            if not np.isnan(value):
                kept.append(_correlations(along, each, strata, weights))
    uncertain = len(np.unique(clusters[1])) < 2
    return [_estimate(v, kept, uncertain) for v, kept in zip(values, draws, strict=True)]


def _estimate(value: float, draws: Sequence[Array], uncertain: bool) -> Estimate:
    if np.isnan(value):
        return Estimate(value, value, value)
    if uncertain:
        return Estimate(value, -1.0, 1.0)
    low, high = interval(np.concatenate(draws))
    return Estimate(value, max(low, -1.0), min(high, 1.0))


def _weights(clusters: tuple[Integers, Integers], name: str) -> Iterator[Floats]:
    """Yield tables [rows, draws] of how often each row is drawn, DRAWS in all.

    In single precision, which holds such counts and their sums exactly.
    """
    generator = np.random.default_rng([BOOTSTRAP_SEED, zlib.crc32(name.encode())])
    members = [np.unique(cluster, return_inverse=True)[1] for cluster in clusters]
    counts = []
    for index in members:
        size = int(index.max()) + 1
        drawn = generator.multinomial(size, np.full(size, 1 / size), DRAWS)
        counts.append(np.ascontiguousarray(drawn.T, dtype=np.float32))
    step = max(1, CHUNK // len(members[0]))
    for start in range(0, DRAWS, step):
        draws = slice(start, start + step)
        parts = [c[:, draws][m] for c, m in zip(counts, members, strict=True)]
        yield parts[0] * parts[1]


def _correlations(along: Floats, x: Array, strata: Integers, weights: Floats) -> Array:
    """Return one correlation per draw, [draws], of x [rows] and of ranks [rows, draws]."""
    across = _midranks(x, strata, weights)
    both = np.einsum("rd,rd,rd->d", weights, across, along)
    size = np.einsum("rd,rd,rd->d", weights, across, across)
    size = size * np.einsum("rd,rd,rd->d", weights, along, along)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(size > 1e-12, both / np.sqrt(size), np.nan).astype(np.float64)


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


def _midranks(values: Array, strata: Integers, weights: Floats) -> Floats:
    """Return weighted midranks less their mean, as shares of their stratum: [rows, draws]."""
    order = _order(values, strata)
    groups = np.add.reduceat(weights[order.rows], order.group_starts, axis=0)
    sizes = np.add.reduceat(groups, order.stratum_starts, axis=0)[order.stratum_of_group]
    below = np.cumsum(groups, axis=0) - groups
    below -= below[order.stratum_starts][order.stratum_of_group]
    with np.errstate(invalid="ignore", divide="ignore"):
        middle = np.where(sizes > 0, (below + groups / 2) / sizes - 0.5, 0)
    ranks = np.empty_like(weights)
    ranks[order.rows] = middle[order.group_of]
    return ranks
