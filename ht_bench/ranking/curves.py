"""Mean learning curves over seeds, with the 95 % interval of the mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ht_bench.errors import UsageError
from ht_bench.ranking.score import Array, mean_interval
from ht_bench.records import metrics
from ht_bench.records.metrics import Record


@dataclass(frozen=True, eq=False)
class MeanCurve:
    """One curve's mean over a method's finished runs, [points]; nan where nothing was measured.

    low, high: the ends of its 95 % interval (`score.mean_interval`); of a lone run, the mean.
    ends: the index of each phase's last point. n: finished runs; diverged ones are left out.
    """

    steps: NDArray[np.int64]
    ends: NDArray[np.intp]
    mean: Array
    low: Array
    high: Array
    n: int
    diverged: int


def mean_curve(records: Sequence[Record], key: str, table: str = "curve") -> MeanCurve | None:
    """Average curve `key` over finished runs; None where none of them has it.

    table: "curve" or "diagnostics". Raises UsageError, naming both runs, where two of them have
    points at different steps.
    """
    finished = [r for r in records if not metrics.is_diverged(r)]
    runs = [r for r in finished if key in r[table]]
    if not runs:
        return None
    first = runs[0]
    for run in runs:
        if run[table]["step"] != first[table]["step"]:
            raise UsageError(
                f"The steps of {metrics.describe(run)} differ from those of "
                f"{metrics.describe(first)}; draw them apart."
            )
    values = np.array([run[table][key] for run in runs], dtype=np.float64)
    mean, low, high = mean_interval(values)
    if len(runs) < 2:
        low = high = mean
    steps = np.asarray(first[table]["step"], dtype=np.int64)
    ends = metrics.phase_ends(first[table]["phase"])
    return MeanCurve(steps, ends, mean, low, high, len(runs), len(records) - len(finished))
