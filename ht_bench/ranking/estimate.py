"""A number with its 95 % interval."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its 95 % interval; infinite ends: the data do not bound it.

    All three are nan (NO_GAP) for a gap closed without a gap.
    """

    value: float
    low: float
    high: float


NO_GAP = Estimate(math.nan, math.nan, math.nan)
