"""When a supervised run is diagnosed, and with what: cheap measures always, costly ones if asked.

No diagnostic changes a bit of training: what is trained, drawn or captured is left as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.networks.change import Seen, effective_learning_rate, see
from ht_bench.networks.curvature import curvature
from ht_bench.networks.diagnostics import diagnose
from ht_bench.networks.probe import trainability
from ht_bench.networks.stacking import is_stacked
from ht_bench.streams.task import OptimizerSpec
from ht_bench.training import build
from ht_bench.training.accuracy import losses
from ht_bench.training.batches import Examples
from ht_bench.training.history import History, point

DIAGNOSED = 256
"""Training examples that diagnostics look at."""


@dataclass(frozen=True)
class Schedule:
    """What is diagnosed and how often; it decides nothing that is trained.

    level: "basic", or "all" with the costly ones (curvature, trainability probe). per_phase: times
    in each phase, evenly over its points; the last time is its end. Raises UsageError for others.
    """

    level: str = "basic"
    per_phase: int = 1

    def __post_init__(self) -> None:
        if self.level not in ("basic", "all"):
            raise UsageError(f"diagnostics = {self.level!r}: choose basic or all.")
        if self.per_phase < 1:
            raise UsageError(f"{self.per_phase} diagnoses per phase: give 1 or more.")

    @property
    def costly(self) -> bool:
        """Whether the costly ones are asked for."""
        return self.level == "all"

    def times(self, grid: Sequence[int]) -> set[int]:
        """Return at which points of a phase it is diagnosed."""
        count = min(self.per_phase, len(grid))
        return {grid[-(-len(grid) * (k + 1) // count) - 1] for k in range(count)}


class Diagnoser:
    """Adds diagnostics to a history, on the phase's first training examples."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        spec: OptimizerSpec,
        history: History,
        initial: Mapping[str, Tensor],
        classes: int,
    ) -> None:
        self.module, self.optimizer, self.spec = module, optimizer, spec
        self.history, self.initial, self.classes = history, initial, classes
        self._start: Seen | None = None

    def begin(self, training: Examples) -> None:
        """Note what the network makes of the phase's examples before it trains on them."""
        self._start = see(self.module, self._inputs(training)[0])

    def add(self, phase: int, step: int, training: Examples, costly: bool) -> None:
        """Add diagnostics at a step; costly: also curvature and the trainability probe."""
        inputs, labels = self._inputs(training)
        stacked = is_stacked(self.module)

        def loss(outputs: Tensor) -> Tensor:
            return losses(outputs if stacked else outputs[None], labels).mean(1).sum()

        values = diagnose(self.module, inputs, loss, self.initial)
        values["weights/effective_learning_rate"] = effective_learning_rate(
            self.module, self.optimizer
        )
        if self._start is not None:
            values |= self._start.churn(see(self.module, inputs))
        if costly:
            values |= curvature(self.module, inputs, loss)
            values |= trainability(
                self.module,
                inputs,
                lambda twin: build.optimizer(self.spec, twin),
                classes=self.classes,
                clip=self.spec.clip,
            )
        self.history.diagnostics.append(point(phase, step, values))

    def _inputs(self, training: Examples) -> tuple[Tensor, Tensor]:
        inputs, labels = training.slice(0, DIAGNOSED)
        return inputs if is_stacked(self.module) else inputs[0], labels

    def state_dict(self) -> dict[str, Any]:
        """Return what was noted at the phase's start; the history saves itself."""
        return {} if self._start is None else dict(vars(self._start))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        device = next(self.module.parameters()).device
        held = {name: tensor.to(device) for name, tensor in state.items()}
        self._start = Seen(**held) if held else None
