"""The normalisations that `[net] linear_norm` may name: functions (units) → module.

Those of this package take `stack` too: how many seeds they are for.
"""

from __future__ import annotations

from torch import nn

from ht_bench.networks.mlp import StackedBatchNorm, StackedLayerNorm


def no_norm(units: int, stack: int | None = None) -> None:
    """Return nothing: no normalisation."""


def layer(units: int, stack: int | None = None) -> nn.Module:
    """Return LayerNorm over the units."""
    return nn.LayerNorm(units) if stack is None else StackedLayerNorm(stack, units)


def batch(units: int, stack: int | None = None) -> nn.Module:
    """Return BatchNorm of each unit."""
    return nn.BatchNorm1d(units) if stack is None else StackedBatchNorm(stack, units)
