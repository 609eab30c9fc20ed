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
from ht_bench.methods.copies import Copies


@dataclass(eq=False)
class L2(Method):
    """Penalty λ/2 ‖θ‖² over all parameters, λ = `strength`; it passes through Adam's moments."""

    name = "l2"
    capturable = True

    strength: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strength < 0:
            raise UsageError(f"strength = {self.strength}: a penalty is zero or more.")

    def before_step(self) -> None:
        """Add λ θ to every gradient."""
        trained: list[Tensor] = [p for p in self.module.parameters() if p.grad is not None]
        if self.strength and trained:
            gradients = dense([p.grad for p in trained if p.grad is not None])
            torch._foreach_add_(gradients, trained, alpha=self.strength)


@dataclass(eq=False)
class L2Init(L2):
    """Penalty λ/2 ‖θ − θ0‖² over all tensors (Kumar et al. 2023, 2308.11958); θ0 from attach."""

    name = "l2-init"
    capturable = True

    strength: float = 1e-3

    def setup(self) -> None:
        """Keep θ0, before the first step."""
        self._initial = Copies(self.module)

    def before_step(self) -> None:
        """Add λ (θ − θ0) to every gradient."""
        if not self.strength:
            return
        pairs = zip(self._initial.now(), self._initial.named().values(), strict=True)
        trained = [(p, initial) for p, initial in pairs if p.grad is not None]
        if not trained:
            return
        gradients = dense([p.grad for p, _ in trained if p.grad is not None])
        away: tuple[Tensor, ...] = torch._foreach_sub(
            [p.detach() for p, _ in trained], [initial for _, initial in trained]
        )
        torch._foreach_add_(gradients, away, alpha=self.strength)

    def resync(self) -> None:
        """θ0 ← the present weights."""
        self._initial.restart()
        super().resync()

    def state_dict(self) -> dict[str, Any]:
        """Return θ0."""
        return {"initial": self._initial.named()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over θ0."""
        self._initial.load(state["initial"])


def dense(gradients: list[Tensor]) -> list[Tensor]:
    """Return the gradients; raises UsageError if one of them is sparse."""
    if any(gradient.is_sparse for gradient in gradients):
        raise UsageError(
            "A gradient is sparse (an embedding with sparse=True), and a penalty moves every row; "
            "build the layer with sparse=False."
        )
    return gradients
