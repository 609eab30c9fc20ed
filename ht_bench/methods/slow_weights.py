"""A slow copy that is judged in place of the trained weights, and moves every so many steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from ht_bench.errors import UsageError
from ht_bench.methods.average import Buffers, SlowCopy
from ht_bench.methods.base import Method, read_epochs
from ht_bench.networks.modes import evaluation_mode, training_form


@dataclass(eq=False)
class SlowWeights(Method):
    """Base of methods that call `move` after every `every` optimizer steps and judge `slow`.

    `every` counts optimizer steps across phases; written "1 epochs" it is resolved anew in each
    phase and its counter restarts there. `buffers`: "average" or "copy", see `SlowCopy`. The slow
    copy is called `slow`, not `tortoise`: the target networks of agents stay the algorithm's own.
    """

    has_tortoise = True

    every: int | str = 1
    buffers: Buffers = "average"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.every, str):
            read_epochs(self.every)
        elif isinstance(self.every, bool) or self.every < 1:
            raise UsageError(f"every = {self.every}: give 1 step or more.")
        if self.buffers not in ("average", "copy"):
            raise UsageError(f"buffers = {self.buffers!r}: it must be 'average' or 'copy'.")

    def setup(self) -> None:
        """Start the slow copy at the present weights and the clock at zero."""
        self.slow = SlowCopy(self.module, self.buffers)
        self._steps = 0

    def move(self) -> None:
        """Move the slow weights, and the trained ones where the rule says so."""

    def is_slow_judged(self) -> bool:
        """Whether the slow weights are judged by now; else the trained ones are."""
        return True

    def on_phase(self, index: int) -> None:
        """Restart the clock of an interval that is written in epochs."""
        if isinstance(self.every, str):
            self._steps = 0

    def due(self) -> int | None:
        """Return the steps until the interval is full."""
        interval = self.interval(self.every)
        return None if interval is None else max(1, interval - self._steps)

    def count_steps(self, steps: int) -> None:
        """Let the clock go on."""
        super().count_steps(steps)
        self._steps += steps

    def act(self) -> None:
        """Begin the next interval, and move."""
        self._steps = 0
        self.move()

    @contextmanager
    def evaluating(self) -> Iterator[nn.Module]:
        """Hold the weights to judge, in evaluation mode; the trained ones are restored exactly."""
        if not self.is_slow_judged():
            with super().evaluating() as module:
                yield module
            return
        self._watch.look()
        with (
            training_form(self.module),
            self.slow.in_place_of_fast(),
            evaluation_mode(self.module),
        ):
            self.settle()
            yield self.module

    def settle(self) -> None:
        """Prepare the slow weights, in place in the module and in evaluation mode."""

    def resync(self) -> None:
        """Start the slow copy again at the present weights, and the clock."""
        self.slow.restart()
        self._steps = 0
        super().resync()

    def state_dict(self) -> dict[str, Any]:
        """Return the slow tensors by name and the clock."""
        return {"slow": self.slow.state(), "steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the slow tensors and the clock."""
        steps = state["steps"]
        self.slow.load(state["slow"])
        self._steps = steps
