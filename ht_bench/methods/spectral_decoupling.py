"""Spectral decoupling: a penalty on the logits (Pezeshki et al. 2021, 2011.09468)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method


@dataclass(eq=False)
class SpectralDecoupling(Method):
    """+ λ mean(logits²), λ = `strength`; the mean is over samples and classes.

    The paper writes λ/2 ‖logits‖² (its Eq. 14), its code the mean that is taken here. The loop
    must own its loss and add `auxiliary_loss`. 0 does nothing.
    """

    name = "spectral-decoupling"
    capturable = True

    strength: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strength < 0:
            raise UsageError(f"strength = {self.strength}: a penalty is zero or more.")

    def auxiliary_loss(self, inputs: Tensor, outputs: Tensor) -> Tensor | None:
        """Return the penalty of logits [..., B, classes], each seed's mean summed over seeds."""
        if not self.strength:
            return None
        wide = outputs if outputs.dtype.itemsize >= 4 else outputs.float()
        return self.strength * wide.square().mean((-2, -1)).sum()
