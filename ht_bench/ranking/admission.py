"""Whether a task has a gap that is sure and large enough to be closed (PROTOCOL, "Admission")."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike

from ht_bench.ranking.estimate import Estimate
from ht_bench.ranking.score import gap_in_errors, interquartile_mean, paired_interval

LEAST_ACCURACY = 0.03
LEAST_SHARE_OF_RETURN = 0.2
STANDARD_ERRORS = 4.0


@dataclass(frozen=True)
class Admission:
    """Whether a stream has a gap to close: mean paired A_fresh − A_warm with its 95 % interval.

    standard_errors: the gap in its standard errors; minimum: what it must be at least.
    """

    gap: Estimate
    standard_errors: float
    minimum: float
    passes: bool

    @property
    def verdict(self) -> str:
        """Say in words whether there is a gap, and whether it is what a suite asks for."""
        if not self.gap.low > 0:
            return "no sure gap to close"
        return "a gap to close" if self.passes else "a sure gap, smaller than a suite asks for"


def admission(warm: ArrayLike, fresh: ArrayLike, minimum: float = LEAST_ACCURACY) -> Admission:
    """Say whether fresh − warm is at least `minimum` and STANDARD_ERRORS of its standard errors.

    The minimum is a difference of accuracies, or `least_gap` for returns.
    """
    gap, errors = paired_interval(fresh, warm), gap_in_errors(warm, fresh)
    passes = gap.low > 0 and gap.value >= minimum and errors >= STANDARD_ERRORS
    return Admission(gap, errors, minimum, passes)


def least_gap(fresh: ArrayLike, random: float | None) -> float:
    """Return the mean gap that admission asks for (PROTOCOL): an accuracy's without `random`.

    random: a uniform policy's return; then it is a share of A_fresh − A_random.
    """
    if random is None:
        return LEAST_ACCURACY
    return LEAST_SHARE_OF_RETURN * (float(interquartile_mean(fresh)) - random)
