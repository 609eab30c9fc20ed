"""Weight clipping: by hand, against a NumPy loop, what is clamped and what is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ht_bench.errors import UsageError
from ht_bench.methods.weight_clipping import WeightClipping

from .conftest import Make, TwoLayers, descend, train_step
from .stacks import assert_a_stack_is_its_seeds


def test_by_hand() -> None:
    """κ/√fan_in is 1/√4 for the first layer, weights and bias, and 1/√9 for the second."""
    net = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    WeightClipping(bound=1.0).attach(net, optimizer)
    signs = [torch.ones_like(p) * (-1) ** i for i, p in enumerate(net.parameters())]
    for parameter, sign in zip(net.parameters(), signs, strict=True):
        parameter.data.copy_(7 * sign)
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    bounds = [0.5, 0.5, 1 / 3, 1 / 3]
    for parameter, sign, bound in zip(net.parameters(), signs, bounds, strict=True):
        torch.testing.assert_close(parameter.data, bound * sign)


@pytest.mark.parametrize("output", [True, False])
def test_it_is_a_numpy_loop(output: bool) -> None:
    ours = TwoLayers()
    net = ours.twin()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    WeightClipping(bound=0.8, output=output).attach(net, optimizer)
    fan_in = {"0": 4, "2": 5} if output else {"0": 4}
    for step in range(15):
        inputs, labels = ours.batch(step)
        ours.step(ours.gradients(inputs, labels), 0.3)
        for name, weights in ours.weights.items():
            if name[0] in fan_in:
                bound = 0.8 / np.sqrt(fan_in[name[0]])
                ours.weights[name] = np.clip(weights, -bound, bound)
        descend(net, optimizer, inputs, labels)
    ours.assert_equals(net)


def test_normalisations_and_moments_stay(make_net: Make) -> None:
    """BatchNorm's scale of 1 is above any layer's bound here; the moments are as without it."""
    net, plain = make_net(), make_net()
    optimizer, theirs = (torch.optim.Adam(n.parameters(), lr=1e-3) for n in (net, plain))
    WeightClipping(bound=0.05).attach(net, optimizer)
    train_step(net, optimizer, 0)
    train_step(plain, theirs, 0)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert norms
    for norm in norms:
        assert norm.weight.min() > 0.9
    for parameter, other in zip(net.parameters(), plain.parameters(), strict=True):
        assert torch.equal(optimizer.state[parameter]["exp_avg"], theirs.state[other]["exp_avg"])
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            fan_in = layer.weight[0].numel()
            assert layer.weight.abs().max() <= 0.05 / fan_in**0.5 + 1e-7


def test_a_stack_is_its_seeds() -> None:
    assert_a_stack_is_its_seeds(WeightClipping(bound=0.7))


def test_values_it_cannot_take() -> None:
    with pytest.raises(UsageError, match=r"bound = 0.0: it is a multiple"):
        WeightClipping(bound=0.0)
