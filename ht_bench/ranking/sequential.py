"""Looking before all seeds are in: what a pair's p-value must be at each look. NumPy, SciPy.

A group-sequential test with the error spending of Lan and DeMets (1983) in the shape of O'Brien and
Fleming: early looks ask for much, and the last for little more than a test without looks would. The
boundaries are those of normal statistics; p-values of Student's t are held to the same nominal
levels (Jennison and Turnbull 2000, section 11.5). Pairs share the error equally (Bonferroni).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from ht_bench.ranking.influence import FAMILY_WISE, TIE, Statistic, p_value

NODES = 301


@dataclass(frozen=True)
class Verdict:
    """How an entry stands to another: "above" or "below" for sure, or "open".

    p_value: of the paired test; level: what it was held to at this look.
    """

    other: str
    standing: str
    difference: float
    p_value: float
    level: float


@functools.lru_cache(maxsize=64)
def nominal_levels(shares: tuple[float, ...], error: float = FAMILY_WISE) -> tuple[float, ...]:
    """Return the two-sided level of each look that together spend `error`.

    shares: of the seeds, rising, 1 for all of them.
    """
    levels: list[float] = []
    points, weights = np.zeros(1), np.ones(1)  # the statistic's law while no look has ended it
    before = spent = 0.0
    for share in shares:
        spend = _spending(share, error)
        sigma = float(np.sqrt(share - before))
        bound = _bound(points, weights, sigma, max(spend - spent, 1e-300))
        levels.append(2 * float(ndtr(-bound / np.sqrt(share))))
        points, weights = _next(points, weights, sigma, bound)
        before, spent = share, spend
    return tuple(levels)


def _spending(share: float, error: float) -> float:
    return 4 * float(ndtr(ndtri(error / 4) / np.sqrt(share)))


Array = NDArray[np.float64]


def _bound(points: Array, weights: Array, sigma: float, wanted: float) -> float:
    """Return the bound outside of which the next statistic lies with probability `wanted`."""

    def outside(bound: float) -> float:
        ends = ndtr((-bound - points) / sigma) + ndtr((points - bound) / sigma)
        return float(np.log(max(weights @ ends, 1e-320)) - np.log(wanted))

    return float(brentq(outside, 0.0, 40.0))


def _next(points: Array, weights: Array, sigma: float, bound: float) -> tuple[Array, Array]:
    nodes, measure = np.polynomial.legendre.leggauss(NODES)
    steps = (bound * nodes[:, None] - points[None, :]) / sigma
    density = np.exp(-(steps**2) / 2) / (sigma * np.sqrt(2 * np.pi))
    return bound * nodes, bound * measure * (density @ weights)


def looks(seeds: int, step: int) -> tuple[int, ...]:
    """Return the numbers of seeds at which is looked: every `step`, four times at most, and all."""
    step = max(step, -(-seeds // 4), 1)
    return tuple(dict.fromkeys([*range(step, seeds, step), seeds]))


def verdicts(
    entry: Statistic, others: Mapping[str, Statistic], seen: int, planned: Sequence[int], pairs: int
) -> list[Verdict]:
    """Return how an entry stands to each of others after `seen` seeds.

    planned: the looks. pairs: how many are tested in all, which share the family-wise error.
    """
    shares = tuple(look / planned[-1] for look in planned)
    level = nominal_levels(shares, FAMILY_WISE / max(pairs, 1))[list(planned).index(seen)]
    found = []
    for name, other in others.items():
        difference, p = entry.value - other.value, p_value(entry, other)
        sure = p <= level and abs(difference) > TIE
        standing = ("above" if difference > 0 else "below") if sure else "open"
        found.append(Verdict(name, standing, difference, p, level))
    return found
