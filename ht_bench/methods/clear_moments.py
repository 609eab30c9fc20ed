"""The optimizer's state cleared now and then, weights untouched: a control for what clears it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method


@dataclass(eq=False)
class ClearMoments(Method):
    """After every `every` optimizer steps the optimizer forgets its moments; weights stay.

    The clock runs on across phases.
    """

    name = "clear-moments"

    every: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = isinstance(self.every, int) and not isinstance(self.every, bool)
        if not (whole and self.every >= 1):
            raise UsageError(f"every = {self.every}: give 1 step or more.")

    def setup(self) -> None:
        """Start the clock at zero."""
        self._steps = 0

    def due(self) -> int | None:
        """Return the steps until the interval is full."""
        return max(1, self.every - self._steps)

    def count_steps(self, steps: int) -> None:
        """Let the clock go on."""
        super().count_steps(steps)
        self._steps += steps

    def act(self) -> None:
        """Clear the moments and start the clock again."""
        self._steps = 0
        self.clear_optimizer_state()

    def resync(self) -> None:
        """Start the clock again."""
        super().resync()
        self._steps = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the clock."""
        return {"steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the clock."""
        self._steps = state["steps"]
