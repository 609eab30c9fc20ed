"""Switch-EMA is Hare & Tortoise at one epoch's interval; its clock; agents give steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ht_bench.errors import UsageError
from ht_bench.methods.hare_tortoise import HareTortoise
from ht_bench.methods.resolve import resolve
from ht_bench.methods.switch_ema import SwitchEMA
from ht_bench.sb3 import find_algorithm

from .conftest import TwoLayers, assert_equal, descend, make_run


def test_it_is_hare_tortoise_at_one_epochs_interval_bit_for_bit() -> None:
    ours, theirs = (
        make_run(method)
        for method in (SwitchEMA(decay=0.9), HareTortoise(0.9, "average", "1 epochs"))
    )
    assert_equal(ours.module.state_dict(), theirs.module.state_dict())
    assert ours.history.points == theirs.history.points
    other = make_run(HareTortoise(0.9, "average", "2 epochs"))
    assert other.history.points != ours.history.points


def test_it_is_a_numpy_loop() -> None:
    """Epochs of 4 steps, two phases of 10: switches at 4, 8 and 14, 18; the average goes on."""
    ours = TwoLayers()
    net, slow = ours.twin(), dict(ours.weights)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    method = SwitchEMA(decay=0.6).attach(net, optimizer)
    for step in range(20):
        if step % 10 == 0:
            method.enter_phase(step // 10, 10, 4, 2)
        inputs, labels = ours.batch(step)
        ours.step(ours.gradients(inputs, labels), 0.3)
        slow = {name: 0.6 * slow[name] + 0.4 * w for name, w in ours.weights.items()}
        if step + 1 in (4, 8, 14, 18):
            ours.weights = dict(slow)
        descend(net, optimizer, inputs, labels)
        ours.assert_equals(net)
        for name, tensor in method.tortoise.tensors().items():
            np.testing.assert_allclose(tensor, slow[name], rtol=1e-10, err_msg=name)


def test_an_agent_gives_steps_and_its_recipe_does() -> None:
    ppo = find_algorithm("ppo")
    small = {"n_steps": 32, "batch_size": 16, "n_epochs": 2, "device": "cpu"}
    with pytest.raises(UsageError, match=r"reset_every = '1 epochs': an agent has no epochs"):
        ppo("PlasticMlpPolicy", "CartPole-v1", policy_kwargs={"plasticity": SwitchEMA()}, **small)
    assert resolve("switch-ema", agent=True).hyperparameters["reset_every"] == 1000
    kwargs = {"plasticity": "switch-ema", "plasticity_kwargs": {"reset_every": 3}}
    ppo("PlasticMlpPolicy", "CartPole-v1", policy_kwargs=kwargs, **small).learn(64)
