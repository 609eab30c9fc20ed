"""Exponential moving average of the weights, judged in place of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.methods.average import Buffers, SlowCopy
from ht_bench.methods.base import Method
from ht_bench.networks.modes import evaluation_mode


@dataclass(eq=False)
class ExponentialMovingAverage(Method):
    """After every step s ← μ s + (1−μ) θ with μ = `decay`; θ is trained, s is judged.

    `buffers`: "average" or "copy", see `SlowCopy`. Raises UsageError unless 0 ≤ decay ≤ 1.
    """

    name = "ema"
    has_tortoise = True

    decay: float = 0.999
    buffers: Buffers = "average"

    def __post_init__(self) -> None:
        if not 0 <= self.decay <= 1:
            raise UsageError(f"decay = {self.decay}: a decay lies between 0 and 1.")
        if self.buffers not in ("average", "copy"):
            raise UsageError(f"buffers = {self.buffers!r}: it must be 'average' or 'copy'.")

    def setup(self) -> None:
        """Start the slow copy at the present weights."""
        self.tortoise = SlowCopy(self.module, self.buffers)

    def after_step(self) -> None:
        """Average; no value is read back to the host."""
        self.tortoise.update(self.decay)

    @contextmanager
    def evaluating(self) -> Iterator[nn.Module]:
        """Hold the slow weights, in evaluation mode; the trained ones are restored exactly."""
        with evaluation_mode(self.module), self.tortoise.in_place_of_fast():
            yield self.module

    def state_dict(self) -> dict[str, Any]:
        """Return the slow tensors by name."""
        return {"tortoise": {n: t.clone() for n, t in self.tortoise.tensors().items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the slow tensors."""
        tortoise: Mapping[str, Tensor] = state["tortoise"]
        self.tortoise.load(tortoise)
