"""Hare & Tortoise against an independent loop in plain torch, its clock, its use anywhere."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import ht_bench
from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.hare_tortoise import HareTortoise

from .conftest import (
    Make,
    Tensors,
    assert_equal,
    copied,
    leaves_no_trace,
    make_run,
    train_step,
)


def adamw(net: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.1)


def attached(net: nn.Module, **hyperparameters: Any) -> tuple[HareTortoise, torch.optim.AdamW]:
    optimizer = adamw(net)
    return HareTortoise(**hyperparameters).attach(net, optimizer), optimizer


# ---- the numbers ----


def reference(net: nn.Module, decay: float, every: int, buffers: str, state: str) -> Tensors:
    """Train `net` by a loop that knows nothing of this package; returns the tortoise."""
    optimizer, fast = adamw(net), net.state_dict()
    slow, weights = copied(net), [name for name, _ in net.named_parameters()]
    for count in range(1, 67):
        train_step(net, optimizer, count)
        for name, tensor in fast.items():
            if name in weights or (buffers == "average" and tensor.is_floating_point()):
                slow[name].lerp_(tensor, 1 - decay)
            else:
                slow[name].copy_(tensor)
        if count % every == 0:
            for name, tensor in fast.items():
                tensor.copy_(slow[name])
            if state == "clear":
                optimizer.state.clear()
    return slow


@pytest.mark.parametrize("buffers", ["average", "copy"])
@pytest.mark.parametrize("state", ["keep", "clear"])
def test_it_is_an_independent_loop_bit_for_bit(make_net: Make, buffers: str, state: str) -> None:
    plain, net = make_net(), make_net()
    slow = reference(plain, 0.9, 7, buffers, state)
    method, optimizer = attached(
        net, decay=0.9, reset_every=7, buffers=buffers, optimizer_state=state
    )
    for count in range(1, 67):
        train_step(net, optimizer, count)
    assert_equal(net.state_dict(), plain.state_dict())
    assert_equal(method.tortoise.tensors(), slow)


def test_the_rule_by_hand() -> None:
    """θ = 4, gradient 1, lr 1, μ = 0.75, reset at step 2: s = 3.75, then 3.3125 for both."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 4.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    method = HareTortoise(decay=0.75, reset_every=2).attach(net, optimizer)
    pairs = []
    for _ in range(3):
        net.weight.grad = torch.ones_like(net.weight)
        optimizer.step()
        pairs.append((net.weight.item(), method.tortoise.tensors()["weight"].item()))
    assert pairs == [(3.0, 3.75), (3.3125, 3.3125), (2.3125, 3.0625)]


def test_without_resets_it_is_torchs_averaged_model(make_net: Make) -> None:
    net = make_net()
    method, optimizer = attached(net, decay=0.97, reset_every=None)
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.97))
    average.n_averaged.fill_(1)  # else it starts as a copy at the first update
    for count in range(60):
        train_step(net, optimizer, count)
        average.update_parameters(net)
    slow = method.tortoise.tensors()
    for name, parameter in average.module.named_parameters():
        assert torch.equal(slow[name], parameter), name
        assert not torch.equal(slow[name], net.state_dict()[name]), name


# ---- the clock ----


