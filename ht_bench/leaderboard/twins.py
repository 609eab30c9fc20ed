"""Rounding twins: how far may an honest run lie from the same run trained on another machine?

Rounding differs between processors and grows while a network trains, so the verifier measures it:
each drawn seed is trained again R times on its own machine, once as it is and otherwise from
weights disturbed in their last bit. For an honest submission the claimed run is one more draw of
the same rounding. Two things are asked of every quantity, Student's t giving what noise explains:

- *size*: no seed lies further from its reruns than the reruns of all seeds lie from one another;
- *bias*: neither does the sum over seeds. It has 1/sqrt(K) of a seed's noise, so that a small
  boost of every seed shows, and curves of other seeds than they are said to be.

The tests of one task share its error rate equally (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from ht_bench.ranking.score import Array

ERROR_RATE = 0.01
"""How often an honest submission is refused, over all its tasks."""
FEWEST_SEEDS = 5
POWER = 0.9


@dataclass(frozen=True, eq=False)
class Quantity:
    """A number read off a run. claimed: [K]; again: [K, R], of each seed's R >= 2 reruns.

    resolution: the least step it can take, below which no noise is measured. scored: whether the
    task is scored by it. distance: whether it is one, of which the larger side alone is tested.
    """

    name: str
    claimed: Array
    again: Array
    resolution: float
    scored: bool = False
    distance: bool = False


@dataclass(frozen=True)
class Power:
    """The boosts of the final metric that are caught with probability POWER.

    every_seed: of all drawn seeds alike. one_seed: of one seed, if it is drawn.
    """

    every_seed: float
    one_seed: float


@dataclass(frozen=True)
class Excess:
    """A quantity beyond its noise. index: of the seed; None for the sum over seeds."""

    name: str
    index: int | None
    difference: float
    allowed: float


def distances(claimed: Array, again: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return the mean and the largest distance of curves, each as (claimed [K], again [K, pairs]).

    claimed: [K, points]; again: [K, R, points]. A claim's distance is that to its reruns on
    average; the reruns' are those of their pairs.
    """
    runs = again.shape[1]
    pairs = [(i, j) for i in range(runs) for j in range(i)]
    apart = np.abs(claimed[:, None] - again)
    among = np.stack([np.abs(again[:, i] - again[:, j]) for i, j in pairs], axis=1)
    return (
        (apart.mean(axis=2).mean(axis=1), among.mean(axis=2)),
        (apart.max(axis=2).mean(axis=1), among.max(axis=2)),
    )


def excesses(quantities: Sequence[Quantity], error_rate: float) -> Iterator[Excess]:
    """Yield what the noise of the reruns does not explain, at `error_rate` over all quantities."""
    rate = error_rate / count_tests(quantities)
    for quantity in quantities:
        difference, spread, freedom = _noise(quantity)
        seeds = len(difference)
        allowed = spread * _quantile(freedom, rate / seeds, two_sided=not quantity.distance)
        for index in np.flatnonzero(np.abs(difference) > allowed):
            yield Excess(quantity.name, int(index), float(difference[index]), float(allowed))
        mean, allowed = _sum_over_seeds(quantity, rate)
        if abs(mean) > allowed:
            yield Excess(quantity.name, None, mean, allowed)


def power(quantities: Sequence[Quantity], error_rate: float) -> Power:
    """Return what boost of the scored quantity its two tests catch."""
    [scored] = [quantity for quantity in quantities if quantity.scored]
    rate = error_rate / count_tests(quantities)
    difference, spread, freedom = _noise(scored)
    seeds = len(difference)
    beyond = float(ndtri(POWER))
    every = _quantile(freedom, rate, two_sided=True) + beyond
    one = _quantile(freedom, rate / seeds, two_sided=True) + beyond
    return Power(float(spread * every / np.sqrt(seeds)), float(spread * one))


def count_tests(quantities: Sequence[Quantity]) -> int:
    """Return how many tests share the error rate: size and bias of each quantity."""
    return 2 * len(quantities)


def _sum_over_seeds(quantity: Quantity, rate: float) -> tuple[float, float]:
    """Return (the mean over seeds, what an honest one may be)."""
    difference, spread, freedom = _noise(quantity)
    seeds = len(difference)
    if not quantity.distance:
        quantile = _quantile(freedom, rate, two_sided=True)
        return float(difference.mean()), float(spread / np.sqrt(seeds) * quantile)
    among = quantity.again.mean(axis=1)
    variance = float(among.var(ddof=1)) + quantity.resolution**2
    quantile = _quantile(seeds - 1, rate, two_sided=False)
    allowed = among.mean() + quantile * np.sqrt(2 * variance / seeds)
    return float(difference.mean()), float(allowed)


def _noise(quantity: Quantity) -> tuple[Array, float, int]:
    """Return (each seed's difference [K], the spread of an honest one, degrees of freedom)."""
    again = quantity.again
    seeds, runs = again.shape
    if quantity.distance:
        spread = np.sqrt(np.mean(again**2) + quantity.resolution**2)
        return quantity.claimed, float(spread), seeds * (runs - 1) if runs > 2 else seeds
    freedom = seeds * (runs - 1)
    variance = float(((again - again.mean(axis=1, keepdims=True)) ** 2).sum() / freedom)
    spread = np.sqrt((variance + quantity.resolution**2) * (1 + 1 / runs))
    return quantity.claimed - again.mean(axis=1), float(spread), freedom


def _quantile(freedom: int, rate: float, *, two_sided: bool) -> float:
    return float(stdtrit(freedom, 1 - rate / (2 if two_sided else 1)))
