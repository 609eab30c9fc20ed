"""Whether a task has a gap that is sure and large enough to be closed (PROTOCOL, "Admission")."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike

from ht_bench.ranking.estimate import Estimate
from ht_bench.ranking.score import interquartile_mean, paired_interval


@dataclass(frozen=True)
class Admission:
    """Whether a stream has a gap to close: mean paired A_fresh − A_warm with its 95 % interval."""

    gap: Estimate
    passes: bool


def admission(warm: ArrayLike, fresh: ArrayLike, minimum: float = 0.01) -> Admission:
    """Say whether fresh − warm is surely above zero and on average at least `minimum`.

    The minimum is a point of accuracy, or `least_gap` for returns.
    """
    gap = paired_interval(fresh, warm)
    return Admission(gap, gap.low > 0 and gap.value >= minimum)


def least_gap(fresh: ArrayLike, random: float | None) -> float:
    """Return the mean gap that admission asks for (PROTOCOL): 0.01 of accuracy without `random`.

    random: a uniform policy's return; then it is 10 % of A_fresh − A_random.
    """
    if random is None:
        return 0.01
    return 0.1 * (float(interquartile_mean(fresh)) - random)
