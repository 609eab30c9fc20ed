"""A method: after every step the weights shrink by a factor."""

from typing import ClassVar

import torch

import ht_bench


class Decay(ht_bench.Method):
    """θ ← (1 − strength) θ after every step."""

    capturable: ClassVar[bool] = True
    strength: float = 1e-3

    @torch.no_grad()
    def after_step(self) -> None:
        """Shrink every parameter."""
        for parameter in self.module.parameters():
            parameter.mul_(1 - self.strength)
