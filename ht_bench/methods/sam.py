"""Sharpness-aware minimization: the gradient is taken at the worst point nearby."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.statistics import statistics_of
from ht_bench.networks.stacking import squared_norms


@dataclass(eq=False)
class SharpnessAware(Method):
    """The step is taken with the gradient at θ + ρ ∇/‖∇‖ (Foret et al. 2020, 2010.01412, Eq. 2).

    ρ = `radius`; the norm is over all parameters that have a gradient, of each seed its own. The
    second pass leaves running statistics (BatchNorm's) as the first left them. ρ = 0 computes the
    same gradient twice. In a program of one's own `optimizer.step` is given a closure.
    """

    name = "sam"
    capturable = True

    radius: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.radius < 0:
            raise UsageError(f"radius = {self.radius}: a radius is zero or more.")

    def setup(self) -> None:
        """Make room for the weights that `descend` returns to."""
        self._weights: list[Tensor] = []
        self._statistics: list[Tensor] = []

    def _moving(self) -> list[Tensor]:
        return [p for p in self.module.parameters() if p.grad is not None]

    def _tracked(self) -> list[Tensor]:
        children = self.module.modules()
        return [c._buffers[key] for c in children for key in _tracked(c)]  # type: ignore[misc]

    def ascend(self) -> None:
        """θ ← θ + ρ ∇/‖∇‖, θ and the running statistics kept."""
        parameters = self._moving()
        self._weights = _kept(self._weights, parameters)
        self._statistics = _kept(self._statistics, self._tracked())
        gradients = [p.grad for p in parameters if p.grad is not None]
        scales = self.radius / (squared_norms(gradients, self.stacked).sqrt() + 1e-12)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            shape = [-1, *[1] * (parameter.dim() - 1)] if self.stacked else []
            parameter.detach().addcmul_(gradient, scales.view(shape).to(parameter.dtype))

    def descend(self) -> None:
        """Put θ and the running statistics back."""
        if self._weights:
            torch._foreach_copy_(self._moving(), self._weights)
        if self._statistics:
            torch._foreach_copy_(self._tracked(), self._statistics)


def _tracked(module: torch.nn.Module) -> list[str]:
    names = statistics_of(module)
    counter = "num_batches_tracked"
    return [*names, counter] if names and module._buffers.get(counter) is not None else names


def _kept(storage: list[Tensor], values: list[Tensor]) -> list[Tensor]:
    """Copy values, into the storage of before where it fits: a captured step reads it."""
    if [(t.shape, t.dtype, t.device) for t in storage] != [
        (t.shape, t.dtype, t.device) for t in values
    ]:
        return [value.detach().clone() for value in values]
    if values:
        torch._foreach_copy_(storage, [value.detach() for value in values])
    return storage
