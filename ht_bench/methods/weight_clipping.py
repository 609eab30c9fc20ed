"""Weight clipping (Elsayed et al. 2024, 2407.01704)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.matrices import weight_matrices
from ht_bench.methods.resets import output_layers


@dataclass(eq=False)
class WeightClipping(Method):
    """Each layer's weights and biases are clamped to ±κ/√fan_in after every step, κ = `bound`.

    1/√fan_in is the bound of PyTorch's uniform initialisation; a bias has its layer's, as in the
    reference for RL. `output` = False leaves the output layer alone (`clip_last_layer` there).
    The optimizer's moments are kept.
    """

    name = "weight-clipping"
    capturable = True

    bound: float = 2.0
    output: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bound <= 0:
            raise UsageError(f"bound = {self.bound}: it is a multiple of 1/√fan_in, above zero.")

    def setup(self) -> None:
        """Find the layers and their bounds."""
        left = [] if self.output else output_layers(self.module, 1)
        # Scales and shifts of normalisations are not clamped: the reference clamps every vector by
        # the matrix before it, which would squeeze scales of 1; its networks for RL have none.
        matrices = [m for m in weight_matrices(self.module, self.name) if m.layer not in left]
        vectors = [(m.bias, m) for m in matrices if m.bias is not None]
        self._clamped: list[tuple[Tensor, float]] = [
            (parameter, 1 / math.sqrt(m.fan_in))
            for parameter, m in [*((m.parameter, m) for m in matrices), *vectors]
        ]

    def after_step(self) -> None:
        """Clamp in place."""
        for parameter, scale in self._clamped:
            parameter.clamp_(-self.bound * scale, self.bound * scale)

    def resync(self) -> None:
        """Find the layers anew."""
        self.setup()
        super().resync()
