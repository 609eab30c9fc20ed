"""Self-distillation from the slow copy (a baseline of Lee et al. 2024, 2406.02596)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.ema import ExponentialMovingAverage


@dataclass(eq=False)
class SelfDistillation(ExponentialMovingAverage):
    """+ λ T² KL(softmax(z_s/T) ‖ softmax(z/T)), mean over samples; the teacher is the tortoise.

    λ = `strength`, T = `temperature`. The teacher runs in evaluation mode, without gradient; the
    trained network is the one judged. The loop must own its loss and add `auxiliary_loss`.
    """

    name = "self-distillation"
    capturable = True
    has_tortoise = False  # it teaches; the trained network is judged

    strength: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strength < 0 or self.temperature <= 0:
            raise UsageError(
                f"strength = {self.strength}, temperature = {self.temperature}: the first is "
                "zero or more, the second above zero."
            )

    evaluating = Method.evaluating

    def auxiliary_loss(self, inputs: Tensor, outputs: Tensor) -> Tensor | None:
        """Return the divergence from teacher to student, each seed's mean summed over seeds."""
        if not self.strength:
            return None
        with torch.no_grad(), self.slow_in_place():
            taught = self.module(inputs)
        temperature = self.temperature
        student = log_softmax(outputs / temperature, dim=-1)
        teacher = log_softmax(taught / temperature, dim=-1)
        divergence = kl_div(student, teacher, reduction="none", log_target=True).sum(-1)
        return self.strength * temperature**2 * divergence.mean(-1).sum()
