"""Churn reduction (Tang et al. 2025, C-CHAIN, 2506.00592, after CHAIN, 2409.04792)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from ht_bench.errors import UsageError
from ht_bench.methods.average import SlowCopy
from ht_bench.methods.base import Method
from ht_bench.networks.modes import evaluation_mode
from ht_bench.networks.stacking import per_seed


@dataclass(eq=False)
class ChurnReduction(Method):
    """+ c · D(f_θ, f_θ₋), on a second batch, θ₋ the weights of one step earlier; c = `strength`.

    D = `distance`: "squares", the mean squared difference of the outputs (Q values, means of
    actions), or "divergence", Σ p₋ (log p₋ − log p) of their softmax, as the paper has it for
    policies with discrete actions. Outputs are taken in evaluation mode. The gradient is of a
    forward and backward pass of its own and is added after clipping. c stays as given: the
    paper's code adapts it to the size of the agent's own loss, which a method does not see.
    """

    name = "churn"
    needs: ClassVar[frozenset[str]] = frozenset({"second batch"})
    capturable = False

    strength: float = 1.0
    distance: Literal["squares", "divergence"] = "squares"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strength < 0:
            raise UsageError(f"strength = {self.strength}: a penalty is zero or more.")
        if self.distance not in ("squares", "divergence"):
            raise UsageError(f"distance = {self.distance!r}: 'squares' or 'divergence'.")

    def setup(self) -> None:
        """Keep the weights; before the second step there are no earlier ones."""
        self._earlier = SlowCopy(self.module, "copy")
        self._has_earlier = False

    def before_step(self) -> None:
        """Add the gradient of the distance; the weights are the next step's earlier ones."""
        if not self.strength:
            return
        if self._has_earlier:
            self._add_gradients()
        self._earlier.update(0.0)
        self._has_earlier = True

    def _add_gradients(self) -> None:
        second_batch, outputs = self.loop.second_batch, self.loop.outputs
        assert second_batch is not None and outputs is not None  # `needs` had them checked
        inputs = second_batch()
        trained = [p for p in self.module.parameters() if p.grad is not None]
        with evaluation_mode(self.module):
            with self._earlier.in_place_of_fast():
                earlier = outputs(inputs)
            with torch.enable_grad():
                distance = self._distance(outputs(inputs), earlier)
                gradients = torch.autograd.grad(distance, trained, allow_unused=True)
        for parameter, gradient in zip(trained, gradients, strict=True):
            if gradient is not None and parameter.grad is not None:
                parameter.grad.add_(gradient, alpha=self.strength)

    def _distance(self, outputs: Tensor, earlier: Tensor) -> Tensor:
        """Return each seed's distance, summed: seeds share no weight."""
        if self.distance == "squares":
            each = (outputs - earlier) ** 2
        else:
            present, past = log_softmax(outputs, -1), log_softmax(earlier, -1)
            each = (past.exp() * (past - present)).sum(-1)
        return per_seed(each, self.stacked).mean(1).sum()

    def resync(self) -> None:
        """Forget the earlier weights."""
        self._earlier.restart()
        self._has_earlier = False
        super().resync()

    def state_dict(self) -> dict[str, Any]:
        """Return the earlier weights."""
        return {"earlier": self._earlier.state(), "has_earlier": self._has_earlier}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the earlier weights."""
        has_earlier = state["has_earlier"]
        self._earlier.load(state["earlier"])
        self._has_earlier = has_earlier
