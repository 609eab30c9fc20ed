"""Non-linearities that torch does not have: [sin, cos], and dropout by intervals."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError, shown
from ht_bench.networks.noise import Noisy


class Fourier(nn.Module):
    """Deep Fourier features: [sin(x), cos(x)] along `dim`, which becomes twice as long.

    Of a layer with w units, unit i owns the features i and w + i. Lewandowski et al. 2025
    (2410.20634).
    """

    is_nonlinearity = True
    features = 2

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, inputs: Tensor) -> Tensor:
        """Return sines, then cosines."""
        return torch.cat((torch.sin(inputs), torch.cos(inputs)), self.dim)

    def extra_repr(self) -> str:
        """Show the dimension in the printed module."""
        return f"dim={self.dim}"


class IntervalDropout(Noisy):
    """Activation by interval-wise dropout (AID), Park et al. 2025 (2502.01342).

    In training a number is kept with probability `keep` where it is 0 or more and with 1 − `keep`
    where it is negative, else 0; in evaluation it is multiplied by that probability. keep = 1 is
    ReLU, keep = 0.5 dropout of a linear network.
    """

    is_nonlinearity = True

    def __init__(self, keep: float = 0.9) -> None:
        super().__init__()
        if not (isinstance(keep, int | float) and 0 <= keep <= 1):
            raise UsageError(f"interval-dropout: keep = {shown(keep)} is no number from 0 to 1.")
        self.keep = float(keep)

    def forward(self, inputs: Tensor) -> Tensor:
        """Drop numbers, or in evaluation weigh them; the shape stays."""
        if not self.training:
            return torch.where(inputs >= 0, self.keep * inputs, (1 - self.keep) * inputs)
        # One draw serves both intervals: what would drop a positive number keeps a negative one.
        keeps_positive = self.uniform(inputs) < self.keep
        return torch.where(keeps_positive == (inputs >= 0), inputs, 0.0)  # channels last stay so

    def extra_repr(self) -> str:
        """Show the probability in the printed module."""
        return f"keep={self.keep}"
