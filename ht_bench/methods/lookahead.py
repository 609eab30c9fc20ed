"""Lookahead (Zhang et al. 2019, "k steps forward, 1 step back", 1907.08610)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ht_bench.errors import UsageError
from ht_bench.methods.average import Buffers
from ht_bench.methods.slow_weights import SlowWeights


@dataclass(eq=False)
class Lookahead(SlowWeights):
    """Every k = `every` steps s ← s + α (θ − s), then θ ← s; θ is trained, s is judged.

    α = `share`; 1 trains as none. `optimizer_state`: "keep" the inner optimizer's moments (the
    paper's choice) or "clear" them at each k-th step (its option). The clock runs on across
    phases. `buffers` "copy" judges with the running statistics that training has, as the paper's
    code does, which does not touch them. Hare & Tortoise with that interval and 1 − μᵏ = α is a
    near twin (docs/neighbours.md). Raises UsageError unless 0 < share ≤ 1.
    """

    name = "lookahead"

    every: int = 5
    buffers: Buffers = "copy"
    share: float = 0.5
    optimizer_state: Literal["keep", "clear"] = "keep"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise UsageError(f"share = {self.share}: it lies above 0 and is at most 1.")
        if self.optimizer_state not in ("keep", "clear"):
            raise UsageError(f"optimizer_state = {self.optimizer_state!r}: 'keep' or 'clear'.")

    def move(self) -> None:
        """Step the slow weights toward the fast ones, which go back to them."""
        self.slow.update(1 - self.share)
        self.slow.load_into_fast()
        if self.optimizer_state == "clear":
            self.clear_optimizer_state()
