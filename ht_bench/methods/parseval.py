"""Parseval regularization (Chung et al. 2024, 2412.07224)."""

from __future__ import annotations

from dataclasses import dataclass

from ht_bench.errors import Unsuitable, UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.matrices import WeightMatrix, weight_matrices
from ht_bench.methods.resets import output_layers


@dataclass(eq=False)
class Parseval(Method):
    """Penalty λ Σ_W ‖W Wᵀ − s I‖²_F over every layer but the output, λ = `strength`, s = `scale`.

    Rows become orthogonal, of squared norm s: 2 is the gain of ReLU. The layers are those before
    the output of each tower, the first included, as in the paper. Kernels are matrices
    [out, in · taps]. The gradient is 4 λ (W Wᵀ − s I) W. 0 does nothing.
    """

    name = "parseval"
    capturable = True

    strength: float = 1e-3
    scale: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strength < 0:
            raise UsageError(f"strength = {self.strength}: a penalty is zero or more.")
        if self.scale <= 0:
            raise UsageError(f"scale = {self.scale}: it is the rows' squared norm, above zero.")

    def setup(self) -> None:
        """Find the layers before the output."""
        matrices = weight_matrices(self.module, self.name)
        is_bare = all(matrix.layer == "" for matrix in matrices)  # a layer for a module
        outputs = [""] if is_bare else output_layers(self.module, 1)
        self._hidden = [matrix for matrix in matrices if matrix.layer not in outputs]
        if not self._hidden:
            raise Unsuitable(
                f"'parseval' works on hidden layers, and {type(self.module).__name__} has none; "
                "give it one, or choose another method."
            )

    def before_step(self) -> None:
        """Add the penalty's gradient."""
        if not self.strength:
            return
        for matrix in self._hidden:
            if matrix.gradient is not None:
                self._pull(matrix)

    def _pull(self, matrix: WeightMatrix) -> None:
        weights = matrix.values()
        products = weights @ weights.mT
        products.diagonal(dim1=-2, dim2=-1).sub_(self.scale)
        # The authors' code multiplies λ by (64 / width)²; here λ is what it is.
        matrix.add_to_gradient(products @ weights, 4 * self.strength)

    def resync(self) -> None:
        """Find the layers anew."""
        self.setup()
        super().resync()
