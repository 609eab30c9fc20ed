"""All diagnostics of any torch module at one time, by one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ht_bench.networks.change import effective_learning_rate
from ht_bench.networks.curvature import curvature
from ht_bench.networks.diagnostics import diagnose
from ht_bench.networks.probe import trainability
from ht_bench.networks.stacking import is_stacked


def measure(
    module: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    initial: Mapping[str, Tensor] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    costly: bool = True,
) -> dict[str, Tensor]:
    """Return every diagnostic of a module on a batch; everything is left as it was.

    A checkpoint is measured by loading it into its module first, or by `ht-bench measure`.

    Args:
        module: a classifier: any torch module, or a stack of seeds of this package.
        inputs: training examples as the module takes them, of a stack [S, B, ...].
        labels: theirs, [B], of a stack [S, B].
        optimizer: the one that trains the module: its last step's size is measured, and the probe
            trains with its settings; without it with Adam's defaults.
        initial: the parameters at initialisation by name, to measure the distance from them.
        loss: (outputs [B, classes], labels [B]) → scalar mean.
        costly: also curvature and the trainability probe, which take seconds to minutes.

    Returns:
        [seeds] by metric key, [1] of a lone network; docs/results.md lists the keys.

    """
    stacked = is_stacked(module)

    def summed(outputs: Tensor) -> Tensor:
        if not stacked:
            return loss(outputs, labels)
        return torch.stack([loss(z, y) for z, y in zip(outputs, labels, strict=True)]).sum()

    now = {name: parameter.detach() for name, parameter in module.named_parameters()}
    values = diagnose(module, inputs, summed, now if initial is None else initial)
    if initial is None:
        values.pop("weights/distance_from_init")
    if optimizer is not None:
        values["weights/effective_learning_rate"] = effective_learning_rate(module, optimizer)
    if costly:
        values |= curvature(module, inputs, summed)
        values |= trainability(module, inputs, optimizer or _adam)
    return values


def _adam(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(module.parameters())
