"""Stochastic weight averaging (Izmailov et al. 2018, 1803.05407)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.methods.slow_weights import SlowWeights
from ht_bench.methods.statistics import statistics_of
from ht_bench.networks.stacking import is_stacked


@dataclass(eq=False)
class StochasticWeightAveraging(SlowWeights):
    """The equal average of the weights from a share of each phase on is judged.

    The first model is taken after floor(`start` × steps) steps of the phase (after its first, if
    that is none), then one every `every` steps ("1 epochs" in the paper); before it the trained
    weights are judged, whose training is as none's. The learning rate stays the task's. Where
    the module has running statistics they are measured anew over the phase's training examples
    when the average is judged: batches' means and variances, weighted by their sizes as in the
    paper's code, all else in evaluation mode. Raises UsageError unless 0 ≤ start < 1.
    """

    name = "swa"
    needs: ClassVar[frozenset[str]] = frozenset({"data"})

    start: float = 0.75
    every: int | str = "1 epochs"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.start < 1:
            raise UsageError(f"start = {self.start}: a share of the phase, 0 or more and below 1.")

    def setup(self) -> None:
        """Start with an empty average."""
        super().setup()
        self._models, self._is_settled = 0, False

    def on_phase(self, index: int) -> None:
        """Begin an average of the new phase's weights alone."""
        self._steps, self._models, self._is_settled = 0, 0, False

    def is_slow_judged(self) -> bool:
        """Whether the average has begun."""
        return self._models > 0

    def due(self) -> int | None:
        """Return the steps until the next model is taken."""
        if self._models:
            return super().due()
        if self.phase_length is None:
            raise UsageError(
                f"'{self.name}' was not told the length of the phase; call enter_phase before its "
                "first step."
            )
        begin = int(self.start * self.phase_length + 1e-9)  # 100 × 0.29 is 28.999…
        return max(1, begin - self._steps)

    def move(self) -> None:
        """Take one more model into the average, by its running mean."""
        self._models += 1
        self.slow.update(1 - 1 / self._models)
        self._is_settled = False

    def settle(self) -> None:
        """Measure running statistics, where the average is another than when it last was judged."""
        if not self._is_settled:
            assert self.loop.batches is not None  # `needs` had it checked
            measure_statistics(self.module, (inputs for inputs, _ in self.loop.batches()))
            self._is_settled = True

    def resync(self) -> None:
        """Begin again with an empty average."""
        super().resync()
        self._models, self._is_settled = 0, False

    def state_dict(self) -> dict[str, Any]:
        """Return the average without its statistics, which are measured, and the clocks."""
        state = super().state_dict()
        measured = self._measured()
        slow = {name: tensor for name, tensor in state["slow"].items() if name not in measured}
        return {**state, "slow": slow, "models": self._models}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the average and the clocks."""
        models = state["models"]
        mine = {name: t for name, t in self.slow.named().items() if name in self._measured()}
        super().load_state_dict({**state, "slow": {**mine, **state["slow"]}})
        self._models, self._is_settled = models, False

    def _measured(self) -> set[str]:
        """Return the names of the running statistics among the slow tensors."""
        return set(self.slow.named()) - {name for name, _ in self.module.named_parameters()}


@torch.no_grad()
def measure_statistics(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set a module's running statistics to their means over `batches`, weighted by batch sizes.

    The module is in evaluation mode before and after; only what holds statistics trains. A module
    without any sees no batch.
    """
    holders = [child for child in module.modules() if statistics_of(child)]
    if not holders:
        return
    momenta = [getattr(child, "momentum", None) for child in holders]
    others = [(t, t.clone()) for child in holders for t in _counters(child)]
    for child in holders:
        child.train()
        for name in statistics_of(child):
            child.get_buffer(name).zero_()
    seen, examples_dim = 0, int(is_stacked(module))
    try:
        for inputs in batches:
            size = inputs.shape[examples_dim]
            seen += size
            for child in holders:
                child.momentum = size / seen  # type: ignore[assignment]
            module(inputs)
    finally:
        for child, momentum in zip(holders, momenta, strict=True):
            child.momentum = momentum  # type: ignore[assignment]
            child.eval()
        for tensor, before in others:
            tensor.copy_(before)


def _counters(module: nn.Module) -> list[Tensor]:
    """Return the buffers that are no statistics, such as BatchNorm's count of batches."""
    statistics = statistics_of(module)
    return [buffer for name, buffer in module.named_buffers() if name not in statistics]
