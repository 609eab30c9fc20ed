"""L2 and L2-init: by hand, against NumPy, against torch's own weight decay, in the loop."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ht_bench.methods.base import Method
from ht_bench.methods.penalties import L2, L2Init

from .conftest import Make, TwoLayers, assert_equal, descend, make_run, train_step


def filled(value: float) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(value)
    return net


@pytest.mark.parametrize(
    ("method", "gradient"),
    [
        (L2(strength=0.5), 1 + 0.5 * 3.0),
        (L2Init(strength=0.5), 1 + 0.5 * (3.0 - 1.0)),
        (L2(strength=0.0), 1.0),
        (L2Init(strength=0.0), 1.0),
    ],
)
def test_the_rule_by_hand(method: Method, gradient: float) -> None:
    """θ0 = 1, θ = 3, a gradient of 1: λ θ or λ (θ − θ0) comes on top, for every tensor."""
    net = filled(1.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.25)
    method.attach(net, optimizer)
    net.load_state_dict(filled(3.0).state_dict())
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for parameter in net.parameters():
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, torch.full_like(parameter, gradient))
        assert torch.equal(parameter, torch.full_like(parameter, 3.0 - 0.25 * gradient))


@pytest.mark.parametrize(("method", "toward"), [(L2(0.05), 0.0), (L2Init(0.05), 1.0)])
def test_it_is_a_numpy_loop(method: Method, toward: float) -> None:
    ours = TwoLayers()
    net, initial = ours.twin(), dict(ours.weights)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    method.attach(net, optimizer)
    for step in range(30):
        inputs, labels = ours.batch(step)
        gradients = ours.gradients(inputs, labels)
        for name, weights in ours.weights.items():
            gradients[name] = gradients[name] + 0.05 * (weights - toward * initial[name])
        ours.step(gradients, 0.3)
        descend(net, optimizer, inputs, labels)
    ours.assert_equals(net)


def test_it_passes_through_the_moments_as_torchs_own_weight_decay(make_net: Make) -> None:
    """Adam's `weight_decay` is L2 in the gradient: the same weights after 20 steps."""
    net, plain = make_net(), make_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    L2(strength=0.01).attach(net, optimizer)
    theirs = torch.optim.Adam(plain.parameters(), lr=1e-2, weight_decay=0.01)
    for step in range(20):
        train_step(net, optimizer, step)
        train_step(plain, theirs, step)
    assert_equal(net.state_dict(), plain.state_dict())


@pytest.mark.parametrize("cls", [L2, L2Init])
def test_a_parameter_without_gradient_and_buffers_are_left_alone(
    make_net: Make, cls: type[L2]
) -> None:
    net = make_net()
    frozen = next(net.parameters()).requires_grad_(False)
    buffers = [buffer.clone() for buffer in net.buffers()]
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    cls(strength=0.5).attach(net, optimizer)
    before = frozen.clone()
    optimizer.step()  # no gradient at all
    for parameter in list(net.parameters())[1:]:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert frozen.grad is None
    assert torch.equal(frozen, before)
    assert all(torch.equal(a, b) for a, b in zip(buffers, net.buffers(), strict=True))


def test_theta0_survives_phases_and_does_not_move() -> None:
    method = L2Init(strength=0.1)
    run = make_run(method)
    assert_equal(method.state_dict()["initial"], run.recorder.initial)


@pytest.mark.parametrize(("cls", "closer"), [(L2, "norm"), (L2Init, "distance_from_init")])
def test_it_pulls_where_it_says(cls: type[L2], closer: str) -> None:
    free, pulled = (
        make_run(cls(strength=strength)).history.diagnostics[-1][f"weights/{closer}"]
        for strength in (0.0, 10.0)
    )
    assert all(near < far for near, far in zip(pulled, free, strict=True))
