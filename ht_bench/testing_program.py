"""Small networks and a plain training program: what `ht_bench.testing` checks methods on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ht_bench.methods.base import Method
from ht_bench.networks.mlp import StackedMLP

STEPS = 12
BOUNDARY = 6
EPOCH_STEPS = 3


def small_convolutional_net() -> nn.Module:
    """Return a net with a convolution, BatchNorm, a convolution-to-linear transition and a head."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 4 * 4, 12),
        nn.ReLU(),
        nn.Linear(12, 3),
    )


def small_stack(stack: int = 3) -> nn.Module:
    """Return a stack of perceptrons on the same images."""
    return StackedMLP((16, 12, 8, 3), stack, "relu", "none")


class Program:
    """A plain training program with the method attached: what the checks watch."""

    def __init__(
        self, method: Method, make: Callable[[], nn.Module], seeds: tuple[int, ...] = ()
    ) -> None:
        torch.manual_seed(7)
        self.module = make()
        self.seeds = seeds or tuple(range(getattr(self.module, "stack", 1)))
        if seeds:
            _set_seeds(self.module, seeds)
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=1e-2)
        self.method = dataclasses.replace(method)
        self.method.attach(
            self.module,
            self.optimizer,
            generator=[torch.Generator().manual_seed(seed) for seed in self.seeds],
        )
        self.step = 0
        self.budget = self.method.enter_phase(0, BOUNDARY, EPOCH_STEPS, 2)

    @property
    def stacked(self) -> bool:
        """Whether the module trains a stack of seeds."""
        return bool(getattr(self.module, "stacked", False))

    def batch(self) -> tuple[Tensor, Tensor]:
        """The batch of this step: each seed's own, whatever its mates."""
        inputs, labels = [], []
        for seed in self.seeds:
            generator = torch.Generator().manual_seed(1000 * seed + self.step)
            inputs.append(torch.randn(8, 1, 4, 4, generator=generator))
            labels.append(torch.randint(3, (8,), generator=generator))
        if self.stacked:
            return torch.stack(inputs), torch.stack(labels)
        return inputs[0], labels[0]

    def train(self, until: int) -> None:
        """Take steps up to `until`, with a phase boundary at BOUNDARY."""
        while self.step < until:
            if self.step == BOUNDARY:
                self.optimizer.state.clear()
                self.method.enter_phase(1, STEPS - BOUNDARY, EPOCH_STEPS, 2)
            if self.step >= BOUNDARY or self.step < self.budget:
                self.take_step()
            self.step += 1

    def take_step(self) -> None:
        """Take one optimizer step on this step's batch."""
        self.module.train()
        inputs, labels = self.batch()
        self.optimizer.zero_grad()
        outputs = self.module(inputs)
        losses = cross_entropy(outputs.flatten(0, -2), labels.flatten(), reduction="none")
        loss = losses.view(labels.shape).mean(-1).sum()
        extra = self.method.auxiliary_loss(inputs, outputs)
        (loss if extra is None else loss + extra).backward()
        self.optimizer.step()

    def snapshot(self) -> dict[str, Tensor]:
        """Return copies of all weights and buffers."""
        return {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}


def _set_seeds(module: nn.Module, seeds: tuple[int, ...]) -> None:
    """Give slot i of a stack the weights of seed i, whatever its mates."""
    with torch.no_grad():
        for slot, seed in enumerate(seeds):
            generator = torch.Generator().manual_seed(seed)
            for parameter in module.parameters():
                shape = parameter[slot].shape
                parameter[slot] = 0.3 * torch.randn(shape, generator=generator)
