"""ReGraMa: units that learn nothing are recycled (Liu et al. 2025, 2505.24061)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ht_bench.methods.recycling import PeriodicRecycling, mean, shares


@dataclass(eq=False)
class GraMa(PeriodicRecycling):
    """As `redo`, units scored by the size of their gradient, over the layer's mean, against τ.

    A unit's gradient is the mean |∇w| over its incoming weights in that step's batch, after
    clipping: the gradient that training has anyway, where the metric is defined by E|∇h|; public
    code measures weights too. τ = `threshold`, below 0 nothing is recycled. No activation is
    watched.
    """

    name = "grama"
    needs = frozenset()
    capturable = True

    threshold: float = 0.01

    @property
    def recycles(self) -> bool:
        """Whether any score can be at or below the threshold."""
        return self.threshold >= 0

    def setup(self) -> None:
        """Make room for the sizes of the gradients."""
        super().setup()
        self._sizes = [self.zeros(units, 1) for units in self.groups] if self.recycles else []

    @property
    def activity(self) -> list[Tensor]:
        """Mean |∇w| over each unit's incoming weights in the last step, [S?, 1, units]."""
        return self._sizes

    def before_step(self) -> None:
        """Note how large each unit's gradient is."""
        for units, size in zip(self.groups, self._sizes, strict=False):
            gradient = self.module.get_submodule(units.layer).get_parameter("weight").grad
            if gradient is not None:
                behind = gradient.dim() - size.dim() + 1
                each = mean(gradient.abs(), tuple(range(-behind, 0)))
                size.copy_(each.unsqueeze(-2))

    def chosen(self) -> list[Tensor]:
        """Return the units whose gradient is small beside their layer's."""
        return [shares(value[..., 0, :]) <= self.threshold for value in self.activity]
