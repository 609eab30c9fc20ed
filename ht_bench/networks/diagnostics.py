"""Plasticity diagnostics on training inputs; the network is left bit-identical.

Dormant fraction: Sokar et al. 2023 (2302.12902), after each non-linearity. Ranks of the last
hidden features: effective rank of Roy & Vetterli 2007, stable rank ‖A‖²_F / ‖A‖²₂, and srank_δ of
Kumar et al. 2021 (2010.14498), δ = 0.01.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ht_bench.networks.modes import evaluation_mode
from ht_bench.networks.parts import layers_of, nonlinearities
from ht_bench.networks.stacking import is_stacked, squared_norms


def diagnose(
    module: nn.Module,
    inputs: Tensor,
    loss: Callable[[Tensor], Tensor],
    initial: Mapping[str, Tensor],
    threshold: float = 0.0,
) -> dict[str, Tensor]:
    """Return each diagnostic, [seeds] by metric key.

    inputs: training examples as the module takes them. loss: outputs → a scalar, each seed's mean
    summed. initial: the parameters at initialisation by name. threshold: a unit is dormant when
    its share of its layer's mean activation is at most this. Weights, buffers, gradients, modes
    and every generator are as before afterwards.
    """
    stacked = is_stacked(module)
    parameters = dict(module.named_parameters())
    last = layers_of(module)[-1]
    with evaluation_mode(module), recorded(module, last) as records:
        outputs = module(inputs)
        gradients = torch.autograd.grad(loss(outputs), list(parameters.values()))
    away = [p.detach() - initial[name] for name, p in parameters.items()]
    features = records.features if stacked else records.features[None]
    values = {
        # A network without a hidden layer has no unit that could be dormant.
        "plasticity/dormant_fraction": dormant_fraction(records.activations, stacked, threshold)
        if records.activations
        else torch.zeros(len(features)),
        **ranks(features.flatten(2).float()),
        "weights/norm": squared_norms([p.detach() for p in parameters.values()], stacked).sqrt(),
        "weights/distance_from_init": squared_norms(away, stacked).sqrt(),
        "gradients/norm": squared_norms(list(gradients), stacked).sqrt(),
    }
    return {key: value.detach().cpu() for key, value in values.items()}


def dormant_fraction(activations: list[Tensor], stacked: bool, threshold: float = 0.0) -> Tensor:
    """Return the share of units with score ≤ threshold over all layers, [seeds].

    score_i = E|h_i| / mean_k E|h_k| (Sokar et al. 2023, Eq. 1). A convolution's unit is a
    channel; a transformer's is a feature. A layer of zeros is all dormant. There must be a layer.
    """
    dormant: list[Tensor] = []
    for activation in activations:
        batched = activation if stacked else activation[None]
        channel = 2 if batched.dim() == 5 else batched.dim() - 1
        others = [d for d in range(1, batched.dim()) if d != channel]
        mean = batched.detach().float().abs().mean(others)
        score = mean / mean.mean(1, keepdim=True).clamp(min=1e-9)
        dormant.append((score <= threshold).float())
    return torch.cat(dormant, dim=1).mean(1)


def ranks(features: Tensor, delta: float = 0.01) -> dict[str, Tensor]:
    """Return effective rank, stable rank and srank_δ of features [S, B, F], [S] each."""
    # On the host: CUDA has no deterministic cumulative sum.
    finite = torch.nan_to_num(features.detach().cpu(), nan=0.0, posinf=0.0, neginf=0.0)
    singular = torch.linalg.svdvals(finite)
    total = singular.sum(1, keepdim=True).clamp(min=1e-12)
    share = singular / total
    entropy = -(share * share.clamp(min=1e-12).log()).sum(1)
    largest = singular[:, 0].clamp(min=1e-12)
    return {
        "plasticity/effective_rank": entropy.exp(),
        "plasticity/stable_rank": singular.square().sum(1) / largest.square(),
        "plasticity/srank": 1 + (share.cumsum(1) < 1 - delta).sum(1).float(),
    }


class Records:
    """What passed through a network: outputs of non-linearities, input of its last layer."""

    activations: list[Tensor]
    features: Tensor


@contextmanager
def recorded(module: nn.Module, last: str) -> Iterator[Records]:
    """Collect every non-linearity's output and the input of the last weight layer, named."""
    records = Records()
    records.activations = []
    children = dict(module.named_modules())

    def keep_output(_: nn.Module, __: object, output: Tensor) -> None:
        records.activations.append(output)

    def keep_input(_: nn.Module, received: tuple[Tensor, ...]) -> None:
        records.features = received[0]

    handles = [
        child.register_forward_hook(keep_output) for child in nonlinearities(module).values()
    ]
    handles.append(children[last].register_forward_pre_hook(keep_input))
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()
