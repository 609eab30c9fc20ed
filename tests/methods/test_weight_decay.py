"""Weight decay: torch's own AdamW with that decay, bit for bit; rates of groups and of tensors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ht_bench.errors import UsageError
from ht_bench.methods.weight_decay import WeightDecay

from .conftest import Make, TwoLayers, assert_equal, descend, train_step
from .stacks import assert_a_stack_is_its_seeds


def test_it_is_adamws_own(make_net: Make) -> None:
    net, plain = make_net(), make_net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.0)
    WeightDecay(0.5).attach(net, optimizer)
    theirs = torch.optim.AdamW(plain.parameters(), lr=1e-2, weight_decay=0.5)
    for step in range(20):
        for group in (*optimizer.param_groups, *theirs.param_groups):
            group["lr"] = 1e-2 / (step + 1)  # the rate of the step, not that of attach
        train_step(net, optimizer, step)
        train_step(plain, theirs, step)
    assert_equal(net.state_dict(), plain.state_dict())


def test_it_is_a_numpy_loop_and_comes_ahead_of_the_step() -> None:
    ours = TwoLayers()
    net = ours.twin()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    WeightDecay(0.2).attach(net, optimizer)
    for step in range(15):
        inputs, labels = ours.batch(step)
        gradients = ours.gradients(inputs, labels)
        ours.weights = {name: w * (1 - 0.3 * 0.2) for name, w in ours.weights.items()}
        ours.step(gradients, 0.3)
        descend(net, optimizer, inputs, labels)
    ours.assert_equals(net)


def test_each_group_has_its_rate_a_tensor_too() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    groups = [
        {"params": net[0].parameters(), "lr": torch.tensor(0.5)},
        {"params": net[1].parameters(), "lr": 0.25},
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    WeightDecay(1.0).attach(net, optimizer)
    for parameter in net.parameters():
        parameter.data.fill_(4.0)
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert [p.max().item() for p in net.parameters()] == [2.0, 2.0, 3.0, 3.0]


def test_what_has_no_gradient_and_what_is_anothers_stay(make_net: Make) -> None:
    net, other = make_net(), nn.Linear(2, 2)
    frozen = next(net.parameters()).requires_grad_(False)
    before = frozen.clone(), other.weight.detach().clone()
    optimizer = torch.optim.SGD([*net.parameters(), *other.parameters()], lr=0.5)
    WeightDecay(1.0).attach(net, optimizer)
    for parameter in (*list(net.parameters())[1:], *other.parameters()):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.equal(frozen, before[0])
    assert torch.equal(other.weight, before[1])


def test_a_stack_is_its_seeds() -> None:
    assert_a_stack_is_its_seeds(WeightDecay(0.5))


def test_values_it_cannot_take() -> None:
    with pytest.raises(UsageError, match="strength = -1.0: a decay is zero or more"):
        WeightDecay(-1.0)
