"""An optimizer's moments forgotten: dropped, or set to zero where they lie."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

ZEROS_ARE_FRESH = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
"""Optimizers that cannot tell a state of zeros from none; others begin with other numbers."""


def clear_moments(
    optimizer: torch.optim.Optimizer,
    parameters: Iterable[nn.Parameter] | None = None,
    *,
    in_place: bool = False,
) -> None:
    """Forget the state of `parameters` (None: of all), as if they had never been stepped.

    in_place: keep the state's storage, which a captured step reads and writes, and zero it;
    optimizers for which that would be another state drop it all the same.
    """
    if in_place and type(optimizer) in ZEROS_ARE_FRESH:
        states = list(optimizer.state.values())
        if parameters is not None:
            states = [optimizer.state[p] for p in parameters if p in optimizer.state]
        tensors = [v for state in states for v in state.values() if isinstance(v, Tensor)]
        if tensors:
            with torch.no_grad():
                torch._foreach_zero_(tensors)
    elif parameters is None:
        optimizer.state.clear()
    else:
        for parameter in parameters:
            optimizer.state.pop(parameter, None)