@pytest.mark.parametrize(
    ("hyperparameters", "expected"),
    [
        ({"reset_every": 6}, [6, 12, 18, 24]),  # steps run on across phases
        ({"reset_every": "2 epochs"}, [8, 16, 22]),  # 8 steps, then 6 from the phase's start on
        ({"reset_every": "1 epoch"}, [4, 8, 13, 16, 19, 22]),
        ({"reset_every": "0.5 epochs"}, [2, 4, 6, 8, 10, *range(12, 25, 2)]),
        ({"reset_every": "4 epochs"}, [22]),  # 16 of 10 steps, then 12 of 14
        ({"reset_every": 6, "first_reset": 2}, [2, 8, 14, 20]),
        ({"reset_every": 6, "first_reset": 9}, [9, 15, 21]),
        ({"reset_every": "2 epochs", "first_reset": 4}, [4, 16, 22]),
        ({"reset_every": None}, []),
    ],
)
def test_resets_fall_where_the_interval_says(
    make_net: Make, hyperparameters: dict[str, Any], expected: list[int]
) -> None:
    """Two phases of 10 and 14 steps, 4 and 3 an epoch; at a reset θ = s."""
    net = make_net()
    method, optimizer = attached(net, decay=0.7, **hyperparameters)
    resets, clock = [], itertools.count(1)
    for index, (steps, epoch_steps) in enumerate([(10, 4), (14, 3)]):
        assert method.enter_phase(index, steps, epoch_steps, 2) == steps
        for count in itertools.islice(clock, steps):
            train_step(net, optimizer, count)
            slow = method.tortoise.tensors()
            if all(torch.equal(p, slow[name]) for name, p in net.named_parameters()):
                resets.append(count)
    assert resets == expected


@pytest.mark.parametrize(
    ("reset_every", "expected"),
    [
        ("1 epoch", [(0, 2), (0, 4), (0, 6), (0, 8), (0, 10), (0, 12), (1, 4), (1, 8), (1, 12)]),
        ("4 epochs", [(0, 8)]),
        (9, [(0, 9), (1, 6)]),
    ],
)
def test_the_packages_loop_tells_it_epochs_and_phases(
    reset_every: int | str, expected: list[tuple[int, int]]
) -> None:
    resets: list[tuple[int, int]] = []

    class Recorded(HareTortoise):
        def act(self) -> None:
            super().act()
            resets.append((run.position.phase, run.position.step + 1))

    run = make_run(Recorded(decay=0.9, reset_every=reset_every), trained=False)
    run.train()
    assert resets == expected


def test_epochs_need_a_loop_that_tells_them(make_net: Make) -> None:
    net = make_net()
    _, optimizer = attached(net, reset_every="10 epochs")
    with pytest.raises(UsageError, match=r"'10 epochs' needs a loop that tells.*give steps"):
        train_step(net, optimizer, 0)


# ---- evaluation ----


def test_evaluating_holds_the_tortoise_and_restores_everything(make_net: Make) -> None:
    """Nested too, and when the body raises; one module was in evaluation mode before."""
    net = make_net()
    method, optimizer = attached(net, decay=0.2, reset_every=100)
    for count in range(4):
        train_step(net, optimizer, count)
    net[2].eval()
    hare, slow = copied(net), method.tortoise.tensors()
    with leaves_no_trace(method), method.evaluating() as evaluated:
        assert evaluated is net
        assert any(not torch.equal(tensor, hare[name]) for name, tensor in slow.items())
        with method.evaluating():
            assert_equal(net.state_dict(), slow)
            net(torch.randn(5, 6, generator=torch.Generator().manual_seed(0)))
        assert not any(child.training for child in net.modules())
        assert_equal(net.state_dict(), slow)
    with leaves_no_trace(method), pytest.raises(ZeroDivisionError), method.evaluating():
        raise ZeroDivisionError


def test_hare_and_tortoise_are_exchanged_by_reference(make_net: Make) -> None:
    """No weight is copied, and a graph built before is as good as new afterwards."""
    net = make_net()
    method, optimizer = attached(net, decay=0.2, reset_every=100)
    for count in range(4):
        train_step(net, optimizer, count)
    objects, tensors = list(net.parameters()), net.state_dict(keep_vars=True)
    fast = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    slow = {name: tensor.data_ptr() for name, tensor in method.tortoise.tensors().items()}
    slow |= {n: p for n, p in fast.items() if n.endswith("tracked")}  # no weights
    loss = net(torch.ones(4, 6)).square().sum()
    with method.evaluating():
        assert {n: t.data_ptr() for n, t in net.state_dict().items()} == slow
        assert all(a is b for a, b in zip(net.parameters(), objects, strict=True))
    assert {n: t.data_ptr() for n, t in net.state_dict().items()} == fast
    loss.backward()


