"""What the supervised loop offers a method beyond gradients and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ht_bench.methods.loop import LEFT_TO_THE_PROGRAM, Batch, Loop
from ht_bench.networks.stacking import is_stacked
from ht_bench.training.accuracy import losses
from ht_bench.training.batches import Examples


class Offer:
    """The open phase's examples, those of the phase before, and second batches of them.

    examples: phase → its examples. phase: the open one. batch: how many examples a batch has.
    generators: one per seed, from which second batches are drawn.
    """

    def __init__(
        self,
        module: nn.Module,
        examples: Callable[[int], Examples],
        phase: Callable[[], int],
        batch: int,
        generators: list[torch.Generator],
    ) -> None:
        self._module, self._examples, self._phase = module, examples, phase
        self._batch, self._generators = batch, generators
        self._stacked = is_stacked(module)

    def loop(self) -> Loop:
        """Return the offer as methods read it."""
        return Loop(
            name="the supervised loop",
            offers=LEFT_TO_THE_PROGRAM,
            batches=lambda: self._batches(self._phase()),
            old_batches=lambda: self._batches(self._phase() - 1),
            loss=self._loss,
            second_batch=self._second_batch,
            outputs=self._module,
            second_pass=True,
        )

    def _batches(self, phase: int) -> Iterator[Batch]:
        examples = self._examples(phase)
        for start in range(0, examples.examples, self._batch):
            inputs, labels = examples.slice(start, start + self._batch)
            yield self._as_module_takes(inputs), self._as_module_takes(labels)

    def _second_batch(self) -> Tensor:
        examples = self._examples(self._phase())
        drawn = torch.stack(
            [
                torch.randint(examples.examples, (self._batch,), generator=generator)
                for generator in self._generators
            ]
        )
        return self._as_module_takes(examples.pick(drawn.to(examples.labels.device))[0])

    def _loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        if not self._stacked:
            outputs, labels = outputs[None], labels[None]
        return losses(outputs, labels).mean(1).sum()

    def _as_module_takes(self, tensor: Tensor) -> Tensor:
        if self._stacked:
            return tensor
        lone = tensor[0]
        return lone.contiguous(memory_format=torch.channels_last) if lone.dim() == 4 else lone


def offered(module: nn.Module) -> Loop:
    """Return what the loop offers, without a run behind it: to find out who can be attached."""

    def nothing(phase: int) -> Examples:
        raise LookupError("no phase is open")

    return Offer(module, nothing, lambda: 0, 1, []).loop()
