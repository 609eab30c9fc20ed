"""Exponential moving average of the weights, judged in place of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from ht_bench.errors import UsageError
from ht_bench.methods.average import Buffers, SlowCopy
from ht_bench.methods.base import Method
from ht_bench.networks.modes import evaluation_mode, training_form

PHASE, HORIZON = 20_000, 1_000
"""The paper's setting: phases of 20,000 steps, decay 0.999, which is 1 - 1 / 1,000."""


@dataclass(eq=False)
class ExponentialMovingAverage(Method):
    """After every step s ← μ s + (1−μ) θ with μ = `decay`; θ is trained, s is judged.

    `decay`: "auto" derives it from the length of the phase, so that the average's horizon
    1 / (1 − μ) is a twentieth of it: the paper's 0.999 at 20,000 steps, 0.95 at 400. In a loop
    that tells no length ("auto" there is 0.999) a tortoise that is judged before three horizons
    have passed warns, once. `buffers`: "average" or "copy", see `SlowCopy`. Raises UsageError
    unless 0 ≤ decay ≤ 1.
    """

    name = "ema"
    has_tortoise = True
    capturable = True

    decay: float | str = "auto"
    buffers: Buffers = "average"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.decay, bool | str) and self.decay != "auto":
            raise UsageError(f"decay = {self.decay!r}: give a number from 0 to 1, or 'auto'.")
        if not isinstance(self.decay, str) and not 0 <= self.decay <= 1:
            raise UsageError(f"decay = {self.decay}: a decay lies between 0 and 1.")
        if self.buffers not in ("average", "copy"):
            raise UsageError(f"buffers = {self.buffers!r}: it must be 'average' or 'copy'.")

    def setup(self) -> None:
        """Start the slow copy at the present weights."""
        self.tortoise = SlowCopy(self.module, self.buffers)
        self._seen, self._warned = 0, False
        self._set_phase(None)

    def _set_phase(self, steps: int | None) -> None:
        self._phase = steps
        self._decay = decay_for(steps) if isinstance(self.decay, str) else self.decay

    def enter_phase(
        self, index: int, steps: int, epoch_steps: int | None, phases: int | None
    ) -> int:
        """As every method; the phase's steps decide what is left to "auto"."""
        allowed = super().enter_phase(index, steps, epoch_steps, phases)
        self._set_phase(steps or None)
        return allowed

    def after_step(self) -> None:
        """Average; no value is read back to the host."""
        self.tortoise.update(self._decay)

    def count_steps(self, steps: int) -> None:
        """Count the steps that the tortoise has seen."""
        super().count_steps(steps)
        self._seen += steps

    @contextmanager
    def evaluating(self) -> Iterator[nn.Module]:
        """Hold the slow weights, in evaluation mode; the trained ones are restored exactly.

        What an optimizer or a module in training mode writes meanwhile goes into the slow ones.
        """
        self._watch.look()
        self._warn_if_early()
        with self.slow_in_place():
            yield self.module

    @contextmanager
    def slow_in_place(self) -> Iterator[None]:
        """Hold the slow weights in evaluation mode, in the module itself."""
        with (
            training_form(self.module),
            self.tortoise.in_place_of_fast(),
            evaluation_mode(self.module),
        ):
            yield

    def _warn_if_early(self) -> None:
        if self._warned or self._phase is not None or not self._seen or not self.has_tortoise:
            return
        if round(self._seen * (1 - self._decay), 9) < 3:
            self._warned = True
            warnings.warn(
                f"The tortoise is judged after {self._seen} steps, too few for decay "
                f"{self._decay}: it still holds much of the initial weights; lower decay, so that "
                "1 / (1 - decay) is at most a third of the steps (a twentieth is this "
                "package's rule).",
                stacklevel=4,
            )

    def resync(self) -> None:
        """Start the tortoise again at the present weights."""
        self.tortoise.restart()
        self._seen = 0
        super().resync()

    def state_dict(self) -> dict[str, Any]:
        """Return the slow tensors by name, the steps they have seen, the phase's length."""
        return {"tortoise": self.tortoise.state(), "seen": self._seen, "phase": self._phase}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the slow tensors."""
        self.tortoise.load(state["tortoise"])
        self._seen = state.get("seen", 0)
        self._set_phase(state.get("phase"))


def decay_for(steps: int | None) -> float:
    """Return the decay whose horizon 1 / (1 - decay) is to a phase as the paper's to its own.

    steps: of the phase; None, where nobody tells, gives the paper's.
    """
    if steps is None:
        return 1 - 1 / HORIZON
    return max(0.0, 1 - PHASE / HORIZON / steps)
