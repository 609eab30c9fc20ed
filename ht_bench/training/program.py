"""The small networks, and the plain training program on them, that methods are checked with."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ht_bench.methods.base import Method
from ht_bench.methods.loop import Batch, Loop
from ht_bench.methods.moments import clear_moments
from ht_bench.networks.mlp import StackedMLP
from ht_bench.networks.stacking import is_stacked
from ht_bench.training.capture import Captured, Graphs

STEPS, BOUNDARY, EPOCH_STEPS = 12, 6, 3
"""Steps of the small program, the step at which its second phase begins, steps of an epoch."""
Make = Callable[[], nn.Module]


def convolutional_net() -> nn.Module:
    """Return a net with a convolution, BatchNorm, a convolution-to-linear transition and a head."""
    convolution = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*convolution, nn.Linear(4 * 4 * 4, 12), nn.ReLU(), nn.Linear(12, 3))


def stack() -> nn.Module:
    """Return a stack of three perceptrons on the same images."""
    return StackedMLP((16, 12, 8, 3), 3, "relu", "none")


def lone() -> nn.Module:
    """Return one of those perceptrons as torch's own layers."""
    hidden = [nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(8, 3))


class Program:
    """A plain training program with the method attached.

    seeds: what slots' weights and batches, and a lone network's, are drawn by. graphs: capture its
    steps.
    """

    def __init__(
        self,
        method: Method,
        make: Make,
        seeds: tuple[int, ...] = (),
        graphs: Graphs | None = None,
    ) -> None:
        torch.manual_seed(7)
        self.module = make()
        self.seeds = seeds or tuple(range(getattr(self.module, "stack", 1)))
        if seeds:
            _set_seeds(self.module, seeds)
        # Fused: the other kinds read Adam's clock back to the host, which cannot be captured.
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=1e-2, fused=True)
        self.method = dataclasses.replace(method)
        self.held = self.batch_of(0)
        self.captured = Captured(
            graphs, self.compute_step, "A step", (self.module, self.optimizer, self.method)
        )
        self.method.is_advanced_by_loop = self.method.clears_in_place = graphs is not None
        generator = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        self.method.attach(
            self.module,
            self.optimizer,
            generator=generator,
            initialize=self._fresh if seeds else None,
            loop=self._offer(generator),
        )
        self.drawn = 0
        self.step = 0
        self.budget = self.method.enter_phase(0, BOUNDARY, EPOCH_STEPS, 2)

    def _fresh(self) -> dict[str, Tensor]:
        """Return fresh weights keyed by seed and call, as the package's own loop does."""
        self.drawn += 1
        module = copy.deepcopy(self.module)
        _set_seeds(module, tuple(1000 * seed + self.drawn for seed in self.seeds))
        return {name: tensor.detach() for name, tensor in module.state_dict().items()}

    def _offer(self, generators: list[torch.Generator]) -> Loop:
        def batches(first: int) -> Iterator[Batch]:
            return (self.batch_of(step) for step in range(first, first + EPOCH_STEPS))

        def draw() -> Tensor:
            drawn = [torch.randn(8, 1, 4, 4, generator=generator) for generator in generators]
            return torch.stack(drawn) if is_stacked(self.module) else drawn[0]

        return Loop(
            name="a small program",
            batches=lambda: batches(0 if self.step < BOUNDARY else BOUNDARY),
            old_batches=lambda: batches(0),
            loss=self.loss,
            second_batch=draw,
            outputs=self.module,
            second_pass=True,
        )

    @staticmethod
    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        """Return each seed's mean cross-entropy, summed."""
        losses = cross_entropy(outputs.flatten(0, -2), labels.flatten(), reduction="none")
        return losses.view(labels.shape).mean(-1).sum()

    def batch_of(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the batch of a step: each seed's own, whatever its mates."""
        inputs, labels = [], []
        for seed in self.seeds:
            generator = torch.Generator().manual_seed(1000 * seed + step)
            inputs.append(torch.randn(8, 1, 4, 4, generator=generator))
            labels.append(torch.randint(3, (8,), generator=generator))
        if getattr(self.module, "stacked", False):
            return torch.stack(inputs), torch.stack(labels)
        return inputs[0], labels[0]

    def train(self, until: int) -> Program:
        """Take steps up to `until`, with a phase boundary at BOUNDARY; returns itself."""
        while self.step < until:
            if self.step == BOUNDARY:
                clear_moments(self.optimizer, in_place=self.method.clears_in_place)
                self.method.enter_phase(1, STEPS - BOUNDARY, EPOCH_STEPS, 2)
                self.captured.check()
            if self.step >= BOUNDARY or self.step < self.budget:
                self.take_step()
            self.step += 1
        return self

    def take_step(self) -> None:
        """Take one optimizer step on this step's batch."""
        self.module.train()
        for held, batch in zip(self.held, self.batch_of(self.step), strict=True):
            held.copy_(batch)
        self.captured("step")
        if self.method.is_advanced_by_loop and self.method.advance(1):
            self.captured.check()

    def compute_step(self) -> None:
        """Carry out the step on the batch that is held, as tensor arithmetic alone."""
        self._gradients()
        if "second pass" in self.method.needed():
            with torch.no_grad():
                self.method.ascend()
            self._gradients()
            with torch.no_grad():
                self.method.descend()
        self.optimizer.step()

    def _gradients(self) -> None:
        inputs, labels = self.held
        self.optimizer.zero_grad()
        outputs = self.module(inputs)
        loss = self.loss(outputs, labels)
        extra = self.method.auxiliary_loss(inputs, outputs)
        (loss if extra is None else loss + extra).backward()

    def snapshot(self) -> dict[str, Tensor]:
        """Return copies of all weights and buffers."""
        return {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}

    def modes(self) -> list[bool]:
        """Return which modules are in training mode."""
        return [child.training for child in self.module.modules()]

    def state(self) -> list[Any]:
        """Return the method's and the optimizer's state."""
        return [self.method.state_dict(), self.optimizer.state_dict()]

    def restore(self, other: Program) -> None:
        """Go on where `other` stands, as from a checkpoint."""
        self.module.load_state_dict(other.module.state_dict())
        self.optimizer.load_state_dict(copy.deepcopy(other.optimizer.state_dict()))
        self.method.restore(copy.deepcopy(other.method.checkpoint()), EPOCH_STEPS, 2)
        self.step, self.budget = other.step, other.budget


def _set_seeds(module: nn.Module, seeds: tuple[int, ...]) -> None:
    """Give slot i of a stack, or a lone network, the weights of seed i, whatever its mates."""
    with torch.no_grad():
        for slot, seed in enumerate(seeds):
            generator = torch.Generator().manual_seed(seed)
            for parameter in module.parameters():
                own = parameter[slot] if is_stacked(module) else parameter
                own.copy_(0.3 * torch.randn(own.shape, generator=generator))
