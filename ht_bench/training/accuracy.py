"""Accuracy and loss of a network over test or training examples, one value per seed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ht_bench.networks.stacking import is_stacked
from ht_bench.training.batches import Examples
from ht_bench.training.device import Compute

EVALUATION_BATCH = 1000


def logits(module: nn.Module, inputs: Tensor) -> Tensor:
    """Return [S, B, classes] for inputs [S, B, ...], whether or not the module is stacked.

    A lone network's images are laid out channels last, which convolutions are fastest on.
    """
    if is_stacked(module):
        return module(inputs)
    return module(inputs[0].contiguous(memory_format=torch.channels_last))[None]


def losses(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return each seed's cross-entropy per example: [S, B] from logits [S, B, classes]."""
    flat = cross_entropy(outputs.flatten(0, 1).float(), labels.flatten(), reduction="none")
    return flat.view(labels.shape)


@torch.no_grad()
def measure(module: nn.Module, examples: Examples, compute: Compute) -> tuple[Tensor, Tensor]:
    """Return (accuracy, mean loss), float64 [S] each; the module stays in its mode."""
    correct, summed = [], []
    for start in range(0, examples.examples, EVALUATION_BATCH):
        inputs, labels = examples.slice(start, start + EVALUATION_BATCH)
        with compute.autocast():
            outputs = logits(module, inputs)
        correct.append((outputs.argmax(-1) == labels).sum(1).double())
        summed.append(losses(outputs, labels).sum(1).double())
    count = examples.examples
    return torch.stack(correct).sum(0) / count, torch.stack(summed).sum(0) / count
