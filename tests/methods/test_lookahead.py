"""Lookahead by hand, against NumPy, its clock, moments and running statistics, what is judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.methods.average import SlowCopy
from ht_bench.methods.hare_tortoise import HareTortoise
from ht_bench.methods.lookahead import Lookahead
from ht_bench.sb3 import find_algorithm

from .conftest import (
    Make,
    TwoLayers,
    assert_equal,
    copied,
    descend,
    leaves_no_trace,
    train_step,
)


def attached(net: nn.Module, **hyperparameters: Any) -> tuple[Lookahead, torch.optim.AdamW]:
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.1)
    return Lookahead(**hyperparameters).attach(net, optimizer), optimizer


def by_hand() -> list[tuple[float, float]]:
    """θ and s after each of four steps of gradient 1 and rate 1 from 4, with k = 2, α = 0.25."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 4.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    method = Lookahead(every=2, share=0.25).attach(net, optimizer)
    pairs = []
    for _ in range(4):
        net.weight.grad = torch.ones_like(net.weight)
        optimizer.step()
        pairs.append((net.weight.item(), method.slow.tensors()["weight"].item()))
    return pairs


def test_the_rule_by_hand() -> None:
    """The slow weight is the initial one until step 2: it was taken at attach."""
    assert by_hand() == [(3.0, 4.0), (3.5, 3.5), (2.5, 3.5), (3.0, 3.0)]


def test_shared_storage_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published reset `fast.data = slow.data`: the next step would move both."""

    def shared(slow: SlowCopy) -> None:
        for name, parameter in slow.module.named_parameters():
            parameter.data = slow.named()[name]

    monkeypatch.setattr(SlowCopy, "load_into_fast", shared)
    assert by_hand()[2] == (2.5, 2.5)


def test_it_is_a_numpy_loop() -> None:
    ours = TwoLayers()
    net, slow = ours.twin(), dict(ours.weights)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    method = Lookahead(every=3, share=0.4).attach(net, optimizer)
    for step in range(1, 20):
        inputs, labels = ours.batch(step)
        ours.step(ours.gradients(inputs, labels), 0.3)
        if step % 3 == 0:
            slow = {name: slow[name] + 0.4 * (w - slow[name]) for name, w in ours.weights.items()}
            ours.weights = dict(slow)
        descend(net, optimizer, inputs, labels)
        ours.assert_equals(net)
        for name, tensor in method.slow.tensors().items():
            np.testing.assert_allclose(tensor, slow[name], rtol=1e-10, err_msg=name)


def test_the_clock_runs_on_across_phases(make_net: Make) -> None:
    net = make_net()
    method, optimizer = attached(net, every=4)
    resets = []
    for step in range(1, 15):
        if step in (1, 7):
            method.enter_phase(step // 7, 6, 3, 2)
        train_step(net, optimizer, step)
        slow = method.slow.tensors()
        if all(torch.equal(p, slow[name]) for name, p in net.named_parameters()):
            resets.append(step)
    assert resets == [4, 8, 12]


def _first(net: nn.Module) -> Tensor:
    return next(net.parameters()).detach()


@pytest.mark.parametrize("state", ["keep", "clear"])
def test_moments_are_cleared_only_by_option_and_only_then(make_net: Make, state: str) -> None:
    net = make_net()
    _, optimizer = attached(net, every=3, optimizer_state=state)
    held = []
    for step in range(6):
        train_step(net, optimizer, step)
        held.append(len(optimizer.state) == len(list(net.parameters())))
        assert held[-1] or not optimizer.state
    assert held == [True, True, state == "keep"] * 2


@pytest.mark.parametrize("buffers", ["copy", "average"])
def test_running_statistics_are_the_modules_own_unless_averaged(
    make_net: Make, buffers: str
) -> None:
    """Training's own are never touched with "copy"; with "average" they go back to the slow."""
    net, plain = make_net(), make_net()
    method, optimizer = attached(net, every=2, buffers=buffers)
    train_step(net, optimizer, 0)
    train_step(plain, torch.optim.AdamW(plain.parameters(), lr=1e-2, weight_decay=0.1), 0)
    before = copied(net)
    assert_equal(before, plain.state_dict())
    train_step(net, optimizer, 1)
    names = [name for name in before if name.endswith(("mean", "var"))]
    slow = method.slow.named()
    assert names and all((name in slow) == (buffers == "average") for name in names)
    with method.evaluating():
        judged = copied(net)
    assert_equal({n: judged[n] for n in names}, {n: net.state_dict()[n] for n in names})


def test_evaluating_holds_the_slow_weights_and_leaves_no_trace(make_net: Make) -> None:
    net = make_net()
    method, optimizer = attached(net, every=3)
    for step in range(5):
        train_step(net, optimizer, step)
    fast, slow = copied(net), method.slow.tensors()
    with leaves_no_trace(method), method.evaluating() as evaluated:
        assert_equal(evaluated.state_dict(), slow)
        assert not torch.equal(_first(net), next(iter(fast.values())))


def test_with_every_step_it_is_hare_tortoise_at_its_rates_bit_for_bit(make_net: Make) -> None:
    """k = 1 and α = 1 − μ: the two rules are one."""
    net, twin = make_net(), make_net()
    _, optimizer = attached(net, every=1, share=0.25)
    theirs = torch.optim.AdamW(twin.parameters(), lr=1e-2, weight_decay=0.1)
    HareTortoise(decay=0.75, reset_every=1, buffers="copy").attach(twin, theirs)
    for step in range(10):
        train_step(net, optimizer, step)
        train_step(twin, theirs, step)
    assert_equal(net.state_dict(), twin.state_dict())


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_agents_train_with_it_and_inert_as_the_stock_policy(algorithm: str) -> None:
    """TD targets stay the algorithm's own, so an inert one leaves DQN alone as well."""
    ends = []
    settings = {
        "ppo": {"n_steps": 32, "batch_size": 16, "n_epochs": 2},
        "dqn": {"learning_starts": 16, "batch_size": 8, "train_freq": 1},
    }[algorithm]
    inert, acting = ({"every": 2, "share": share} for share in (1.0, 0.5))
    for given in (None, inert, acting):
        kwargs = {"net_arch": [8]} | (
            {"plasticity": "lookahead", "plasticity_kwargs": given} if given else {}
        )
        policy = "PlasticMlpPolicy" if given else "MlpPolicy"
        model: Any = find_algorithm(algorithm)(
            policy, "CartPole-v1", seed=1, policy_kwargs=kwargs, device="cpu", **settings
        )
        state = model.learn(64).policy.state_dict()
        ends.append({n: t for n, t in state.items() if not n.startswith("plasticity")})
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())
    assert not all(torch.equal(tensor, ends[2][name]) for name, tensor in ends[0].items())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"every": 0}, "every = 0: give 1 step or more"),
        ({"every": True}, "every = True"),
        ({"share": 0.0}, "share = 0.0: it lies above 0"),
        ({"share": 1.5}, "share = 1.5"),
        ({"optimizer_state": "forget"}, "optimizer_state = 'forget'"),
        ({"buffers": "drop"}, "buffers = 'drop'"),
    ],
)
def test_values_it_cannot_take_are_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        Lookahead(**values)
