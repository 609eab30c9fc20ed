"""Switch-EMA (Li et al. 2024, "Switch EMA: A Free Lunch for Better Flatness", 2402.09240)."""

from __future__ import annotations

from dataclasses import dataclass

from ht_bench.methods.hare_tortoise import HareTortoise


@dataclass(eq=False)
class SwitchEMA(HareTortoise):
    """After every step s ← μ s + (1−μ) θ, s is judged; at each epoch's end θ ← s.

    This is Hare & Tortoise with `reset_every` "1 epochs", under the name of its own paper. An
    agent has no epochs: give `reset_every` in steps there.
    """

    name = "switch-ema"

    reset_every: int | str | None = "1 epochs"
