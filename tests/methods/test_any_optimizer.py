"""Methods beside optimizers that nobody here wrote: closures, scalers, several, wrapped, unseen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.hare_tortoise import HareTortoise
from ht_bench.methods.penalties import L2, L2Init
from ht_bench.methods.resets import FullReset

from .test_any_program import fit, sgd


@pytest.mark.parametrize("keyword", [False, True])
def test_penalties_follow_each_backward_pass_of_a_closure(keyword: bool) -> None:
    nets = [nn.Linear(4, 1, bias=False) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    ends = []
    for net, closed in zip(nets, (True, False), strict=True):
        optimizer = sgd(net)
        L2(strength=0.5).attach(net, optimizer)

        def closure(net: nn.Module = net, optimizer: torch.optim.SGD = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = net(torch.ones(3, 4)).square().mean()
            loss.backward()
            return loss

        for _ in range(3):
            if closed:
                _ = optimizer.step(closure=closure) if keyword else optimizer.step(closure)
            else:
                closure()
                optimizer.step()
        ends.append(net.weight.detach())
    assert torch.equal(*ends)


def test_lbfgs_is_penalised_too() -> None:
    ends = []
    for strength in (0.0, 1.0):
        torch.manual_seed(0)
        net = nn.Linear(4, 1)
        optimizer = torch.optim.LBFGS(net.parameters(), lr=0.5)
        L2(strength=strength).attach(net, optimizer)

        def closure(net: nn.Module = net, optimizer: torch.optim.LBFGS = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = (net(torch.eye(4)) - 1).square().mean()
            loss.backward()
            return loss

        for _ in range(5):
            optimizer.step(closure)
        ends.append((net.weight.square().sum() + net.bias.square().sum()).item())
    assert ends[1] < 0.9 * ends[0]


@pytest.mark.parametrize("fused", [True, False])
def test_a_gradscaler_changes_nothing(fused: bool) -> None:
    ends = []
    for scaled in (True, False):
        torch.manual_seed(0)
        net = nn.Linear(4, 2)
        optimizer = sgd(net, fused=fused)
        method = HareTortoise(decay=0.5, reset_every=100).attach(net, optimizer)
        L2(strength=0.3).attach(net, optimizer)
        scaler = torch.amp.GradScaler("cpu", enabled=scaled)
        for bad in (False, True, False):
            if bad and not scaled:
                continue
            optimizer.zero_grad()
            loss = net(torch.ones(3, 4)).sum() * (float("inf") if bad else 1.0)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        assert method.state_dict()["steps"] == 2
        ends.append(net.weight.detach())
    torch.testing.assert_close(*ends)


def test_a_round_of_two_optimizers_is_a_step() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    pair = [sgd(net[0], momentum=0.9), torch.optim.AdamW(net[1].parameters())]
    method = HareTortoise(decay=0.5, reset_every=100, optimizer_state="clear").attach(net, pair)
    reset = FullReset().attach(net, pair)
    for _ in range(3):
        net(torch.ones(2, 4)).sum().backward()
        for optimizer in pair:
            optimizer.step()
    assert method.state_dict()["steps"] == 3
    reset.enter_phase(1, 5, None, 2)
    assert not any(optimizer.state for optimizer in pair)


class Wrapper(torch.optim.Optimizer):
    """Holds the real optimizer and calls nothing of its base class, as accelerate's does."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.optimizer.step()


def test_a_wrapped_optimizer_is_opened() -> None:
    net = nn.Linear(4, 2)
    wrapper = Wrapper(sgd(net))
    method = HareTortoise(decay=0.5, reset_every=None).attach(net, wrapper)
    net(torch.ones(1, 4)).sum().backward()
    wrapper.step()
    assert method.state_dict()["steps"] == 1


def test_optimizers_of_others_are_refused_and_nothing_is_left_behind() -> None:
    net, other = nn.Linear(4, 2), nn.Linear(4, 2)
    method = HareTortoise()
    with pytest.raises(UsageError, match="none of the module's parameters"):
        method.attach(net, sgd(other))
    with pytest.raises(UsageError, match=r"'bias' \(1 in all\) is in no optimizer"):
        method.attach(net, torch.optim.SGD([net.weight], lr=0.1))
    lazy = nn.LazyLinear(2)
    with pytest.raises(UsageError, match=r"'weight' has no shape yet; run one batch"):
        method.attach(lazy, sgd(lazy))
    net.bias.requires_grad_(False)
    method.attach(net, torch.optim.SGD([net.weight], lr=0.1))


def test_moments_of_another_model_in_the_same_optimizer_stay() -> None:
    net, other = nn.Linear(4, 4), nn.Linear(4, 2)
    optimizer = torch.optim.Adam([*net.parameters(), *other.parameters()])
    method = FullReset().attach(net, optimizer)
    other(net(torch.ones(2, 4))).sum().backward()
    optimizer.step()
    method.enter_phase(1, 5, None, 2)
    assert set(optimizer.state) == set(other.parameters())


@pytest.mark.parametrize("method", [HareTortoise(decay=0.0), L2Init()], ids=repr)
def test_steps_that_nobody_saw_warn_once(method: Method, recwarn: pytest.WarningsRecorder) -> None:
    net = nn.Linear(4, 2)
    optimizer = sgd(net)
    method.attach(net, optimizer)
    fit(net, sgd(net))
    evaluation = method.evaluating()
    with pytest.warns(UserWarning, match=r"no step of the optimizer .*\(SGD\) was seen"):
        evaluation.__enter__()
    evaluation.__exit__(None, None, None)
    recwarn.clear()
    fit(net, sgd(net))
    method.enter_phase(1, 5, None, 2)
    fit(net, optimizer)
    method.enter_phase(2, 5, None, 2)
    assert not [w for w in recwarn if "no step" in str(w.message)]
