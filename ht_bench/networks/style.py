"""What follows a layer's product: activation and normalisation, by name or a user's own."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ht_bench import registry
from ht_bench.networks.lookup import Part

FEATURES_LAST, CHANNELS = -1, -3
"""Where the features lie: of [..., features], and of maps [..., C, H, W], with seeds or without."""


@dataclass(frozen=True)
class Style:
    """The options common to all `[net]` tables: what follows a layer's product.

    activation, linear_norm: a name, a reference "file.py:Name", or a table of `name` and options;
    the normalisation stands after each hidden linear layer, before its activation. forms: for each
    module made, what makes its like for a stack of so many seeds. Raises UsageError for others.
    """

    activation: Any = "relu"
    linear_norm: Any = "none"
    forms: dict[nn.Module, Callable[[int], nn.Module | None]] = field(
        default_factory=dict, compare=False, repr=False
    )

    _activation: Part = field(init=False, repr=False, compare=False)
    _norm: Part = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Look both up."""
        activation = Part("activation", self.activation, registry.activations)
        object.__setattr__(self, "_activation", activation)
        norm = Part("linear_norm", self.linear_norm, registry.norms)
        object.__setattr__(self, "_norm", norm)

    @classmethod
    def read(cls, options: Mapping[str, Any], activation: str = "relu") -> Style:
        """Take the common options out of a table; `activation` is the one without that key."""
        return cls(options.get("activation", activation), options.get("linear_norm", "none"))

    @property
    def features(self) -> int:
        """Features that one unit gives."""
        return self._activation.features

    def units(self, width: int) -> int:
        """Return how many units make `width` features; raises UsageError where none do."""
        if width % self.features:
            raise self._activation.error(
                f"a layer of width {width}: every width must be a multiple of {self.features}, "
                "the features of one unit"
            )
        return width // self.features

    def make_activation(self, dim: int = FEATURES_LAST, stack: int | None = None) -> nn.Module:
        """Return a new activation whose features lie along `dim`, counted from the last."""
        module = self._activation.build(dim, stack)
        if module is None:
            raise self._activation.error("it makes no module")
        self.forms[module] = functools.partial(self._activation.build, dim)
        return module

    def make_linear_norm(self, units: int, stack: int | None = None) -> nn.Module | None:
        """Return a new normalisation for a linear layer's `units`, or None."""
        module = self._norm.build(units, stack)
        if module is not None:
            self.forms[module] = functools.partial(self._norm.build, units)
        return module


def convolution(
    style: Style, inputs: int, width: int, index: int, *, bias: bool
) -> OrderedDict[str, nn.Module]:
    """Return a 3 x 3 convolution with its BatchNorm and activation; `width` channels come out."""
    units = style.units(width)
    return OrderedDict(
        {
            f"conv{index}": nn.Conv2d(inputs, units, 3, padding=1, bias=bias),
            f"conv_norm{index}": nn.BatchNorm2d(units),
            f"conv_activation{index}": style.make_activation(CHANNELS),
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
