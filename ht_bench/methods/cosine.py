"""A learning rate that falls from its top to nothing in each phase, and starts at the top again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ht_bench.errors import Unsuitable, UsageError
from ht_bench.methods.base import Method


@dataclass(eq=False)
class Cosine(Method):
    """Step t of T of a phase (t from 0) has the rate lr · (f + (1 − f) (1 + cos(π t / T)) / 2).

    f = `floor`, 1 trains as none; lr is the rate that the loop or a scheduler has set, warm-up
    included: it is scaled for the step and put back after. T comes from the loop; `steps` says it
    where no loop tells (an agent: its updates in a phase), after which the rate stays at the
    floor. Without floor it is torch's `CosineAnnealingLR` with T_max = T, begun anew in each
    phase (Loshchilov & Hutter 2017, 1608.03983, with one period a phase). Raises UsageError
    unless 0 ≤ floor ≤ 1.
    """

    name = "cosine"
    capturable = True

    floor: float = 0.0
    steps: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.floor <= 1:
            raise UsageError(f"floor = {self.floor}: a share of the rate, from 0 to 1.")
        if self.steps is not None and (isinstance(self.steps, bool) or self.steps < 1):
            raise UsageError(f"steps = {self.steps}: give 1 step or more, or None.")

    def setup(self) -> None:
        """Start the clock."""
        if self.steps is None and "phase length" not in self.loop.offers:
            raise Unsuitable(
                f"'{self.name}' needs the length of a phase, which {self.loop.name} does not "
                "tell; give it as steps, in optimizer steps."
            )
        self._step, self._length = 0, self.steps or 0
        # The same clock as tensors, which a captured step reads and lets go on.
        self._place, self._end = (torch.zeros((), dtype=torch.float64) for _ in "ab")
        self._tops: list[float | Tensor] = []
        self._set_clock(0, self.steps or 0)

    def enter_phase(
        self, index: int, steps: int, epoch_steps: int | None, phases: int | None
    ) -> int:
        """As every method; the phase begins with the top of the rate."""
        allowed = super().enter_phase(index, steps, epoch_steps, phases)
        self._set_clock(0, self.steps or steps)
        return allowed

    def _set_clock(self, step: int, length: int) -> None:
        self._step, self._length = step, length
        self._place.fill_(step)
        self._end.fill_(length)

    def before_step(self) -> None:
        """Scale the rate of every group; a closure's further passes leave it scaled."""
        if not self._length:
            raise UsageError(
                f"'{self.name}' was not told the length of the phase; call enter_phase or give it "
                "as steps."
            )
        if not self._tops:
            for group in self._groups():
                self._tops.append(group["lr"])
                group["lr"] = self._scaled(group)

    def after_step(self) -> None:
        """Put every rate back, and let the tensors' clock go on."""
        for group, top in zip(self._groups(), self._tops, strict=True):
            group["lr"] = top
        self._tops.clear()
        self._place += 1

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._hooks.optimizers for group in optimizer.param_groups]

    def _scaled(self, group: dict[str, Any]) -> float | Tensor:
        top = group["lr"]
        if isinstance(top, Tensor):
            return (top * self._factor_on(top.device)).to(top.dtype)
        if self.is_advanced_by_loop and group.get("fused"):
            # A number would be captured as it is now; fused kernels take a tensor in its place.
            device = group["params"][0].device
            rate = top * self._factor_on(device)
            return rate if device.type == "cpu" else rate.float()
        place = torch.tensor(self._step, dtype=torch.float64)
        return float(top * self._factor(place, self._length))

    def _factor_on(self, device: torch.device) -> Tensor:
        if self._place.device != device:
            self._place, self._end = self._place.to(device), self._end.to(device)
        return self._factor(self._place, self._end)

    def _factor(self, place: Tensor, length: Tensor | int) -> Tensor:
        """Return what the rate is multiplied by; tensors alone, so that both clocks round alike."""
        fallen = (place / length).clamp(max=1.0)
        return self.floor + (1 - self.floor) * (1 + torch.cos(math.pi * fallen)) / 2

    def count_steps(self, steps: int) -> None:
        """Let the host's clock go on."""
        super().count_steps(steps)
        self._step += steps

    def state_dict(self) -> dict[str, Any]:
        """Return the clock and the phase's length."""
        return {"step": self._step, "length": self._length}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the clock and the phase's length."""
        self._set_clock(state["step"], state["length"])
