"""LAWA: the mean of the last checkpoints, by hand and against NumPy; training is as none's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ht_bench.errors import UsageError
from ht_bench.methods.lawa import LatestWeightAveraging
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


def test_the_rule_by_hand() -> None:
    """Weights 3, 2, 1, … -2 after steps 1 to 6; checkpoints 2, 0, -2; the last two averaged."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 4.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    method = LatestWeightAveraging(every=2, last=2).attach(net, optimizer)
    trained, judged = [], []
    for _ in range(6):
        net.weight.grad = torch.ones_like(net.weight)
        optimizer.step()
        trained.append(net.weight.item())
        with method.evaluating():
            judged.append(net.weight.item())
    assert trained == [3.0, 2.0, 1.0, 0.0, -1.0, -2.0]
    assert judged == [3.0, 2.0, 2.0, 1.0, 1.0, -1.0]


def test_it_is_a_numpy_loop() -> None:
    ours, checkpoints = TwoLayers(), []
    net = ours.twin()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    method = LatestWeightAveraging(every=3, last=4).attach(net, optimizer)
    for step in range(1, 31):
        inputs, labels = ours.batch(step)
        ours.step(ours.gradients(inputs, labels), 0.3)
        descend(net, optimizer, inputs, labels)
        if step % 3 == 0:
            checkpoints.append(dict(ours.weights))
        ours.assert_equals(net)
        last = checkpoints[-4:] or [ours.weights]
        with method.evaluating():
            for name, tensor in net.state_dict().items():
                mean = np.mean([checkpoint[name] for checkpoint in last], axis=0)
                np.testing.assert_allclose(tensor, mean, rtol=1e-10, err_msg=name)


def test_an_interval_in_epochs_restarts_with_a_phase_and_checkpoints_stay(make_net: Make) -> None:
    net = make_net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    method = LatestWeightAveraging(every="1 epochs", last=9).attach(net, optimizer)
    taken = []
    for step in range(1, 21):
        if step in (1, 11):
            method.enter_phase(step // 10, 10, 4, 2)
        train_step(net, optimizer, step)
        taken.append(method.state_dict()["taken"])
    assert [step for step in range(1, 21) if taken[step - 1] > ([0, *taken])[step - 1]] == [
        4,
        8,
        14,
        18,
    ]


@pytest.mark.parametrize("buffers", ["average", "copy"])
def test_running_statistics_are_averaged_unless_copied(make_net: Make, buffers: str) -> None:
    net = make_net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    method = LatestWeightAveraging(every=1, last=3, buffers=buffers).attach(net, optimizer)
    seen = []
    for step in range(4):
        train_step(net, optimizer, step)
        seen.append(copied(net))
    with leaves_no_trace(method), method.evaluating():
        judged = copied(net)
    for name in (name for name in judged if name.endswith(("mean", "var"))):
        mean = torch.stack([each[name] for each in seen[1:]]).mean(0)
        expected = mean if buffers == "average" else seen[-1][name]
        torch.testing.assert_close(judged[name], expected)


def test_no_storage_is_shared_with_the_network(make_net: Make) -> None:
    net = make_net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    method = LatestWeightAveraging(every=1, last=2).attach(net, optimizer)
    train_step(net, optimizer, 0)
    with method.evaluating():
        before = copied(net)
    for parameter in net.parameters():
        parameter.data.fill_(9.0)
    with method.evaluating():
        assert_equal(
            {n: net.get_parameter(n) for n, _ in net.named_parameters()},
            {n: before[n] for n, _ in net.named_parameters()},
        )


def test_another_number_of_checkpoints_is_refused(make_net: Make) -> None:
    nets, methods = [make_net(), make_net()], []
    for net, last in zip(nets, (3, 2), strict=True):
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
        methods.append(LatestWeightAveraging(every=1, last=last).attach(net, optimizer))
        for step in range(3):
            train_step(net, optimizer, step)
    with pytest.raises(UsageError, match="holds 3 of the weights that lawa averages"):
        methods[1].restore(methods[0].checkpoint(), None, None)


def test_after_resync_the_trained_weights_are_judged(make_net: Make) -> None:
    net = make_net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    method = LatestWeightAveraging(every=1, last=2).attach(net, optimizer)
    train_step(net, optimizer, 0)
    method.resync()
    trained = copied(net)
    with method.evaluating():
        assert_equal(net.state_dict(), trained)


def test_an_agent_trains_as_without_it_and_is_evaluated_by_the_average() -> None:
    kwargs = {"plasticity": "lawa", "plasticity_kwargs": {"every": 2, "last": 3}}
    small = {"n_steps": 32, "batch_size": 16, "n_epochs": 2, "device": "cpu", "seed": 1}
    ppo: Any = find_algorithm("ppo")
    plain = ppo("MlpPolicy", "CartPole-v1", **small).learn(64)
    model = ppo("PlasticMlpPolicy", "CartPole-v1", policy_kwargs=kwargs, **small).learn(64)
    for name, parameter in plain.policy.named_parameters():
        assert torch.equal(parameter, model.policy.get_parameter(name)), name
    seen = torch.ones(1, 4)
    with torch.no_grad():
        assert not torch.equal(model.policy(seen, True)[1], plain.policy(seen, True)[1])
    kwargs["plasticity_kwargs"] = {"every": "1 epochs"}
    with pytest.raises(UsageError, match="an agent has no epochs"):
        ppo("PlasticMlpPolicy", "CartPole-v1", policy_kwargs=kwargs, **small)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"last": 0}, "last = 0: average 1 checkpoint or more"),
        ({"last": True}, "last = True"),
        ({"every": "often"}, "'often' is no interval"),
    ],
)
def test_values_it_cannot_take_are_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        LatestWeightAveraging(**values)
