"""Normalize-and-Project (Lyle et al. 2024, 2407.01800)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ht_bench.methods.base import Method
from ht_bench.methods.copies import matched
from ht_bench.methods.matrices import weight_matrices


@dataclass(eq=False)
class NormalizeAndProject(Method):
    """LayerNorm before every activation, and after each step W ← ‖W0‖ W / ‖W‖ for every matrix.

    Under a normalisation the norm of a layer's weights changes no output but the step size, which
    the projection holds where it was. Norms are Frobenius', of each layer and seed, taken at attach
    (fault 6: not after the first step). LayerNorm is a part of the method, so that it changes the
    task's network: `linear_norm = "layer"`; a program of one's own has to bring it. The output
    layer is projected too. Biases and the scales and shifts of normalisations are left to the
    optimizer, which the paper allows with weight decay toward their initial values.
    """

    name = "normalize-and-project"
    network: ClassVar[Mapping[str, Any]] = {"linear_norm": "layer"}
    capturable = True

    def setup(self) -> None:
        """Keep ‖W0‖ of every matrix, before the first step."""
        self._matrices = weight_matrices(self.module, self.name)
        self._norms = [frobenius(matrix.values()) for matrix in self._matrices]

    def after_step(self) -> None:
        """Rescale every matrix, in place."""
        for matrix, norms in zip(self._matrices, self._norms, strict=True):
            values = matrix.values()
            # Zero has no direction to be stretched in, and stays.
            matrix.set(values * (norms / frobenius(values).clamp_min(1e-30)))

    def resync(self) -> None:
        """‖W0‖ ← the present norms."""
        self.setup()
        super().resync()

    def state_dict(self) -> dict[str, Any]:
        """Return the initial norms, [seeds, blocks, 1, 1], by the parameter's name."""
        return {"norms": {m.name: n for m, n in zip(self._matrices, self._norms, strict=True)}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the initial norms."""
        for norms, saved in matched(self.state_dict()["norms"], state["norms"]):
            norms.copy_(saved)


def frobenius(matrices: Tensor) -> Tensor:
    """Return the Frobenius norms [..., 1, 1] of matrices [..., out, in]."""
    return torch.linalg.vector_norm(matrices, dim=(-2, -1), keepdim=True)
