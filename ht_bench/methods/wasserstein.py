"""Wasserstein regularization toward the initial distribution (Lewandowski et al., 2312.00246)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ht_bench.methods.copies import Copies
from ht_bench.methods.penalties import L2, dense
from ht_bench.networks.stacking import per_seed


@dataclass(eq=False)
class Wasserstein(L2):
    """Penalty λ/2 Σ (sort(θ) − sort(θ0))², λ = `strength`, for each tensor and seed.

    It is half the squared 2-Wasserstein distance from a tensor's weights to its initial ones, times
    their number: weights may trade places freely. 0 does nothing.
    """

    name = "wasserstein"
    capturable = True

    strength: float = 1e-3

    def setup(self) -> None:
        """Keep the sorted θ0, before the first step."""
        self._sorted = Copies(self.module)
        self._sort()

    def _sort(self) -> None:
        for values in self._sorted.values:
            rows = per_seed(values, self._has_seeds(values))
            values.copy_(rows.sort(dim=1).values.reshape(values.shape))

    def _has_seeds(self, tensor: Tensor) -> bool:
        return self.stacked and tensor.dim() > 1

    def before_step(self) -> None:
        """Add λ (θ − the initial weight of the same rank) to every gradient."""
        if not self.strength:
            return
        pairs = zip(self._sorted.now(), self._sorted.values, strict=True)
        trained = [(p, values) for p, values in pairs if p.grad is not None]
        gradients = dense([p.grad for p, _ in trained if p.grad is not None])
        for (weights, initial), gradient in zip(trained, gradients, strict=True):
            # The paper's λ has no 1/2, which is here so that λ compares with `l2-init`'s.
            gradient.add_(weights.detach() - self._matching(weights, initial), alpha=self.strength)

    def _matching(self, weights: Tensor, initial: Tensor) -> Tensor:
        """Return, for every weight, the initial one of the same rank."""
        has_seeds = self._has_seeds(weights)
        order = order_of(per_seed(weights.detach(), has_seeds))
        rows = per_seed(initial, has_seeds)
        return torch.empty_like(rows).scatter_(1, order, rows).view(weights.shape)

    def resync(self) -> None:
        """θ0 ← the present weights."""
        self._sorted.restart()
        self._sort()
        super().resync()

    def state_dict(self) -> dict[str, Any]:
        """Return the sorted θ0."""
        return {"sorted": self._sorted.named()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the sorted θ0."""
        self._sorted.load(state["sorted"])


@torch.library.custom_op("ht_bench::order_of", mutates_args=())
def order_of(rows: Tensor) -> Tensor:
    """Return the places that sort each row of [rows, n], as `torch.argsort` does.

    On a CPU NumPy sorts six times as fast; an operation of torch's is what a captured step repeats.
    """
    if rows.device.type != "cpu":
        return rows.argsort(dim=1)
    return torch.from_numpy(
        np.argsort((rows if rows.dtype.itemsize >= 4 else rows.float()).numpy(), axis=1)
    )
