"""Accuracy and loss of a network over test or training examples, one value per seed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ht_bench.training.batches import Examples
from ht_bench.training.capture import Captured, Graphs, storage
from ht_bench.training.compiled import CompiledForward
from ht_bench.training.device import Compute

EVALUATION_BATCH = 1000
Forward = nn.Module | CompiledForward


def logits(module: Forward, inputs: Tensor) -> Tensor:
    """Return [S, B, classes] for inputs [S, B, ...], whether or not the module is stacked.

    A lone network's images are laid out channels last, which convolutions are fastest on.
    """
    if getattr(module, "stacked", False):
        return module(inputs)
    return module(inputs[0].contiguous(memory_format=torch.channels_last))[None]


def losses(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return each seed's cross-entropy per example: [S, B] from logits [S, B, classes]."""
    flat = cross_entropy(outputs.flatten(0, 1).float(), labels.flatten(), reduction="none")
    return flat.view(labels.shape)


class Evaluation:
    """Measures networks over examples, each size of batch captured where there are `graphs`."""

    def __init__(self, compute: Compute, graphs: Graphs | None = None) -> None:
        self._compute, self._graphs = compute, graphs
        self._run = Captured(graphs, self._add, "Evaluation")
        self._inputs: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}
        self._sums = torch.empty(0)

    @torch.no_grad()
    def measure(self, module: nn.Module, examples: Examples) -> tuple[Tensor, Tensor]:
        """Return (accuracy, mean loss), float64 [S] each; the module stays in its mode."""
        seeds = len(examples.labels)
        if self._sums.shape != (2, seeds):
            shape, device = (2, seeds), self._compute.device
            self._sums = torch.zeros(shape, dtype=torch.float64, device=device)
        self._sums.zero_()
        where = storage(module) if self._graphs is not None else ()
        for start in range(0, examples.examples, EVALUATION_BATCH):
            inputs, labels = examples.slice(start, start + EVALUATION_BATCH)
            if self._graphs is not None:
                inputs, labels = self._hold(inputs, labels)
            self._run((where, *inputs.shape), module, inputs, labels)
        correct, loss = (self._sums / examples.examples).unbind()
        return correct, loss

    def _hold(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Copy a batch to where captures of its shape read it."""
        held = self._inputs.get(tuple(inputs.shape))
        if held is None:
            held = self._inputs[tuple(inputs.shape)] = inputs.clone(), labels.clone()
        else:
            held[0].copy_(inputs)
            held[1].copy_(labels)
        return held

    def _add(self, module: nn.Module, inputs: Tensor, labels: Tensor) -> None:
        with self._compute.autocast():
            outputs = logits(module, inputs)
        correct, loss = self._sums.unbind()
        correct += (outputs.argmax(-1) == labels).sum(1)
        loss += losses(outputs, labels).sum(1).double()
