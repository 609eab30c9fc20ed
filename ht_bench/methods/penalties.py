"""L2 penalties, added to the gradient after clipping: toward zero, or toward the initial weights.

Adding λ θ to the gradient is the derivative of λ/2 ‖θ‖². With λ = 0 nothing is touched, so that
the run is bit-identical to `none`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method


@dataclass(eq=False)
class L2(Method):
    """Penalty λ/2 ‖θ‖² over all parameters, λ = `strength`; it passes through Adam's moments."""

    name = "l2"

    strength: float = 1e-4

    def __post_init__(self) -> None:
        if self.strength < 0:
            raise UsageError(f"strength = {self.strength}: a penalty is zero or more.")

    def before_step(self) -> None:
        """Add λ θ to every gradient."""
        trained: list[Tensor] = [p for p in self.module.parameters() if p.grad is not None]
        if self.strength and trained:
            gradients = [p.grad for p in trained if p.grad is not None]
            torch._foreach_add_(gradients, trained, alpha=self.strength)


@dataclass(eq=False)
class L2Init(L2):
    """Penalty λ/2 ‖θ − θ0‖² over all tensors (Kumar et al. 2023, 2308.11958); θ0 from attach."""

    name = "l2-init"

    strength: float = 1e-3

    def setup(self) -> None:
        """Keep θ0, before the first step."""
        self._initial = {n: p.detach().clone() for n, p in self.module.named_parameters()}

    def before_step(self) -> None:
        """Add λ (θ − θ0) to every gradient."""
        named = [(n, p) for n, p in self.module.named_parameters() if p.grad is not None]
        if not self.strength or not named:
            return
        gradients = [p.grad for _, p in named if p.grad is not None]
        initial = [self._initial[n] for n, _ in named]
        away: tuple[Tensor, ...] = torch._foreach_sub([p.detach() for _, p in named], initial)
        torch._foreach_add_(gradients, away, alpha=self.strength)

    def state_dict(self) -> dict[str, Any]:
        """Return θ0."""
        return {"initial": self._initial}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over θ0."""
        for name, tensor in self._initial.items():
            tensor.copy_(state["initial"][name])
