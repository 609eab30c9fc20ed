"""Unit-level symptoms of the given network beside those of fresh twins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor, nn

from ht_bench.diagnosis.report import Symptom
from ht_bench.networks.diagnostics import ACTIVATIONS, dormant_fraction
from ht_bench.networks.modes import evaluation_mode
from ht_bench.networks.stacking import is_stacked

MOST = 1_000
"""Training examples on which units are looked at."""


def measured(module: nn.Module, inputs: Tensor) -> dict[str, float]:
    """Return each symptom by name, on training inputs [N, …]; the module is left as it was."""
    few = inputs[:MOST]
    found = unit_symptoms(module, few[None] if is_stacked(module) else few)
    squares = torch.stack([p.detach().double().square().sum() for p in module.parameters()])
    return {
        **{key.rpartition("/")[2].replace("_", " "): float(v[0]) for key, v in found.items()},
        "weight norm": float(squares.sum().sqrt()),
    }


def compared(given: dict[str, float], fresh: Sequence[dict[str, float]]) -> tuple[Symptom, ...]:
    """Set each symptom of the given network beside those of its fresh twins."""
    rows = []
    for name, value in given.items():
        values = np.array([each[name] for each in fresh])
        mean, count = float(values.mean()), len(values)
        # Rounding aside, equal fresh values leave an interval of no width.
        spread = float(values.std(ddof=1)) if count > 1 else float("inf")
        width = float(stdtrit(max(count - 1, 1), 0.975)) * spread * (1 + 1 / count) ** 0.5
        low, high = mean - width, mean + width
        tiny = 1e-6 * max(1.0, abs(mean))
        is_worse = value < low - tiny if "rank" in name else value > high + tiny
        rows.append(Symptom(name, value, mean, low, high, is_worse or not np.isfinite(value)))
    return tuple(rows)


def unit_symptoms(module: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    outputs: list[Tensor] = []
    handles = [
        child.register_forward_hook(lambda m, i, o: outputs.append(o))
        for child in module.modules()
        if isinstance(child, ACTIVATIONS)
    ]
    try:
        with torch.no_grad(), evaluation_mode(module):
            module(inputs)
    finally:
        for handle in handles:
            handle.remove()
    stacked = is_stacked(module)
    return {"plasticity/dormant_fraction": dormant_fraction(outputs, stacked)} if outputs else {}
