"""Early stopping: each phase but the last is trained for a fraction of its steps."""

from __future__ import annotations

from dataclasses import dataclass

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method


@dataclass(eq=False)
class EarlyStop(Method):
    """Train floor(`fraction` × steps) of each phase but the last; 1 does nothing."""

    name = "early-stop"

    fraction: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.fraction <= 1:
            raise UsageError(f"fraction = {self.fraction}: a fraction lies between 0 and 1.")

    def phase_steps(self, index: int, steps: int) -> int:
        """Return all steps of the last phase, a fraction of any other's."""
        if self.phases is None or index == self.phases - 1:
            return steps
        return int(steps * self.fraction + 1e-9)  # 100 × 0.29 is 28.999…
