"""Unit-level symptoms of the given network beside those of fresh twins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor, nn

from ht_bench.diagnosis.report import Symptom
from ht_bench.networks.diagnostics import symptoms as unit_symptoms
from ht_bench.networks.stacking import is_stacked

MOST = 1_000
"""Training examples on which units are looked at."""


def measured(module: nn.Module, inputs: Tensor) -> dict[str, float]:
    """Return each symptom by name, on training inputs [N, …]; nan is what cannot be seen."""
    few = inputs[:MOST]
    found = unit_symptoms(module, few[None] if is_stacked(module) else few)
    squares = torch.stack([p.detach().double().square().sum() for p in module.parameters()])
    values = {key.rpartition("/")[2].replace("_", " "): float(v[0]) for key, v in found.items()}
    values["weight norm"] = float(squares.sum().sqrt())
    return values


def compared(given: dict[str, float], fresh: Sequence[dict[str, float]]) -> tuple[Symptom, ...]:
    """Set each symptom of the given network beside those of its fresh twins, the worst first.

    What cannot be seen in the fresh twins is left out.
    """
    rows = []
    for name, value in given.items():
        values = np.array([each[name] for each in fresh])
        if not np.isfinite(values).all():
            continue
        mean, count = float(values.mean()), len(values)
        # Rounding aside, equal fresh values leave an interval of no width.
        spread = float(values.std(ddof=1)) if count > 1 else float("inf")
        width = float(stdtrit(max(count - 1, 1), 0.975)) * spread * (1 + 1 / count) ** 0.5
        low, high = mean - width, mean + width
        tiny = 1e-6 * max(1.0, abs(mean))
        is_worse = value < low - tiny if "rank" in name else value > high + tiny
        rows.append(Symptom(name, value, mean, low, high, is_worse or not np.isfinite(value)))
    return tuple(sorted(rows, key=lambda row: not row.is_worse))
