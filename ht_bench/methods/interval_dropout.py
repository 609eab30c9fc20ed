"""Activation by interval-wise dropout (AID): dropout that takes the place of the non-linearity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method


@dataclass(eq=False)
class IntervalDropout(Method):
    """In training x · Bern(p) for x ≥ 0 and x · Bern(1 − p) for x < 0; p x⁺ + (1 − p) x⁻ after.

    keep: p, from 0.5 (dropout of a linear network) to 1 (ReLU). Every activation is replaced, and
    none is scaled by 1/p. Park et al. 2025 (2502.01342).
    """

    name = "interval-dropout"
    network: ClassVar[Mapping[str, Any]] = {
        "activation": {"name": "interval-dropout", "keep": "$keep"}
    }

    keep: float = 0.9

    def __post_init__(self) -> None:
        """Check the probability."""
        super().__post_init__()
        if not 0.5 <= self.keep <= 1:
            raise UsageError(
                f"interval-dropout: keep = {self.keep} must lie between 0.5 (dropout of a linear "
                "network) and 1 (ReLU)."
            )
