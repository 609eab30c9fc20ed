"""The hidden units of a network: what leads into each, what normalises it, and what it leads to.

A unit is one output of a linear layer, or one channel of a convolution, behind which comes a
non-linearity and then another such layer. Found are those in nn.Sequential (this package's MLP,
CNN and VGG-16, stacked or not, heads, the perceptrons of ViT's blocks) and in what a module tells
of itself by `unit_groups`: of ResNet-18 the units inside each residual branch, of
stable-baselines3's policies the towers across their parts. Left out is what cannot be taken out
cleanly: units behind a residual sum, attention, recurrent layers, layers whose weights are shared,
frozen, grouped or computed from others, and features that something else is joined to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ht_bench.errors import Unsuitable
from ht_bench.networks.mlp import StackedLinear, StackedMLP
from ht_bench.networks.parts import features_per_unit, is_nonlinearity
from ht_bench.networks.stacked_conv import StackedChain, StackedConv, StackedMaxPool
from ht_bench.networks.stacking import is_stacked

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, StackedConv)
_LINEAR = (nn.Linear, StackedLinear)
_POOLS = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, StackedMaxPool),
)
_PASSING = (*_POOLS, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Flatten)
"""What a unit's feature goes through on its way and still is that unit's feature."""


@dataclass(frozen=True)
class Outgoing:
    """A layer that reads the units: columns [features, units, positions] of its weight, in order.

    positions: columns of each feature, more than one where maps were flattened.
    """

    layer: str
    features: int
    positions: int


@dataclass(frozen=True)
class Units:
    """The units of one hidden layer; names are those of submodules.

    per_unit: modules on the way with a number for each unit (normalisations), or, where the second
    entry is larger than 1, for each of so many features a unit. channel: the dimension of
    `activation`'s output in which the features lie, [features · units], counted from the end.
    """

    layer: str
    activation: str
    per_unit: tuple[tuple[str, int], ...]
    outgoing: tuple[Outgoing, ...]
    count: int
    features: int
    channel: int


def find_units(module: nn.Module) -> list[Units]:
    """Return the groups of hidden units, input to output.

    A module tells its own by `unit_groups`, a list or a method that returns one: for each run of
    submodules that are applied one after the other their names. Nothing else is looked for in it.
    Raises Unsuitable where there is no group.
    """
    names = {id(child): name for name, child in module.named_modules()}
    owners = Counter(id(p) for m in module.modules() for p in m.parameters(recurse=False))
    found: dict[str, Units | None] = {}
    for run in _runs(module):
        named = [(names[id(child)], child) for child in run]
        uses = Counter(map(id, run))
        for place, (name, child) in enumerate(named):
            if not _is_layer(child):
                continue
            try:
                group = _follow(named, place, is_stacked(module))
                if group is not None:
                    _check(module, group, owners, uses)
            except _NotServed:
                found[name] = None
                continue
            if group is not None:
                found[name] = _join(found.get(name, group), group)
    groups = [group for group in found.values() if group is not None]
    shared = Counter(id(module.get_submodule(group.activation)) for group in groups)
    groups = [g for g in groups if shared[id(module.get_submodule(g.activation))] == 1]
    if not groups:
        raise Unsuitable(
            f"{type(module).__name__} has no hidden units that could be recycled: a linear or "
            "convolutional layer, a non-linearity that is a module of its own, and the next layer, "
            "in an nn.Sequential; or give it a method unit_groups() that names such runs."
        )
    return groups


class _NotServed(Exception):
    """The units of a layer cannot be told apart, or are no hidden units."""


# ---- which modules follow one another ----


def _runs(module: nn.Module) -> Iterator[list[nn.Module]]:
    """Yield lists of modules, each applied to what the one before puts out."""
    told = getattr(module, "unit_groups", None)
    if told is not None:
        for run in told() if callable(told) else told:
            yield [module.get_submodule(name) for name in run]
    elif _is_sequential(module):
        leaves = list(_leaves(module))
        yield leaves
        for leaf in leaves:
            yield from _runs(leaf)
    else:
        for child in module.children():
            yield from _runs(child)


def _is_sequential(module: nn.Module) -> bool:
    plain = isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward
    stacked = isinstance(module, StackedMLP | StackedChain)
    return (plain or stacked) and not hasattr(module, "unit_groups")


def _leaves(module: nn.Module) -> Iterator[nn.Module]:
    for child in module._modules.values():  # children() leaves out a second use
        if child is not None and _is_sequential(child) and not is_nonlinearity(child):
            yield from _leaves(child)
        elif child is not None:
            yield child


# ---- one layer's units, followed to the layer that reads them ----


def _is_layer(module: nn.Module) -> bool:
    if not isinstance(module, (*_LINEAR, *_CONVOLUTIONS)) or is_nonlinearity(module):
        return False
    plain = set(module._parameters) <= {"weight", "bias"} and not module._buffers
    leaf = next(module.children(), None) is None  # a parametrization is a child
    return plain and leaf and module._parameters.get("weight") is not None and _ungrouped(module)


def _ungrouped(module: nn.Module) -> bool:
    return getattr(module, "groups", 1) == 1 and not getattr(module, "transposed", False)


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, _CONVOLUTIONS)


def _follow(run: Sequence[tuple[str, nn.Module]], place: int, stacked: bool) -> Units | None:
    """Return the units of the layer at `place` in the run; None where the run ends before the next.

    Raises _NotServed where the next layer's columns are not theirs.
    """
    name, layer = run[place]
    weight = _weight(layer)
    lead = int(stacked)
    convolves, count = _is_convolution(layer), weight.shape[lead]
    channel = -(weight.dim() - lead - 1) if convolves else -1
    activation, features, flat, per_unit = "", 1, False, list[tuple[str, int]]()
    for next_name, child in run[place + 1 :]:
        if is_nonlinearity(child):
            if activation or flat:
                raise _NotServed
            if next(child.parameters(), None) is not None:
                per_unit += _numbers_per_unit(next_name, child, count, lead)
            activation, features = next_name, features_per_unit(child)
        elif _is_layer(child):
            if not activation:
                raise _NotServed
            positions = _positions(child, count * features, lead, convolves, flat)
            outgoing = (Outgoing(next_name, features, positions),)
            return Units(name, activation, tuple(per_unit), outgoing, count, features, channel)
        elif isinstance(child, _PASSING):
            flat = flat or isinstance(child, nn.Flatten)
        else:
            per_unit += _numbers_per_unit(next_name, child, count, lead, features)
    return None


def _weight(layer: nn.Module) -> Tensor:
    return layer.get_parameter("weight")


def _positions(layer: nn.Module, features: int, lead: int, convolves: bool, flat: bool) -> int:
    """Return how many columns of `layer` each feature has."""
    columns = _weight(layer).shape[lead + 1]
    if convolves and flat and not _is_convolution(layer) and columns % features == 0:
        return columns // features
    if columns != features or convolves is not _is_convolution(layer):
        raise _NotServed
    return 1


def _numbers_per_unit(
    name: str, module: nn.Module, count: int, lead: int, features: int = 1
) -> list[tuple[str, int]]:
    """Return `name` with the features a unit that the module keeps numbers of."""
    if next(module.children(), None) is not None:
        raise _NotServed
    tensors = [*module.parameters(), *module.buffers()]
    lengths = {t.shape[-1] for t in tensors if t.dim() == lead + 1}
    if any(t.dim() > lead + 1 for t in tensors) or lengths != {count * features}:
        raise _NotServed
    return [(name, features)]


def _check(module: nn.Module, group: Units, owners: Counter[int], uses: Counter[int]) -> None:
    """Raise _NotServed for weights that are shared or frozen, and for modules that work twice."""
    layers = [group.layer, *(outgoing.layer for outgoing in group.outgoing)]
    for name in layers:
        weight = _weight(module.get_submodule(name))
        if owners[id(weight)] > 1 or not weight.requires_grad:
            raise _NotServed
    if any(uses[id(module.get_submodule(name))] > 1 for name in (*layers, group.activation)):
        raise _NotServed


def _join(known: Units | None, found: Units) -> Units | None:
    """Return one group that leads to what both lead to: a trunk has a run for each output."""
    if known is None or known.activation != found.activation:
        return None
    joined = dict.fromkeys((*known.outgoing, *found.outgoing))
    return replace(known, outgoing=tuple(joined))


# ---- the tensors of a unit, in a lone network or a stack of seeds ----


def features_of(units: Units, output: Tensor, stacked: bool) -> tuple[Tensor, tuple[int, ...]]:
    """Return an output of the non-linearity as a view [S?, ..., features, units].

    And the dimensions between, over examples and positions. S is there in a stack.
    """
    view = output.movedim(units.channel, -1).unflatten(-1, (units.features, units.count))
    return view, tuple(range(int(stacked) - view.dim(), -2))


def rows(mask: Tensor, tensor: Tensor) -> Tensor:
    """Return a mask [S?, units] in the form that masks the rows of `tensor` [S?, units, ...]."""
    return mask.reshape(*mask.shape, *[1] * (tensor.dim() - mask.dim()))


def columns(outgoing: Outgoing, mask: Tensor, tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Return a view of `tensor`, shaped as the outgoing layer's weight, and what masks it.

    The view is [S?, out, features, units, positions, ...].
    """
    *seeds, count = mask.shape
    shape = (outgoing.features, count, outgoing.positions)
    view = tensor.unflatten(len(seeds) + 1, shape)
    behind = view.dim() - len(seeds) - 4
    return view, mask.reshape(*seeds, 1, 1, count, 1, *[1] * behind)


def per_feature(mask: Tensor, features: int) -> Tensor:
    """Return a mask [S?, units] for numbers [S?, features · units]."""
    return torch.cat([mask] * features, -1)
