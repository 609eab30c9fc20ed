"""Self-normalized resets: a unit that has been silent for unusually long is recycled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ht_bench.errors import UsageError
from ht_bench.methods.recycling import PeriodicRecycling, take

BINS = 512
"""Longest time between two firings, in steps, that is told apart from longer ones."""


@dataclass(eq=False)
class SelfNormalizedResets(PeriodicRecycling):
    """A unit is recycled when silent for longer than the η-percentile of its times between firings.

    Farias & Jozefiak 2025 (2410.20098, Algorithm 1), η = `percentile`; with 1 no unit is recycled.
    Time is counted in optimizer steps, as the paper's code does up to the size of a batch: a unit
    fires in a step if it is positive on any example (and position, and feature) of its batch. Each
    unit keeps a histogram of its times, to which the silence that ended in a reset is added, as in
    that code; the code empties it now and then, here it is kept. `minimum`: no threshold is lower
    (1 in the code), and it is the threshold of a unit that has fired less than twice. Silences are
    looked at every `every` steps.

    A recycled unit gets incoming weights and bias as a new network's, outgoing weights and moments
    0.
    """

    name = "self-normalized-resets"
    capturable = True

    every: int = 10
    percentile: float = 0.98
    minimum: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.percentile <= 1:
            raise UsageError(
                f"percentile = {self.percentile}: a percentile lies above 0 and is at most 1."
            )
        whole = isinstance(self.minimum, int) and not isinstance(self.minimum, bool)
        if not whole or not 1 <= self.minimum < BINS:
            raise UsageError(f"minimum = {self.minimum!r}: give 1 to {BINS - 1} steps.")

    @property
    def recycles(self) -> bool:
        """Whether any silence can be too long."""
        return self.percentile < 1

    def setup(self) -> None:
        """Begin with silences of zero and empty histograms."""
        super().setup()
        watched = self.groups if self.recycles else []
        self._silences = [self.zeros(units, 1, torch.int64) for units in watched]
        # [S?, units, BINS]: how often the unit fired after 1, 2, ... steps; the last bin: or more.
        self._times = [self.zeros(units, BINS, torch.int32).mT.contiguous() for units in watched]

    def observe(self, features: Tensor, between: tuple[int, ...]) -> Tensor:
        """Return 1 for each unit that fires on any example, else 0, [S?, 1, units]."""
        # The largest activation rather than `any`: one reduction over several dimensions.
        return (features.amax(between).amax(-2, keepdim=True) > 0).to(torch.float32)

    def after_step(self) -> None:
        """Let silences grow by a step, and note those that end."""
        for value, silence, times in zip(self.activity, self._silences, self._times, strict=True):
            silence.add_(1)
            fires = value > 0
            self._note(times, silence, fires)
            silence.masked_fill_(fires, 0)

    def _note(self, times: Tensor, silence: Tensor, ends: Tensor) -> None:
        """Count the silences that end, [S?, 1, units], in their units' histograms."""
        place = silence.sub(1).clamp(0, BINS - 1).mT  # [S?, units, 1]
        counts = times.gather(-1, place) + ends.mT.to(times.dtype)
        # Not scatter_add_, which CUDA does in any order; each unit has one place.
        times.scatter_(-1, place, counts)

    def _thresholds(self, times: Tensor) -> Tensor:
        """Return the η-percentile of each unit's times, [S?, 1, units], in steps."""
        reached = times.cumsum(-1, dtype=times.dtype)
        total = reached[..., -1:]
        # The first time up to which a share of η lies: so many are below it.
        below = (reached < self.percentile * total).sum(-1, keepdim=True)
        return (below + 1).masked_fill(total == 0, 1).clamp(min=self.minimum).mT

    def chosen(self) -> list[Tensor]:
        """Return the units whose silence is too long; it is over and counted."""
        masks = []
        for silence, times in zip(self._silences, self._times, strict=True):
            mask = silence > self._thresholds(times)
            self._note(times, silence, mask)
            silence.masked_fill_(mask, 0)
            masks.append(mask.squeeze(-2))
        return masks

    def state_dict(self) -> dict[str, Any]:
        """Return silences and histograms too."""
        kept = (("silences", self._silences), ("times", self._times))
        tensors = {key: {str(i): t for i, t in enumerate(values)} for key, values in kept}
        return {**super().state_dict(), **tensors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over silences and histograms too."""
        super().load_state_dict(state)
        take(self._silences, state["silences"])
        take(self._times, state["times"])
