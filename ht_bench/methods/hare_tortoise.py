"""Hare & Tortoise networks (Lee et al. 2024, "Slow and Steady Wins the Race", 2406.02596)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ht_bench.errors import UsageError
from ht_bench.methods.base import read_epochs
from ht_bench.methods.ema import ExponentialMovingAverage

SHARE, FALLBACK = 10, 1_000
"""Resets in a phase where `reset_every` is "auto", and its steps where no length is told."""


@dataclass(eq=False)
class HareTortoise(ExponentialMovingAverage):
    """The hare θ is trained, the tortoise s is judged, and now and then the hare goes back to it.

    After every optimizer step s ← μ s + (1−μ) θ with μ = `decay`; every `reset_every` steps
    θ ← s. `reset_every` counts optimizer steps across phases; written "10 epochs" it is resolved
    anew in each phase and its counter restarts there, as in the paper's code; None never resets,
    which is `ema`; "auto" is a tenth of the phase, counted anew in each, as the paper's 10 epochs
    are of its longest (1,000 steps in a loop that tells no length). `first_reset`: steps before
    the first reset, if it differs. `optimizer_state`: "keep" the moments on a reset (the paper's
    code) or "clear" them (the JAX port for RL).
    The reset copies values: hare and tortoise never share storage.
    """

    name = "hare-tortoise"

    reset_every: int | str | None = "auto"
    first_reset: int | None = None
    optimizer_state: Literal["keep", "clear"] = "keep"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.reset_every, str) and self.reset_every != "auto":
            read_epochs(self.reset_every)
        for name, steps in (("reset_every", self.reset_every), ("first_reset", self.first_reset)):
            whole = isinstance(steps, int) and not isinstance(steps, bool) and steps >= 1
            if not (steps is None or whole or (name == "reset_every" and isinstance(steps, str))):
                raise UsageError(f"{name} = {steps}: give 1 step or more, or None.")
        if self.reset_every is None and self.first_reset is not None:
            raise UsageError("reset_every = None never resets; leave first_reset out.")
        if self.optimizer_state not in ("keep", "clear"):
            raise UsageError(f"optimizer_state = {self.optimizer_state!r}: 'keep' or 'clear'.")

    def setup(self) -> None:
        """Start the tortoise at the hare's weights and the clock at zero."""
        super().setup()
        self._steps = 0
        self._has_reset = False
        self._held = False

    def on_phase(self, index: int) -> None:
        """Restart the clock of an interval that belongs to the phase: epochs, "auto"."""
        if isinstance(self.reset_every, str):
            self._steps = 0

    def due(self) -> int | None:
        """Return the steps until the interval is full."""
        interval = self._interval()
        if not self._has_reset and self.first_reset is not None:
            interval = self.first_reset
        return None if interval is None else max(1, interval - self._steps)

    def count_steps(self, steps: int) -> None:
        """Let the clock of resets go on."""
        super().count_steps(steps)
        self._steps += steps

    def act(self) -> None:
        """Reset, or note that a reset is held back."""
        self._steps, self._has_reset = 0, True
        self._held = self.holds_resets
        if not self._held:
            self._return_to_tortoise()

    def _interval(self) -> int | None:
        if self.reset_every != "auto":
            return self.interval(self.reset_every)
        return max(1, self._phase // SHARE) if self._phase else FALLBACK

    def release(self) -> None:
        """Carry out a reset that was held back."""
        if self._held:
            self._return_to_tortoise()

    def _return_to_tortoise(self) -> None:
        self._held = False
        self.tortoise.load_into_fast()
        if self.optimizer_state == "clear":
            self.clear_optimizer_state()

    def resync(self) -> None:
        """Start tortoise and clock again; a reset that was held back is forgotten."""
        super().resync()
        self._steps, self._has_reset, self._held = 0, False, False

    def state_dict(self) -> dict[str, Any]:
        """Return the tortoise and the clock."""
        clock = {"steps": self._steps, "has_reset": self._has_reset, "held": self._held}
        return {**super().state_dict(), **clock}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the tortoise and the clock."""
        clock = state["steps"], state["has_reset"], state["held"]
        super().load_state_dict(state)
        self._steps, self._has_reset, self._held = clock
