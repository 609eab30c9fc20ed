"""The rates by hand, against torch's schedule and NumPy; both clocks; what a loop must tell."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.methods.cosine import Cosine
from ht_bench.methods.loop import Loop
from ht_bench.methods.resolve import resolve
from ht_bench.sb3 import find_algorithm
from ht_bench.training.capture import Graphs
from ht_bench.training.rate import rate_at
from ht_bench.training.supervised import SupervisedRun
from ht_bench.training.tape import Tapes

from .conftest import MLP, Make, TwoLayers, assert_equal, descend, digits, tiny, train_step


def noted(optimizer: torch.optim.Optimizer) -> list[float]:
    """Return a list that gets the rates with which each step is taken, one per group.

    Called after attach: hooks run in the order in which they were registered.
    """
    rates: list[float] = []
    optimizer.register_step_pre_hook(
        lambda optimizer, *_: rates.extend(float(group["lr"]) for group in optimizer.param_groups)
    )
    return rates


def test_the_rates_by_hand_begin_anew_with_each_phase() -> None:
    """4 steps: 1, cos²(π/8), 1/2, sin²(π/8) of the top; then 2: 1 and 1/2."""
    net = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    method = Cosine().attach(net, optimizer)
    rates = noted(optimizer)
    for index, steps in enumerate((4, 2)):
        assert method.enter_phase(index, steps, None, 2) == steps
        for step in range(steps):
            train_step(net, optimizer, step)
            assert optimizer.param_groups[0]["lr"] == 0.5
    shares = [1.0, math.cos(math.pi / 8) ** 2, 0.5, math.sin(math.pi / 8) ** 2, 1.0, 0.5]
    assert rates == pytest.approx([0.5 * share for share in shares])


def test_it_is_torchs_schedule(make_net: Make) -> None:
    net, plain = make_net(), make_net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    Cosine().attach(net, optimizer).enter_phase(0, 30, None, 1)
    theirs = torch.optim.AdamW(plain.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, T_max=30)
    for step in range(30):
        train_step(net, optimizer, step)
        train_step(plain, theirs, step)
        schedule.step()
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], tensor, atol=1e-6, rtol=1e-5)


def test_it_is_a_numpy_loop_with_a_floor_and_a_moving_top() -> None:
    """What the loop sets, such as a warm-up, is scaled."""
    ours = TwoLayers()
    net = ours.twin()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    Cosine(floor=0.2).attach(net, optimizer).enter_phase(0, 12, None, 1)
    for step in range(12):
        top = 0.1 + 0.02 * step
        optimizer.param_groups[0]["lr"] = top
        inputs, labels = ours.batch(step)
        share = 0.2 + 0.8 * (1 + math.cos(math.pi * step / 12)) / 2
        ours.step(ours.gradients(inputs, labels), top * share)
        descend(net, optimizer, inputs, labels)
        ours.assert_equals(net)
        assert optimizer.param_groups[0]["lr"] == top


def test_groups_are_scaled_each_by_its_own_top_and_a_shared_tensor_once() -> None:
    net = nn.Linear(6, 3)
    shared = torch.tensor(0.5)
    tops: list[Any] = [shared, shared, 0.25]
    parameters = [*net.parameters(), nn.Parameter(torch.ones(1))]
    optimizer = torch.optim.SGD(
        [{"params": [p], "lr": top} for p, top in zip(parameters, tops, strict=True)], lr=1
    )
    Cosine().attach(net, optimizer).enter_phase(0, 4, None, 1)
    rates = noted(optimizer)
    for step in range(3):
        train_step(net, optimizer, step)
    assert rates[6:] == [0.25, 0.25, 0.125]
    assert [group["lr"] for group in optimizer.param_groups] == tops == [0.5, 0.5, 0.25]
    assert optimizer.param_groups[0]["lr"] is shared


def test_a_closure_that_runs_twice_is_scaled_once() -> None:
    net = nn.Linear(6, 3)
    optimizer = torch.optim.LBFGS(net.parameters(), lr=0.5, max_iter=4)
    method = Cosine().attach(net, optimizer)
    method.enter_phase(0, 4, None, 1)
    seen = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = net(torch.ones(2, 6)).square().sum()
        loss.backward()
        return loss

    def noting() -> Tensor:
        seen.append(optimizer.param_groups[0]["lr"])
        return closure()

    for _ in range(3):
        optimizer.step(noting)
        assert optimizer.param_groups[0]["lr"] == 0.5
    assert min(seen) == 0.25


def run(method: Cosine, graphs: Graphs | None) -> SupervisedRun:
    task = tiny({"name": "mlp", "hidden": [16, 12]})
    made = SupervisedRun(task, digits(), method, (100, 101), graphs=graphs)
    made.train()
    return made


def test_in_the_packages_loop_it_scales_the_warm_up_too() -> None:
    made = SupervisedRun(tiny(MLP), digits(), Cosine(), (100, 101))
    rates = noted(made.optimizer)
    made.train()
    spec = made.task.optimizer
    expected = [
        rate_at(spec, step, 12) * (1 + math.cos(math.pi * step / 12)) / 2 for step in range(12)
    ]
    assert rates[:: len(made.optimizer.param_groups)] == pytest.approx(expected * 2)


@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_a_captured_run_has_the_same_rates(floor: float) -> None:
    eager, captured = (run(Cosine(floor), graphs) for graphs in (None, Tapes()))
    plain = run(Cosine(1.0), Tapes())
    for name, tensor in eager.module.state_dict().items():
        torch.testing.assert_close(captured.module.state_dict()[name], tensor, atol=1e-6, rtol=0)
    assert not torch.allclose(
        next(plain.module.parameters()), next(captured.module.parameters()), atol=1e-3
    )


def test_a_checkpoint_keeps_the_clock(make_net: Make) -> None:
    net, other = make_net(), make_net()
    optimizers = [torch.optim.AdamW(each.parameters(), lr=1e-2) for each in (net, other)]
    method = Cosine()
    twin = replace(method).attach(other, optimizers[1])
    method.attach(net, optimizers[0]).enter_phase(0, 9, None, 1)
    for step in range(4):
        train_step(net, optimizers[0], step)
    other.load_state_dict(net.state_dict())
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    twin.restore(method.checkpoint(), None, 1)
    for step in range(4, 9):
        train_step(net, optimizers[0], step)
        train_step(other, optimizers[1], step)
    assert_equal(net.state_dict(), other.state_dict())


# ---- the phase's length ----


def test_steps_say_the_length_and_then_the_rate_stays_at_the_floor() -> None:
    net = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    Cosine(floor=0.1, steps=2).attach(net, optimizer)
    rates = noted(optimizer)
    for step in range(4):
        train_step(net, optimizer, step)
    assert rates == pytest.approx([0.5, 0.275, 0.05, 0.05])


def test_a_length_that_nobody_told_is_asked_for() -> None:
    net = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    Cosine().attach(net, optimizer)
    with pytest.raises(UsageError, match="not told the length of the phase; call enter_phase"):
        train_step(net, optimizer, 0)
    with pytest.raises(UsageError, match=r"which a game does not tell; give it as steps"):
        Cosine().attach(net, optimizer, loop=Loop(name="a game", offers=frozenset()))


def test_an_agent_gives_its_updates() -> None:
    small = {"n_steps": 32, "batch_size": 16, "n_epochs": 2, "device": "cpu", "seed": 1}
    ppo: Any = find_algorithm("ppo")
    kwargs: dict[str, Any] = {"plasticity": "cosine"}
    with pytest.raises(UsageError, match=r"stable-baselines3's loop does not tell; give it as"):
        ppo("PlasticMlpPolicy", "CartPole-v1", policy_kwargs=kwargs, **small)
    kwargs["plasticity_kwargs"] = {"steps": 8}
    model = ppo("PlasticMlpPolicy", "CartPole-v1", policy_kwargs=kwargs, **small)
    rates = noted(model.policy.optimizer)
    model.learn(64)
    assert rates == pytest.approx(
        [3e-4 * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    )
    assert model.policy.optimizer.param_groups[0]["lr"] == 3e-4
    with pytest.raises(UsageError, match="Did you mean 'steps'"):
        resolve("cosine", overrides={"step": 3})


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"floor": -0.1}, "floor = -0.1: a share of the rate"),
        ({"floor": 1.1}, "floor = 1.1"),
        ({"steps": 0}, "steps = 0: give 1 step or more"),
        ({"steps": True}, "steps = True"),
    ],
)
def test_values_it_cannot_take_are_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        Cosine(**values)
