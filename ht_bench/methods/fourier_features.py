"""Deep Fourier features: every hidden layer puts out sine and cosine of its pre-activations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ht_bench.methods.base import Method


@dataclass(eq=False)
class FourierFeatures(Method):
    """Activations [sin(x), cos(x)], unscaled, on half the units, so that widths stay.

    Lewandowski et al. 2025 (2410.20634). Of ResNet-18 the ReLUs behind a residual sum stay: twice
    the features would not fit the next identity shortcut.
    """

    name = "fourier-features"
    network: ClassVar[Mapping[str, Any]] = {"activation": "fourier"}
