"""Methods that change the network before the optimizer exists: LayerNorm, CReLU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ht_bench.methods.base import Method


@dataclass(eq=False)
class LayerNorm(Method):
    """LayerNorm after each hidden linear layer, before its non-linearity."""

    name = "layer-norm"
    network: ClassVar[Mapping[str, Any]] = {"linear_norm": "layer"}


@dataclass(eq=False)
class ConcatenatedReLU(Method):
    """CReLU [relu(x), relu(−x)] (2303.07507); hidden layers halve so that widths stay."""

    name = "crelu"
    network: ClassVar[Mapping[str, Any]] = {"activation": "crelu"}
