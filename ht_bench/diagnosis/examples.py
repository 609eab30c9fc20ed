"""The data of a diagnosis: what a user has, as tensors, split into training and test examples."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, Dataset, TensorDataset

from ht_bench.errors import UsageError, reason
from ht_bench.streams import data as datasets

LIMIT = 50_000
"""Examples that are read from a Dataset or DataLoader at most."""


@dataclass(frozen=True)
class Examples:
    """Inputs [N, …] and labels [N, …]; whole numbers are classes, floating ones are targets."""

    inputs: Tensor
    labels: Tensor

    @property
    def are_classes(self) -> bool:
        """Whether the labels are classes."""
        return not self.labels.is_floating_point()

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> Examples:
        """Return some of the examples."""
        return Examples(self.inputs[indices], self.labels[indices])

    def to(self, device: torch.device) -> Examples:
        """Return the examples on a device."""
        return Examples(self.inputs.to(device), self.labels.to(device))

    def with_random_labels(self, generator: torch.Generator, classes: int) -> Examples:
        """Return the inputs with labels that have nothing to do with them.

        Classes are uniform; targets are normal, with mean and deviation of the true ones.
        """
        shape = self.labels.shape
        if self.are_classes:
            drawn = torch.randint(classes, shape, generator=generator)
        else:
            noise = torch.randn(shape, generator=generator, dtype=self.labels.dtype)
            drawn = self.labels.mean(0).cpu() + noise * self.labels.std(0).cpu()
        return Examples(self.inputs, drawn.to(self.labels.device))

    def loss(self, outputs: Tensor) -> Tensor:
        """Return the loss of outputs for these examples: cross-entropy, or squared error."""
        if self.are_classes:
            return cross_entropy(outputs, self.labels)
        return mse_loss(outputs.reshape(self.labels.shape), self.labels)

    def score(self, outputs: Tensor) -> Tensor:
        """Return what `loss` is to bring to 1: accuracy, or the explained share of variance.

        The latter is 0 where predicting the mean would be better, as a diverged network's is.
        """
        if self.are_classes:
            return (outputs.argmax(1) == self.labels).float().mean()
        errors = (outputs.reshape(self.labels.shape) - self.labels).square().mean()
        variance = (self.labels - self.labels.mean(0)).square().mean()
        return torch.nan_to_num(1 - errors / variance.clamp(min=1e-12), nan=0.0).clamp(0, 1)


def read(data: Any, generator: torch.Generator) -> tuple[Examples, Examples | None]:
    """Return training examples and, where `data` is a dataset's name, its test examples.

    data: (inputs, labels), tensors or arrays; a Dataset or DataLoader of such pairs, of which at
    most LIMIT examples are read; or a name as `ht-bench list data` shows them. Raises UsageError
    for anything else, and for examples that are none.
    """
    if isinstance(data, str):
        return _named(data)
    if isinstance(data, DataLoader):
        return _checked(*_batched(data)), None
    if isinstance(data, TensorDataset):
        data = data.tensors
    if isinstance(data, Dataset):
        return _checked(*_drawn(data, generator)), None
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise UsageError(
            f"Data of type {type(data).__name__}: give (inputs, labels), a Dataset or DataLoader "
            "of such pairs, or the name of a dataset."
        )
    return _checked(*data), None


def _named(name: str) -> tuple[Examples, Examples]:
    dataset = datasets.load(name)
    mean, deviation = (torch.from_numpy(x) for x in dataset.normalisation)

    def part(images: Any, labels: Any) -> Examples:
        pixels = torch.from_numpy(images).float()
        return Examples((pixels - mean) / deviation, torch.from_numpy(labels))

    train = part(dataset.train_images, dataset.train_labels)
    return train, part(dataset.test_images, dataset.test_labels)


def _drawn(dataset: Dataset[Any], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    if not isinstance(dataset, Sized):
        raise UsageError("A Dataset without a length: give a DataLoader of it.")
    order = torch.randperm(len(dataset), generator=generator)[:LIMIT].tolist()
    return _stacked([_pair(dataset[index]) for index in order], torch.stack)


def _batched(loader: Iterable[Any]) -> tuple[Tensor, Tensor]:
    batches: list[tuple[Tensor, Tensor]] = []
    for batch in loader:
        batches.append(_pair(batch))
        if sum(len(labels) for _, labels in batches) >= LIMIT:
            break
    return _stacked(batches, torch.cat)


def _stacked(pairs: list[tuple[Tensor, Tensor]], join: Any) -> tuple[Tensor, Tensor]:
    if not pairs:
        raise UsageError("The data hold no example.")
    inputs, labels = zip(*pairs, strict=True)
    try:
        return join(inputs), join(labels)
    except RuntimeError as error:
        raise UsageError(f"The examples differ in shape: {reason(error)}.") from error


def _pair(example: Any) -> tuple[Tensor, Tensor]:
    if not isinstance(example, tuple | list) or len(example) != 2:
        raise UsageError(
            f"The data yield {type(example).__name__}s, not pairs (input, label); wrap them."
        )
    inputs, labels = (torch.as_tensor(part) for part in example)
    return inputs, labels


def _checked(inputs: Any, labels: Any) -> Examples:
    inputs, labels = torch.as_tensor(inputs).detach(), torch.as_tensor(labels).detach()
    if not inputs.dim() or not labels.dim() or len(inputs) != len(labels):
        raise UsageError(
            f"Inputs {list(inputs.shape)} and labels {list(labels.shape)}: give as many of both."
        )
    labels = labels.float() if labels.is_floating_point() else labels.long()
    return Examples(inputs, labels)
