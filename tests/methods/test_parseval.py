"""Parseval regularization: by hand, against autograd and a NumPy loop, the output left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ht_bench.errors import UsageError
from ht_bench.methods.parseval import Parseval

from .conftest import Make, TwoLayers, descend
from .stacks import assert_a_stack_is_its_seeds


def zero_gradients(net: nn.Module) -> None:
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)


def test_by_hand() -> None:
    """W = [[1, 0], [1, 1]], s = 2: W Wᵀ − 2 I = [[−1, 1], [1, 0]], times W: [[0, 1], [1, 0]]."""
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    net[0].weight.data.copy_(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    Parseval(0.5).attach(net, optimizer)
    zero_gradients(net)
    optimizer.step()
    assert torch.equal(net[0].weight.grad, 4 * 0.5 * torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    for untouched in (net[0].bias, *net[2].parameters()):
        assert not untouched.grad.any()


def test_it_is_the_gradient_of_the_penalty(make_net: Make) -> None:
    net, twin = make_net(), make_net()
    layers = [m for m in twin.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    terms = []
    for layer in layers[:-1]:
        w = layer.weight.flatten(1)
        terms.append((w @ w.mT - 1.5 * torch.eye(len(w))).square().sum())
    (0.2 * torch.stack(terms).sum()).backward()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    Parseval(0.2, scale=1.5).attach(net, optimizer)
    zero_gradients(net)
    optimizer.step()
    for mine, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        expected = torch.zeros_like(theirs) if theirs.grad is None else theirs.grad
        torch.testing.assert_close(mine.grad, expected)


def test_it_is_a_numpy_loop() -> None:
    ours = TwoLayers()
    net = ours.twin()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    Parseval(0.02).attach(net, optimizer)
    for step in range(15):
        inputs, labels = ours.batch(step)
        gradients = ours.gradients(inputs, labels)
        w = ours.weights["0.weight"]
        gradients["0.weight"] = gradients["0.weight"] + 0.02 * 4 * (w @ w.T - 2 * np.eye(5)) @ w
        ours.step(gradients, 0.05)
        descend(net, optimizer, inputs, labels)
    ours.assert_equals(net)


def test_rows_become_orthogonal() -> None:
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    Parseval(1.0).attach(net, optimizer)
    for _ in range(200):
        zero_gradients(net)
        optimizer.step()
    w = net[0].weight.detach()
    torch.testing.assert_close(w @ w.mT, 2 * torch.eye(4), atol=1e-4, rtol=0)


def test_a_stack_is_its_seeds() -> None:
    assert_a_stack_is_its_seeds(Parseval(0.001))


def test_a_single_layer_is_refused() -> None:
    net = nn.Linear(3, 2)
    with pytest.raises(UsageError, match="'parseval' works on hidden layers, and Linear has none"):
        Parseval().attach(net, torch.optim.SGD(net.parameters(), lr=0.1))


@pytest.mark.parametrize("values", [{"strength": -1.0}, {"scale": 0.0}])
def test_values_it_cannot_take(values: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(values))} = "):
        Parseval(**values)
