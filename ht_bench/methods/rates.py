"""The learning rates that a module's parameters have at the present step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn


def rated(
    module: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> Iterator[tuple[float | Tensor, list[nn.Parameter]]]:
    """Yield the rate of each parameter group with those of its parameters that are `module`'s.

    A rate is a tensor on the device where the step is captured: compute with it, do not read it.
    """
    own = {id(parameter) for parameter in module.parameters()}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            parameters = [p for p in group["params"] if id(p) in own]
            if parameters:
                yield group["lr"], parameters
