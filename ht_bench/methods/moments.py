"""An optimizer's moments forgotten: dropped, or set to zero where they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable

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


_AT_FIRST = {
    **dict.fromkeys(("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf"), 0.0),
    **dict.fromkeys(("momentum_buffer", "square_avg", "grad_avg", "acc_delta"), 0.0),
}
"""What the moments of torch's optimizers begin with, number by number."""


def clear_entries(
    optimizer: torch.optim.Optimizer, parameter: Tensor, fill: Callable[[Tensor, float], object]
) -> None:
    """Forget the moments of some of a parameter's numbers, in their storage.

    fill(moment, value): sets these entries of a moment, shaped as the parameter, to `value`. The
    clock of the optimizer's bias correction is the whole parameter's and goes on; state that is no
    moment (Rprop's step sizes, Adagrad's sum) is left.
    """
    # In the RMSprop of stable-baselines3's A2C, which follows TensorFlow's, squares begin at 1.
    first = dict(_AT_FIRST)
    if type(optimizer).__name__ == "RMSpropTFLike":
        first["square_avg"] = 1.0
    for key, moment in optimizer.state.get(parameter, {}).items():
        if key in first and isinstance(moment, Tensor) and moment.shape == parameter.shape:
            fill(moment, first[key])
