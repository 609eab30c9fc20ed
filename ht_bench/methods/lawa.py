"""LAWA, latest weight averaging (Kaddour 2022, "Stop Wasting My Time!", 2209.14981)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ht_bench.errors import UsageError
from ht_bench.methods.copies import Copies
from ht_bench.methods.slow_weights import SlowWeights


@dataclass(eq=False)
class LatestWeightAveraging(SlowWeights):
    """The equal average of the `last` checkpoints, one taken every `every` steps, is judged.

    Training is as none's. `every`: optimizer steps, or "1 epochs" as in the paper. Before the
    first checkpoint the trained weights are judged; checkpoints of an earlier phase count like
    any others. `buffers` "average" averages running statistics too. Memory: `last` + 1 copies of
    the weights.
    """

    name = "lawa"

    every: int | str = "1 epochs"
    last: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.last, bool) or self.last < 1:
            raise UsageError(f"last = {self.last}: average 1 checkpoint or more.")

    def setup(self) -> None:
        """Make room for the checkpoints."""
        super().setup()
        statistics = self.buffers == "average"
        self._ring = [
            Copies(self.module, statistics=statistics, wide=True) for _ in range(self.last)
        ]
        self._taken = 0

    def is_slow_judged(self) -> bool:
        """Whether there is a checkpoint."""
        return self._taken > 0

    def move(self) -> None:
        """Take a checkpoint in the place of the oldest, and average anew."""
        self._ring[self._taken % self.last].restart()
        self._taken += 1
        self._average()

    def _average(self) -> None:
        """Sum in the ring's own order, so that a resumed run has the same bits."""
        first, *others = [copy.values for copy in self._present()]
        torch._foreach_copy_(self.slow.values, first)
        for other in others:
            torch._foreach_add_(self.slow.values, other)
        torch._foreach_div_(self.slow.values, 1 + len(others))

    def _present(self) -> list[Copies]:
        return self._ring[: min(self._taken, self.last)]

    def resync(self) -> None:
        """Forget all checkpoints."""
        for copy in self._ring:
            copy.restart()
        self._taken = 0
        super().resync()

    def state_dict(self) -> dict[str, Any]:
        """Return the checkpoints, of which the average is made, and the clock."""
        ring = [
            {name: tensor.clone() for name, tensor in copy.named().items()}
            for copy in self._present()
        ]
        return {**super().state_dict(), "ring": ring, "taken": self._taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over checkpoints, average and clock."""
        ring, taken = state["ring"], state["taken"]
        if len(ring) != min(taken, self.last):
            raise UsageError(
                f"The checkpoint holds {len(ring)} of the weights that lawa averages; it was "
                f"written with another last than {self.last}, give that one."
            )
        super().load_state_dict(state)
        self._taken = taken
        for copy, saved in zip(self._present(), ring, strict=True):
            copy.load(saved)
