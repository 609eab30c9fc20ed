"""What the networks share: non-linearities, names of layers, checks of sizes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError, shown

LARGEST, DEEPEST = 2**29, 1_000
"""Weights, and layers under one key, of the largest network that is built (2 GiB)."""


class CReLU(nn.Module):
    """Concatenated ReLU: [relu(x), relu(-x)] along `dim`, which becomes twice as long.

    Of a layer with w units, unit i owns the features i and w + i. Shang et al. 2016 (1603.05201);
    against loss of plasticity, Abbas et al. 2023 (2303.07507).
    """

    features = 2

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, inputs: Tensor) -> Tensor:
        """Return both halves, the positive first."""
        return torch.cat((torch.relu(inputs), torch.relu(-inputs)), self.dim)

    def extra_repr(self) -> str:
        """Show the dimension in the printed module."""
        return f"dim={self.dim}"


_POINTWISE = (
    *(nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.Hardtanh, nn.ELU, nn.CELU, nn.SELU),
    *(nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Softplus, nn.Threshold),
    *(nn.Tanh, nn.Sigmoid, nn.Hardsigmoid, nn.Softsign, nn.Tanhshrink, nn.Softshrink),
    *(nn.Hardshrink, CReLU),
)


def is_nonlinearity(module: nn.Module) -> bool:
    """Whether the module is a non-linearity, after which units are looked at.

    torch's own that work number by number are; any other says so itself, by a true attribute
    `is_nonlinearity`, which networks of this package set on whatever activation they are built
    with.
    """
    marked = getattr(module, "is_nonlinearity", None)
    return isinstance(module, _POINTWISE) if marked is None else bool(marked)


def nonlinearities(module: nn.Module) -> dict[str, nn.Module]:
    """Return the network's non-linearities by name, in order; not what one is itself made of."""
    found: dict[str, nn.Module] = {}
    for name, child in module.named_modules():
        within = any(not outer or name.startswith(f"{outer}.") for outer in found)
        if not within and is_nonlinearity(child):
            found[name] = child
    return found


def features_per_unit(activation: nn.Module) -> int:
    """Return how many features one unit gives: 1, or 2 of CReLU and [sin, cos].

    Of a layer with w units, unit i owns the features i, w + i, 2w + i and so on.
    """
    return int(getattr(activation, "features", 1))


def layers_of(network: nn.Module) -> list[str]:
    """Return the names of a network's weight-carrying layers, the output last.

    As its `layers()` says; else the modules with a weight of two dimensions or more (beside that
    of seeds), in the order in which they were registered. Raises UsageError where there is none.
    """
    own = getattr(network, "layers", None)
    if callable(own) and not isinstance(own, nn.Module):  # many a net has a child `layers`
        return list(own())
    least = 3 if getattr(network, "stacked", False) else 2
    names = [
        name
        for name, module in network.named_modules()
        if isinstance(weight := getattr(module, "weight", None), Tensor) and weight.dim() >= least
    ]
    if not names:
        raise UsageError(
            f"{type(network).__name__} has no layer with a weight; name them by `layers()`."
        )
    return names


class Network(nn.Module):
    """A network of one seed: [B, C, H, W] → logits [B, classes].

    Subclasses construct and register their modules in the order of the forward pass, on which
    `layers` and a redraw by `reset_parameters` rely.
    """

    stacked = False

    def layers(self) -> list[str]:
        """Return the names of the linear and convolutional layers, input to output."""
        kinds = (nn.Linear, nn.Conv2d)
        return [name for name, module in self.named_modules() if isinstance(module, kinds)]


class Chain(Network, nn.Sequential):
    """A network that applies its named modules one after the other."""


def read_widths(options: Mapping[str, Any], key: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """Return the layer widths under `key`, one integer standing for one layer.

    Raises UsageError unless all are positive integers.
    """
    value = options.get(key, default)
    widths = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not all(type(width) is int and width > 0 for width in widths):
        raise UsageError(f"[net] {key} = {shown(value)}: every width must be a positive integer.")
    if len(widths) > DEEPEST:
        raise UsageError(f"[net] {key} has {len(widths)} layers; at most {DEEPEST} are built.")
    return widths


def check_size(sizes: Sequence[int], stack: int = 1, kernel: int = 1) -> None:
    """Raise UsageError, before anything is allocated, for layers of too many weights.

    sizes: features from input to output. kernel: weights per pair of features.
    """
    weights = stack * kernel * sum(a * b for a, b in itertools.pairwise(sizes))
    if weights > LARGEST:
        raise UsageError(
            f"[net]: layers of {list(sizes)[:6]} features have {weights:,} weights; at most "
            f"{LARGEST:,} are built. Lower the widths, or the stack."
        )


def check_divisible(network: str, shape: tuple[int, int, int], factor: int) -> None:
    """Raise UsageError unless height and width of `shape` are multiples of `factor`."""
    _, height, width = shape
    if height % factor or width % factor:
        raise UsageError(
            f"The network '{network}' takes images whose height and width are multiples of "
            f"{factor}, not {height} x {width}; name another under [net]."
        )
