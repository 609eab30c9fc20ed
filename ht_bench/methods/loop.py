"""What a training loop offers a method beyond gradients and weights, and what methods need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ht_bench.errors import Unsuitable, did_you_mean

Batch = tuple[Tensor, Tensor]
"""Inputs as the module takes them, and labels."""

NEEDS = {
    "auxiliary loss": "adds to the loss",
    "phase length": "shortens phases",
    "network": "changes a task's [net] table",
    "second pass": "computes the gradient twice in each step",
    "data": "reads training examples between the steps",
    "old data": "reads the examples of the phase that has ended",
    "second batch": "draws a second batch in each step",
    "activations": "watches what the units put out",
    "outputs": "adds to what the module puts out",
}
"""Everything that a method may need, and what a method that needs it does."""

BY_HOOK = {
    "auxiliary_loss": "auxiliary loss",
    "phase_steps": "phase length",
    "ascend": "second pass",
}
"""The need that follows from overriding a hook."""

LEFT_TO_THE_PROGRAM = frozenset(
    {"auxiliary loss", "phase length", "network", "second pass", "activations", "outputs"}
)
"""What a program that is not one of this package's loops carries out itself, or hooks do."""


@dataclass(frozen=True)
class Loop:
    """What a loop offers; a program of one's own passes what it has: `attach(..., loop=Loop(...))`.

    name: what it is, in refusals. offers: of NEEDS, beyond those that the functions below stand
    for. batches: the open phase's training examples, unaugmented, in order, each call anew.
    old_batches: the same of the phase that has ended, within `on_phase`. loss: (outputs, labels) →
    a scalar, each seed's mean summed. second_batch: inputs of another batch of what is trained on.
    outputs: those inputs → what the module puts out for them, as one tensor. second_pass: whether
    the loop itself calls `ascend` and `descend` around a second pass; else a closure is needed.
    """

    name: str = "this program"
    offers: frozenset[str] = LEFT_TO_THE_PROGRAM
    batches: Callable[[], Iterator[Batch]] | None = None
    old_batches: Callable[[], Iterator[Batch]] | None = None
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    second_batch: Callable[[], Any] | None = None
    outputs: Callable[[Any], Tensor] | None = None
    second_pass: bool = False

    def lacks(self, needs: frozenset[str]) -> list[str]:
        """Return which of `needs` the loop does not offer, in the order of NEEDS."""
        offers = set(self.offers)
        if self.batches is not None and self.loss is not None:
            offers.add("data")
        if self.old_batches is not None and self.loss is not None:
            offers.add("old data")
        if self.second_batch is not None and self.outputs is not None:
            offers.add("second batch")
        return [need for need in NEEDS if need in needs and need not in offers]

    def check(self, name: str, needs: frozenset[str]) -> None:
        """Raise Unsuitable, in one sentence, unless the loop offers what the method `name` needs.

        Raises ValueError for a need that is no word of NEEDS: the method's author wrote it.
        """
        for need in needs - NEEDS.keys():
            raise ValueError(
                f"'{name}' needs '{need}', which no loop knows.{did_you_mean(need, NEEDS)} "
                f"Known: {', '.join(NEEDS)}."
            )
        for need in self.lacks(needs):
            raise Unsuitable(
                f"'{name}' {NEEDS[need]}, which {self.name} does not offer ('{need}'); train it "
                "with `ht-bench run` on a task of data, or pass loop=ht_bench.Loop(...) to attach."
            )
