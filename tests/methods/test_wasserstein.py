"""Wasserstein regularization: by hand, against a NumPy loop, the faults that others made."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ht_bench.methods.wasserstein import Wasserstein, order_of

from .conftest import Make, TwoLayers, copied, descend, make_run, train_step
from .stacks import assert_a_stack_is_its_seeds, seed_of, stack


def pulled(weights: list[float], initial: list[float], strength: float) -> torch.Tensor:
    net = nn.Linear(len(weights), 1, bias=False)
    net.weight.data.copy_(torch.tensor([initial]))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    Wasserstein(strength).attach(net, optimizer)
    net.weight.data.copy_(torch.tensor([weights]))
    net.weight.grad = torch.zeros_like(net.weight)
    optimizer.step()
    return net.weight.grad[0]


def test_by_hand() -> None:
    """The largest weight, 5, is pulled to the largest initial one, 3, wherever that was."""
    gradient = pulled([5.0, -1.0, 0.5], initial=[1.0, 3.0, -2.0], strength=0.1)
    torch.testing.assert_close(gradient, 0.1 * torch.tensor([5.0 - 3, -1.0 + 2, 0.5 - 1]))


def test_weights_that_trade_places_are_not_pulled() -> None:
    assert not pulled([3.0, -2.0, 1.0], initial=[1.0, 3.0, -2.0], strength=0.1).any()


def test_it_is_a_numpy_loop() -> None:
    ours = TwoLayers()
    net = ours.twin()
    initial = {name: np.sort(weights, axis=None) for name, weights in ours.weights.items()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    Wasserstein(0.2).attach(net, optimizer)
    for step in range(15):
        inputs, labels = ours.batch(step)
        gradients = ours.gradients(inputs, labels)
        for name, weights in ours.weights.items():
            rank = np.argsort(np.argsort(weights, axis=None)).reshape(weights.shape)
            gradients[name] = gradients[name] + 0.2 * (weights - initial[name][rank])
        ours.step(gradients, 0.3)
        descend(net, optimizer, inputs, labels)
    ours.assert_equals(net)


def test_it_is_the_gradient_of_the_distance() -> None:
    """Of half the squared distance between sorted values, by autograd, kernels included."""
    net = nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    initial = copied(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    Wasserstein(1.0).attach(net, optimizer)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape))
    parts = [
        p.flatten().sort().values - initial[n].flatten().sort().values
        for n, p in net.named_parameters()
    ]
    torch.stack([part.square().sum() / 2 for part in parts]).sum().backward()
    expected = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter, gradient in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_a_stack_is_its_seeds() -> None:
    assert_a_stack_is_its_seeds(Wasserstein(0.3))


def test_seeds_sorted_together_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Wasserstein, "_has_seeds", lambda self, tensor: False)
    with pytest.raises(AssertionError):
        assert_a_stack_is_its_seeds(Wasserstein(0.3))


def test_theta0_is_of_attach_not_after_the_first_step(make_net: Make) -> None:
    """Fault 6; and it does not follow the weights, whose storage it does not share."""
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    expected = {n: p.detach().flatten().sort().values for n, p in net.named_parameters()}
    method = Wasserstein(0.1).attach(net, optimizer)
    for step in range(3):
        train_step(net, optimizer, step)
    for name, values in method.state_dict()["sorted"].items():
        assert torch.equal(values.flatten(), expected[name]), name
    method.resync()
    now = dict(net.named_parameters())
    for name, values in method.state_dict()["sorted"].items():
        assert torch.equal(values.flatten(), now[name].detach().flatten().sort().values)


def test_every_tensor_is_pulled_and_frozen_ones_and_buffers_are_not(make_net: Make) -> None:
    """Fault 2: not the last tensor alone."""
    net = make_net()
    frozen, *trained = net.parameters()
    frozen.requires_grad_(False)
    buffers = [b.clone() for b in net.buffers()]
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    Wasserstein(0.5).attach(net, optimizer)
    before = [p.detach().clone() + 1 for p in net.parameters()]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
            parameter.grad = torch.zeros_like(parameter)
    frozen.grad = None
    optimizer.step()
    for parameter, old in zip(trained, before[1:], strict=True):
        torch.testing.assert_close(parameter.data, old - 0.5)
    assert torch.equal(frozen, before[0])
    assert all(torch.equal(a, b) for a, b in zip(buffers, net.buffers(), strict=True))


def test_the_order_is_torchs_own() -> None:
    rows = torch.randn(3, 50, generator=torch.Generator().manual_seed(2))
    assert torch.equal(order_of(rows), rows.argsort(dim=1))
    assert torch.equal(order_of(rows.bfloat16().double()), order_of(rows.bfloat16().float()))


def test_it_pulls_where_it_says() -> None:
    def distance(strength: float) -> float:
        method = Wasserstein(strength)
        run = make_run(method)
        now = dict(run.module.named_parameters())
        initial = method.state_dict()["sorted"]
        weights = now["linear0.weight"].detach().flatten(1).sort(1).values
        return float((weights - initial["linear0.weight"].flatten(1)).norm())

    assert distance(10.0) < 0.5 * distance(0.0)


def test_a_seed_is_drawn_out_of_the_stack_right() -> None:
    assert torch.equal(
        seed_of(stack(), 2)[0].weight, dict(stack().named_parameters())["linear0.weight"][2]
    )
