"""Parts the networks share: activations, normalisations, convolutions and perceptron heads."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError, shown

ACTIVATIONS = ("relu", "crelu")
LINEAR_NORMS = ("none", "layer", "batch")


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


@dataclass(frozen=True)
class Style:
    """The options common to all `[net]` tables: what follows a layer's product.

    activation: "relu" or "crelu". linear_norm: "none", "layer" or "batch", the normalisation
    after each hidden linear layer, before its activation. Raises UsageError for other values.
    """

    activation: str = "relu"
    linear_norm: str = "none"

    def __post_init__(self) -> None:
        for key, names in (("activation", ACTIVATIONS), ("linear_norm", LINEAR_NORMS)):
            value = getattr(self, key)
            if value not in names:
                raise UsageError(
                    f"[net] {key} = {shown(value)}: it must be one of {', '.join(names)}."
                )

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> Style:
        """Take the common options out of a table; keys left out keep their defaults."""
        return cls(options.get("activation", "relu"), options.get("linear_norm", "none"))

    def units(self, width: int) -> int:
        """Return how many units make `width` features; raises UsageError for odd CReLU widths."""
        if self.activation != "crelu":
            return width
        if width % 2:
            raise UsageError(f"[net]: a layer of width {width} with CReLU; it needs an even width.")
        return width // 2

    def make_activation(self, dim: int = -1) -> nn.Module:
        """Return a new activation whose features lie along `dim`."""
        return CReLU(dim) if self.activation == "crelu" else nn.ReLU()

    def make_linear_norm(self, units: int) -> nn.Module | None:
        """Return a new normalisation for a linear layer's `units`, or None."""
        if self.linear_norm == "none":
            return None
        return nn.LayerNorm(units) if self.linear_norm == "layer" else nn.BatchNorm1d(units)


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


def convolution(
    style: Style, inputs: int, width: int, index: int, *, bias: bool
) -> OrderedDict[str, nn.Module]:
    """Return a 3 x 3 convolution with its BatchNorm and activation; `width` channels come out."""
    units = style.units(width)
    return OrderedDict(
        {
            f"conv{index}": nn.Conv2d(inputs, units, 3, padding=1, bias=bias),
            f"conv_norm{index}": nn.BatchNorm2d(units),
            f"conv_activation{index}": style.make_activation(dim=1),
        }
    )


def head(
    style: Style, inputs: int, widths: tuple[int, ...], classes: int
) -> OrderedDict[str, nn.Module]:
    """Return the perceptron on top: hidden linear layers of `widths` features, then `output`."""
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for index, width in enumerate(widths):
        units = style.units(width)
        modules[f"linear{index}"] = nn.Linear(inputs, units)
        norm = style.make_linear_norm(units)
        if norm is not None:
            modules[f"norm{index}"] = norm
        modules[f"activation{index}"] = style.make_activation()
        inputs = width
    modules["output"] = nn.Linear(inputs, classes)
    return modules