def test_both_are_evaluated_in_the_packages_loop() -> None:
    run, plain = make_run(HareTortoise(decay=0.99, reset_every=None)), make_run(Method())
    for mine, theirs in zip(run.history.points, plain.history.points, strict=True):
        assert mine["hare/accuracy"] == theirs["test/accuracy"]
        assert mine["tortoise/accuracy"] == mine["test/accuracy"]
    assert run.history.points[-1]["hare/accuracy"] != run.history.points[-1]["tortoise/accuracy"]


# ---- attaching to any program ----


def test_what_is_no_torch_optimizer_is_refused(make_net: Make) -> None:
    with pytest.raises(UsageError, match=r"needs a torch.optim.Optimizer.*; list is not one"):
        HareTortoise().attach(make_net(), [])  # type: ignore[arg-type]


def test_one_instance_serves_one_module_and_replace_makes_another(make_net: Make) -> None:
    net = make_net()
    method, optimizer = attached(net, decay=0.5, reset_every=3)
    with pytest.raises(UsageError, match=r"attached already; attach a copy.*replace"):
        method.attach(net, optimizer)
    other = make_net()
    copy = dataclasses.replace(method, reset_every=4).attach(other, adamw(other))
    assert (copy.decay, copy.reset_every, method.reset_every) == (0.5, 4, 3)


def test_detached_it_leaves_the_module_alone(make_net: Make) -> None:
    net = make_net()
    method, optimizer = attached(net, decay=0.5, reset_every=2)
    train_step(net, optimizer, 0)
    method.detach()
    before = method.tortoise.state()
    train_step(net, optimizer, 1)
    assert_equal(method.tortoise.state(), before)
    assert any(not torch.equal(p, before[name]) for name, p in net.named_parameters())


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop])
def test_one_line_serves_any_torch_program(
    kind: Callable[..., torch.optim.Optimizer], make_net: Make
) -> None:
    net = make_net()
    optimizer = kind(net.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 10, 0.5)
    tortoise = ht_bench.HareTortoise(decay=0.9, reset_every=20).attach(net, optimizer)
    first = [parameter.detach().clone() for parameter in net.parameters()]
    for count in range(40):
        train_step(net, optimizer, count)
        schedule.step()
    assert_equal(net.state_dict(), tortoise.tortoise.tensors())
    moved = [not torch.equal(p, v) for p, v in zip(net.parameters(), first, strict=True)]
    assert all(moved[0::4])  # a bias before a BatchNorm has no gradient


def test_a_closure_and_groups_of_parameters_are_served_too(make_net: Make) -> None:
    net = make_net()
    weights = [p for p in net.parameters() if p.dim() > 1]
    others = [p for p in net.parameters() if p.dim() == 1]
    optimizer = torch.optim.SGD([{"params": weights}, {"params": others, "lr": 0.01}], lr=0.1)
    method = HareTortoise(decay=0.5, reset_every=2).attach(net, optimizer)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = net(torch.ones(4, 6)).square().sum()
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(closure)
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, method.tortoise.tensors()[name]), name


def test_the_slow_copy_follows_a_module_that_changes_its_type() -> None:
    """`Module.to` replaces buffers and the parameters' storage: both must still be averaged."""
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    method = HareTortoise(decay=0.5, reset_every=None).attach(net, optimizer)
    start = {name: tensor.clone().double() for name, tensor in method.tortoise.tensors().items()}
    net.to(torch.float64)
    net(torch.randn(5, 3, dtype=torch.float64)).square().sum().backward()
    optimizer.step()
    for name, tensor in method.tortoise.tensors().items():
        if tensor.is_floating_point():
            expected = start[name].lerp(net.state_dict()[name], 0.5)
            assert tensor.dtype == torch.float64
            torch.testing.assert_close(tensor, expected)


def test_an_attach_that_fails_leaves_nothing_behind() -> None:
    class Broken(HareTortoise):
        def setup(self) -> None:
            raise RuntimeError("no")

    net = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    method = Broken()
    with pytest.raises(RuntimeError):
        method.attach(net, optimizer)
    assert not optimizer._optimizer_step_post_hooks
    assert not hasattr(method, "module")
