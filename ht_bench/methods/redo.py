"""ReDo: dormant units are recycled (Sokar et al. 2023, "The Dormant Neuron Phenomenon")."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ht_bench.methods.recycling import PeriodicRecycling, shares


@dataclass(eq=False)
class ReDo(PeriodicRecycling):
    """Every `every` steps units with E|h_i| / mean_k E|h_k| ≤ τ are recycled (2302.12902, Eq. 1).

    τ = `threshold`, with 0 only units that are silent on all examples, below 0 none. The means are
    over the training batch of that step (and a convolution's positions), as in the paper, whose
    batch is 64. Incoming weights, bias and normalisation are drawn as a new network's, outgoing
    weights are zeroed, Adam's moments of both too.
    """

    name = "redo"

    threshold: float = 0.025

    @property
    def recycles(self) -> bool:
        """Whether any score can be at or below the threshold."""
        return self.threshold >= 0

    def chosen(self) -> list[Tensor]:
        """Return the dormant units."""
        return [shares(value[..., 0, :]) <= self.threshold for value in self.activity]
