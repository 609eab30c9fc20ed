"""Weights disturbed in their last bit: the smallest difference that rounding can make."""

from __future__ import annotations

import torch
from torch import nn


def disturb(module: nn.Module, seed: int) -> None:
    """Move every floating parameter to a neighbouring number, up or down as `seed` draws.

    torch's own generators are left as they were.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.is_floating_point():
                continue
            up = torch.randint(2, parameter.shape, generator=generator, dtype=torch.bool)
            toward = torch.where(up, torch.inf, -torch.inf).to(parameter)
            parameter.copy_(torch.nextafter(parameter, toward))
