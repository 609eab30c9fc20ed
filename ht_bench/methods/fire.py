"""FIRE: Frobenius-isometry reinitialization (Han et al. 2026, 2602.08040)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.matrices import weight_matrices


@dataclass(eq=False)
class Fire(Method):
    """At each phase start every weight matrix moves to the nearest isometry.

    W ← √(d_out/d_in)/k² · NewtonSchulz(W/‖W‖_F), `iterations` times X ← 1.5 X − 0.5 X XᵀX, for
    each tap of a k × k kernel by itself. All linear and convolutional layers, the output too;
    biases, normalisations and their statistics stay. In a network with attention whose queries,
    keys and values are one parameter, only queries and keys move, as the authors' code does for
    its ViT. `amount` goes that far of the way (1 in the paper); 0 does nothing. The optimizer's
    moments are left to the boundary, at which the benchmark's loops clear them.
    """

    name = "fire"

    iterations: int = 10
    amount: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations < 1:
            raise UsageError(f"iterations = {self.iterations}: give 1 or more.")
        if not 0 <= self.amount <= 1:
            raise UsageError(f"amount = {self.amount}: the share lies between 0 and 1.")

    def setup(self) -> None:
        """Find the matrices."""
        found = weight_matrices(self.module, self.name)
        self._matrices = [matrix for matrix in found if matrix.is_attention] or found

    def on_phase(self, index: int) -> None:
        """Orthogonalize, in place."""
        if not self.amount:
            return
        for matrix in self._matrices:
            taps = matrix.taps().clone()
            moved = taps[:, :2] if matrix.is_attention else taps
            moved.lerp_(isometric(moved, self.iterations), self.amount)
            matrix.set_taps(taps)

    def resync(self) -> None:
        """Find the matrices anew."""
        self.setup()
        super().resync()


def isometric(taps: Tensor, iterations: int) -> Tensor:
    """Return √(d_out/d_in)/taps times the isometries next to [..., taps, out, in]."""
    count, out, inputs = taps.shape[-3:]
    return math.sqrt(out / inputs) / count * newton_schulz(taps, iterations)


def newton_schulz(matrices: Tensor, iterations: int) -> Tensor:
    """Return the polar factors of matrices [..., out, in], singular values near 1; zero stays."""
    norms = torch.linalg.vector_norm(matrices, dim=(-2, -1), keepdim=True)
    factors = matrices / norms.clamp_min(1e-30)
    is_wide = factors.shape[-1] > factors.shape[-2]
    for _ in range(iterations):
        # The smaller of the two Gram matrices; the product is the same.
        if is_wide:
            factors = 1.5 * factors - 0.5 * (factors @ factors.mT) @ factors
        else:
            factors = 1.5 * factors - 0.5 * factors @ (factors.mT @ factors)
    return factors
