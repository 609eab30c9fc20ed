"""Decoupled weight decay on top of the task's own (Loshchilov & Hutter 2019, 1711.05101)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.rates import rated


@dataclass(eq=False)
class WeightDecay(Method):
    """θ ← θ (1 − lr λ) ahead of every step, all trained parameters, λ = `strength`.

    It is AdamW's own decay, so that a task's rises by λ; with other optimizers it stays decoupled
    from the gradient, unlike `l2`. lr is the parameter's rate at that step. 0 does nothing.
    """

    name = "weight-decay"
    capturable = True

    strength: float = 1e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strength < 0:
            raise UsageError(f"strength = {self.strength}: a decay is zero or more.")

    def before_step(self) -> None:
        """Shrink what has a gradient, as AdamW does."""
        if not self.strength:
            return
        for rate, parameters in rated(self.module, self._hooks.optimizers):
            shrunk: list[Tensor] = [p for p in parameters if p.grad is not None]
            if shrunk:
                torch._foreach_mul_(shrunk, 1 - rate * self.strength)
