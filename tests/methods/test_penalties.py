"""L2 and L2-init: by hand, against NumPy, and their contracts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.penalties import L2, L2Init
from ht_bench.training.supervised import SupervisedRun

Make = Callable[[], nn.Sequential]
Step = Callable[[nn.Module, torch.optim.Optimizer, int], None]


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


def test_it_is_the_derivative_of_the_penalty(make_net: Make, train_step: Step) -> None:
    """λ/2 ‖θ‖² and λ/2 ‖θ − θ0‖², differentiated by autograd, added to a copy's loss."""
    for method, toward in ((L2(strength=0.3), 0.0), (L2Init(strength=0.3), 1.0)):
        net, plain = make_net(), make_net()
        initial = [parameter.detach().clone() for parameter in net.parameters()]
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        method.attach(net, optimizer)
        for each in (net, plain):
            with torch.no_grad():
                for parameter in each.parameters():
                    parameter.mul_(1.5).add_(0.25)
        train_step(net, optimizer, 0)
        train_step(plain, torch.optim.SGD(plain.parameters(), lr=0.0), 0)
        pairs = zip(plain.parameters(), initial, strict=True)
        penalty = sum((0.15 * (p - toward * start).square().sum() for p, start in pairs))
        assert isinstance(penalty, Tensor)
        penalty.backward()  # on top of the gradient of the loss
        for mine, theirs in zip(net.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("method", "toward"), [(L2(0.05), 0.0), (L2Init(0.05), 1.0)])
def test_it_is_a_numpy_loop(two_layers: Callable[..., Any], method: Method, toward: float) -> None:
    ours = two_layers()
    net, initial = ours.twin(), dict(ours.weights)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    method.attach(net, optimizer)
    for step in range(30):
        inputs, labels = ours.batch(step)
        gradients = ours.gradients(inputs, labels)
        for name, weights in ours.weights.items():
            gradients[name] = gradients[name] + 0.05 * (weights - toward * initial[name])
        ours.step(gradients, 0.3)
        optimizer.zero_grad()
        logits = net(torch.from_numpy(inputs))
        nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
        optimizer.step()
    ours.assert_equals(net)


def test_it_passes_through_the_moments_as_torchs_own_weight_decay(
    make_net: Make, train_step: Step
) -> None:
    """Adam's `weight_decay` is L2 in the gradient: the same weights after 20 steps."""
    net, plain = make_net(), make_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    L2(strength=0.01).attach(net, optimizer)
    theirs = torch.optim.Adam(plain.parameters(), lr=1e-2, weight_decay=0.01)
    for step in range(20):
        train_step(net, optimizer, step)
        train_step(plain, theirs, step)
    for mine, other in zip(net.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("cls", [L2, L2Init])
def test_a_parameter_without_gradient_and_buffers_are_left_alone(
    make_net: Make, cls: type[L2]
) -> None:
    net = make_net()
    frozen = next(net.parameters()).requires_grad_(False)
    buffers = [buffer.clone() for buffer in net.buffers()]
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    cls(strength=0.5).attach(net, optimizer)
    kept = frozen.clone()
    optimizer.step()  # no gradient at all
    for parameter in list(net.parameters())[1:]:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert frozen.grad is None
    assert torch.equal(frozen, kept)
    assert all(torch.equal(a, b) for a, b in zip(buffers, net.buffers(), strict=True))


def test_theta0_survives_phases_and_does_not_move(
    make_run: Callable[..., SupervisedRun],
) -> None:
    method = L2Init(strength=0.1)
    run = make_run(method)
    run.train()
    kept = method.state_dict()["initial"]
    assert kept.keys() == run.recorder.initial.keys()
    for name, tensor in run.recorder.initial.items():
        assert torch.equal(kept[name], tensor), name


@pytest.mark.parametrize(("cls", "closer"), [(L2, "norm"), (L2Init, "distance_from_init")])
def test_it_pulls_where_it_says(
    make_run: Callable[..., SupervisedRun], cls: type[L2], closer: str
) -> None:
    ends = []
    for strength in (0.0, 10.0):
        run = make_run(cls(strength=strength))
        run.train()
        ends.append(run.history.diagnostics[-1][f"weights/{closer}"])
    assert all(pulled < free for free, pulled in zip(*ends, strict=True))


@pytest.mark.parametrize("cls", [L2, L2Init])
def test_with_strength_nothing_it_trains_as_none(
    cls: type[L2], assert_trains_as_none: Callable[..., None]
) -> None:
    assert_trains_as_none(lambda: cls(strength=0.0))


@pytest.mark.parametrize("cls", [L2, L2Init])
def test_a_stopped_run_resumes_to_the_same_bits(
    cls: type[L2], assert_resumes: Callable[..., None]
) -> None:
    assert_resumes(lambda: cls(strength=0.1))


@pytest.mark.parametrize("cls", [L2, L2Init])
def test_a_negative_strength_is_refused(cls: type[L2]) -> None:
    with pytest.raises(UsageError, match="strength = -1: a penalty is zero or more"):
        cls(strength=-1)
