"""Plasticity diagnostics on training inputs; the network is left bit-identical.

Units (`units`) are looked at after each non-linearity, ranks (`ranks`) are of the last hidden
features: the input of the last weight layer. Curvature (`curvature`) is apart: it costs more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ht_bench.networks.modes import evaluation_mode
from ht_bench.networks.parts import nonlinearities
from ht_bench.networks.ranks import centred_ranks, ranks
from ht_bench.networks.stacking import is_stacked, squared_norms
from ht_bench.networks.unit_outputs import Units, dormant_share, observe, share

NORMALISATIONS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)


def symptoms(module: nn.Module, inputs: Tensor, threshold: float = 0.0) -> dict[str, Tensor]:
    """Return what a network's units and features show, [seeds] by metric key.

    Any torch module will do; one without `layers()` is read in the order of its forward pass. What
    cannot be seen (units of a module whose non-linearities are no modules, say) is nan; of a
    network of this package without a hidden layer it is 0. Everything is left as it was.

    Args:
        module: a stack of seeds or a lone network.
        inputs: training examples as the module takes them.
        threshold: a unit is dormant when its share of its layer's mean activation is at most this.

    Returns:
        `plasticity/dormant_fraction`, `plasticity/saturated_fraction`,
        `plasticity/duplicate_fraction`, `plasticity/effective_rank`, `plasticity/stable_rank`,
        `plasticity/srank`, and the ranks of mean-removed features as `plasticity/centred_…`.

    """
    with torch.no_grad(), evaluation_mode(module), recorded(module, last_layer(module)) as records:
        module(inputs)
    values = of_records(records, is_stacked(module), threshold, 0.0 if _is_ours(module) else None)
    return {key: value.detach().cpu() for key, value in values.items()}


def diagnose(
    module: nn.Module,
    inputs: Tensor,
    loss: Callable[[Tensor], Tensor],
    initial: Mapping[str, Tensor],
    threshold: float = 0.0,
) -> dict[str, Tensor]:
    """Return each diagnostic, [seeds] by metric key: `symptoms`, norms of weights and gradients.

    inputs: training examples as the module takes them. loss: outputs → a scalar, each seed's mean
    summed. initial: the parameters at initialisation by name. threshold: a unit is dormant when
    its share of its layer's mean activation is at most this. Weights, buffers, gradients, modes
    and every generator are as before afterwards.
    """
    stacked = is_stacked(module)
    parameters = dict(module.named_parameters())
    with evaluation_mode(module), recorded(module, last_layer(module)) as records:
        outputs = module(inputs)
        gradients = torch.autograd.grad(loss(outputs), list(parameters.values()))
    away = [p.detach() - initial[name] for name, p in parameters.items()]
    values = {
        **of_records(records, stacked, threshold, 0.0 if _is_ours(module) else None),
        "weights/norm": squared_norms([p.detach() for p in parameters.values()], stacked).sqrt(),
        "weights/distance_from_init": squared_norms(away, stacked).sqrt(),
        "gradients/norm": squared_norms(list(gradients), stacked).sqrt(),
    }
    return {key: value.detach().cpu() for key, value in values.items()}


class Records:
    """What passed through a network: what its units did, and the input of its last layer.

    features: None where no weight layer was called.
    """

    def __init__(self) -> None:
        self.units: list[Units] = []
        self.features: Tensor | None = None


def of_records(
    records: Records, stacked: bool, threshold: float = 0.0, without: float | None = None
) -> dict[str, Tensor]:
    """Return the diagnostics of what was recorded, [seeds] by key.

    without: what shares of units are where there is no non-linearity; None: not a number.
    """
    features = records.features
    if features is None:
        seeds = len(records.units[0].mean) if records.units else 1
        found = {key: torch.full((seeds,), torch.nan) for key in _rank_keys()}
    else:
        batched = (features if stacked else features[None]).flatten(2).float()
        seeds, found = len(batched), {**ranks(batched), **centred_ranks(batched)}
    units = records.units
    nothing = torch.full((seeds,), torch.nan if without is None else without)
    shares = {
        "dormant": dormant_share([u.mean for u in units], threshold) if units else nothing,
        "saturated": share([u.saturated for u in units]) if units else nothing,
        "duplicate": share([u.duplicate for u in units]) if units else nothing,
    }
    return {**{f"plasticity/{name}_fraction": value for name, value in shares.items()}, **found}


def last_layer(module: nn.Module) -> str | None:
    """Return the name of the last weight layer; None where the module does not tell."""
    return list(module.layers())[-1] if _is_ours(module) else None  # type: ignore[operator]


@contextmanager
def recorded(module: nn.Module, last: str | None) -> Iterator[Records]:
    """Record what every non-linearity's units do, and the input of the last weight layer.

    last: its name; None for the weight layer that is called last. Units are judged as they are
    called: what comes later may work in place.
    """
    records = Records()
    stacked = is_stacked(module)
    children = dict(module.named_modules())
    overwritten: list[Tensor] = []

    def keep_copy(_: nn.Module, received: tuple[Tensor, ...]) -> None:
        overwritten.append(received[0].detach().clone())

    def look(activation: nn.Module, received: tuple[Tensor, ...], output: Tensor) -> None:
        before = overwritten.pop() if getattr(activation, "inplace", False) else received[0]
        records.units.append(observe(activation, before, output, stacked))

    def keep_input(_: nn.Module, received: tuple[Tensor, ...]) -> None:
        records.features = received[0]

    handles = []
    for child in nonlinearities(module).values():
        if getattr(child, "inplace", False):
            handles.append(child.register_forward_pre_hook(keep_copy))
        handles.append(child.register_forward_hook(look))
    weighted = [children[last]] if last is not None else _weight_layers(module)
    handles += [child.register_forward_pre_hook(keep_input) for child in weighted]
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()


def _weight_layers(module: nn.Module) -> list[nn.Module]:
    """Return the modules with a matrix or kernel of their own, normalisations apart."""
    found = []
    for child in module.modules():
        weight = getattr(child, "weight", None)
        matrix = isinstance(weight, Tensor) and weight.dim() >= 2 + is_stacked(module)
        if matrix and not isinstance(child, (*NORMALISATIONS, nn.Embedding)):
            found.append(child)
    return found


def _is_ours(module: nn.Module) -> bool:
    layers = getattr(module, "layers", None)  # many a network's own is a ModuleList
    return callable(layers) and not isinstance(layers, nn.Module)


def _rank_keys() -> list[str]:
    names = ("effective_rank", "stable_rank", "srank")
    return [f"plasticity/{centred}{name}" for centred in ("", "centred_") for name in names]
