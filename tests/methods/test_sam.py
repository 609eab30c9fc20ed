"""Sharpness-aware minimization against its rule written out in NumPy, and who offers the pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from torch import Tensor, nn

import ht_bench.sb3  # noqa: F401
from ht_bench.errors import Unsuitable, UsageError
from ht_bench.methods.loop import Loop
from ht_bench.methods.sam import SharpnessAware
from ht_bench.networks.mlp import StackedMLP

from .conftest import Make, TwoLayers, copied

RADIUS, LR = 0.3, 0.2


def closure_of(
    net: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, labels: Tensor
) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(inputs), labels)
        loss.backward()
        return loss

    return closure


def test_it_steps_with_the_gradient_at_the_worst_point_nearby() -> None:
    mine = TwoLayers()
    net = mine.twin()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    SharpnessAware(radius=RADIUS).attach(net, optimizer)
    for step in range(6):
        inputs, labels = TwoLayers.batch(step)
        first = mine.gradients(inputs, labels)
        norm = np.sqrt(sum(np.sum(gradient**2) for gradient in first.values()))
        start = dict(mine.weights)
        mine.weights = {name: start[name] + RADIUS * first[name] / (norm + 1e-12) for name in start}
        second = mine.gradients(inputs, labels)
        mine.weights = start
        mine.step(second, LR)
        closure = closure_of(net, optimizer, torch.tensor(inputs), torch.tensor(labels))
        optimizer.step(closure)
        mine.assert_equals(net)


def test_statistics_follow_the_first_pass_alone(make_net: Make) -> None:
    inputs = torch.randn(16, 6, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(16) % 3
    plain, net = make_net(), make_net()
    plain(inputs)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    method = SharpnessAware(radius=RADIUS).attach(net, optimizer)
    before = next(net.parameters()).detach().clone()
    optimizer.step(closure_of(net, optimizer, inputs, labels))
    after = copied(net)
    for name, buffer in plain.named_buffers():
        assert torch.equal(after[name], buffer), name
    assert not torch.equal(next(net.parameters()), before)
    assert method.state_dict() == {}


def test_each_seed_of_a_stack_goes_its_own_length() -> None:
    net = StackedMLP((4, 6, 5, 3), 3, "relu", "none")
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    method = SharpnessAware(radius=RADIUS).attach(net, optimizer)
    outputs = net(torch.randn(3, 8, 4))
    (outputs * torch.tensor([1.0, 10.0, 100.0]).view(3, 1, 1)).square().mean().backward()
    before = copied(net)
    with torch.no_grad():
        method.ascend()
    moved = {name: tensor - before[name] for name, tensor in net.named_parameters()}
    lengths = sum(m.flatten(1).square().sum(1) for m in moved.values())
    torch.testing.assert_close(torch.as_tensor(lengths).sqrt(), torch.full((3,), RADIUS))
    with torch.no_grad():
        method.descend()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.named_parameters())


def test_a_step_without_a_closure_is_refused_in_a_sentence() -> None:
    net = TwoLayers().twin()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    SharpnessAware().attach(net, optimizer)
    net(torch.randn(7, 4, dtype=torch.double)).sum().backward()
    before = copied(net)
    with pytest.raises(UsageError, match=r"call optimizer.step\(closure\)"):
        optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_weights_come_back_when_the_second_pass_fails() -> None:
    net = TwoLayers().twin()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    SharpnessAware(radius=RADIUS).attach(net, optimizer)
    inputs, labels = map(torch.tensor, TwoLayers.batch(0))
    working, calls = closure_of(net, optimizer, inputs, labels), iter([True])

    def closure() -> Tensor:
        if not next(calls, False):
            raise RuntimeError("no second batch")
        return working()

    before = copied(net)
    with pytest.raises(RuntimeError, match="no second batch"):
        optimizer.step(closure)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_loops_without_the_pass_refuse_it() -> None:
    net = TwoLayers().twin()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    loop = Loop(name="this loop", offers=frozenset())
    with pytest.raises(Unsuitable, match="'sam' computes the gradient twice in each step, which"):
        SharpnessAware().attach(net, optimizer, loop=loop)
    with pytest.raises(Unsuitable, match="steps without a closure"):
        PPO("PlasticMlpPolicy", "CartPole-v1", policy_kwargs={"plasticity": "sam"})
    with pytest.raises(UsageError, match="radius = -1"):
        SharpnessAware(radius=-1)
