"""A stack of three perceptrons and its seeds as lone networks, stepped on the same gradients."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from ht_bench.methods.base import Method
from ht_bench.networks.mlp import StackedMLP

SIZES, SEEDS = (6, 8, 5, 3), 3
"""Widths that decrease."""


def stack() -> StackedMLP:
    torch.manual_seed(4)
    net = StackedMLP(SIZES, SEEDS, "relu", "none")
    with torch.no_grad():
        for parameter in net.parameters():  # seeds of unlike size, so that mixing them shows
            parameter.mul_(torch.tensor([0.5, 1.0, 3.0]).view(-1, *[1] * (parameter.dim() - 1)))
    return net


def lone() -> nn.Sequential:
    layers = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3)]
    return nn.Sequential(*layers)


def seed_of(net: nn.Module, slot: int) -> nn.Sequential:
    alone = lone()
    with torch.no_grad():
        for mine, theirs in zip(alone.parameters(), net.parameters(), strict=True):
            mine.copy_(theirs[slot])
    return alone


def push(net: nn.Module, optimizer: torch.optim.Optimizer, step: int, slot: int | None) -> None:
    """One step on gradients that `step` decides: a stack's, or those of one of its seeds."""
    draw = torch.Generator().manual_seed(step)
    for parameter in net.parameters():
        shape = parameter.shape if slot is None else (SEEDS, *parameter.shape)
        gradients = torch.randn(shape, generator=draw)
        parameter.grad = gradients if slot is None else gradients[slot].clone()
    optimizer.step()


def assert_a_stack_is_its_seeds(method: Method, boundary: int = 3) -> None:
    """Five steps with a phase boundary on a stack and on each of its seeds alone: equal weights."""
    together = stack()
    for slot in range(SEEDS):
        nets = {None: stack(), slot: seed_of(stack(), slot)}
        for place, net in nets.items():
            optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
            mine = dataclasses.replace(method).attach(net, optimizer)
            for step in range(5):
                if step == boundary:
                    mine.enter_phase(1, 5, None, 2)
                push(net, optimizer, step, place)
        together = nets[None]  # type: ignore[assignment]
        for theirs, own in zip(together.parameters(), nets[slot].parameters(), strict=True):
            torch.testing.assert_close(theirs[slot], own, rtol=2e-5, atol=1e-6)
