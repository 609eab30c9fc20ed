"""Continual backprop against its rule in NumPy, and the clock that says when a unit is due."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from ht_bench.methods.continual_backprop import Clock, ContinualBackprop
from ht_bench.networks import build

from .conftest import TwoLayers, descend
from .test_redo import as_tensors, fresh_weights

LR, DECAY, MATURITY, RATE = 0.2, 0.8, 2, 0.15


@pytest.mark.parametrize("mutate", [None, "no correction for age", "no move into the bias"])
def test_it_follows_the_rule_in_numpy(mutate: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if mutate == "no correction for age":
        monkeypatch.setattr(ContinualBackprop, "_corrected", lambda self, place, values: values)
    if mutate == "no move into the bias":
        monkeypatch.setattr(ContinualBackprop, "_move_into_bias", lambda *_: None)
    mine = TwoLayers()
    net = mine.twin()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    method = ContinualBackprop(RATE, MATURITY, DECAY, initialization="fresh")
    method.attach(net, optimizer, initialize=lambda: as_tensors(fresh_weights()))
    utility, means, ages, due, replaced = np.zeros(5), np.zeros(5), np.zeros(5), 0.0, 0
    same = True
    for step in range(25):
        inputs, labels = TwoLayers.batch(step)
        w = mine.weights
        hidden = np.maximum(inputs @ w["0.weight"].T + w["0.bias"], 0)
        mine.step(mine.gradients(inputs, labels), LR)
        ages += 1
        outgoing = np.abs(w["2.weight"]).sum(0)
        utility = DECAY * utility + (1 - DECAY) * outgoing * np.abs(hidden).mean(0)
        means = DECAY * means + (1 - DECAY) * hidden.mean(0)
        eligible = ages > MATURITY
        due += RATE * eligible.sum()
        while due >= 1:
            due -= 1
            corrected = np.where(eligible, utility / (1 - DECAY ** np.maximum(ages, 1)), np.inf)
            unit = int(corrected.argmin())
            if not eligible[unit]:
                continue
            w["2.bias"] = w["2.bias"] + w["2.weight"][:, unit] * means[unit] / (
                1 - DECAY ** ages[unit]
            )
            w["0.weight"][unit] = fresh_weights()["0.weight"][unit]
            w["0.bias"][unit] = fresh_weights()["0.bias"][unit]
            w["2.weight"][:, unit] = 0
            utility[unit] = means[unit] = ages[unit] = 0
            eligible[unit] = False
            replaced += 1
        descend(net, optimizer, inputs, labels)
        same = same and all(
            np.allclose(tensor, mine.weights[name], rtol=1e-9, atol=1e-12)
            for name, tensor in net.state_dict().items()
        )
    assert replaced > 5
    assert same is (mutate is None)


def test_the_clock_counts_as_steps_one_by_one_would() -> None:
    count, rate, maturity = 7, 0.11, 4
    clock, ages, total = Clock(count, rate, maturity), [0] * count, 0.0
    due = clock.due(0)
    for now in range(1, 80):
        ages = [age + 1 for age in ages]
        mature = [unit for unit, age in enumerate(ages) if age > maturity]
        total += rate * len(mature)
        whole = int(total)
        assert (now == due) is (whole > 0)
        if now == due:
            assert clock.take(now) == whole
            assert clock.replaced(now, whole) == min(whole, len(mature))
            for unit in mature[:whole]:
                ages[unit] = 0
            saved, clock = clock.state(), Clock(count, rate, maturity)
            clock.load(saved)
            due = clock.due(now)
        total -= whole


def test_nothing_is_due_before_units_are_mature() -> None:
    clock = Clock(10, 1.0, 50)
    assert clock.due(0) == 51


@pytest.mark.parametrize("stack", [2, None])
def test_a_replaced_units_weights_are_kaimings_and_its_normalisation_as_at_attach(
    stack: int | None,
) -> None:
    torch.manual_seed(0)
    table = {"name": "cnn", "channels": [6], "hidden": [8], "linear_norm": "batch"}
    net = build(table, (1, 4, 4), 3, stack)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    method = ContinualBackprop(replacement_rate=1.0, maturity=3)
    method.attach(net, optimizer, generator=generators)
    state = torch.get_rng_state()
    images = torch.randn(*([2] if stack else []), 16, 1, 4, 4, generator=generators[0])
    for _ in range(4):  # at the fourth step all units are mature, and all are due
        optimizer.zero_grad()
        net(images).square().sum().backward()
        optimizer.step()
    assert torch.equal(state, torch.get_rng_state())
    for layer, norm, reader, fan_in in (
        ("conv0", "conv_norm0", "linear0", 9),
        ("linear0", "norm0", "output", 24),
    ):
        tensors = {n: t for n, t in net.state_dict().items() if n.startswith((layer, norm))}
        weight = tensors.pop(f"{layer}.weight")
        # The next layer's recycled units cut nothing here: only this one's columns are zero.
        width = math.sqrt(6 / fan_in)
        assert 0.75 * width < float(weight.abs().max()) <= width or layer == "linear0"
        assert not net.state_dict()[f"{reader}.weight"].any()
        assert not tensors.get(f"{layer}.bias", torch.zeros(1)).any()
        assert bool((tensors[f"{norm}.weight"] == 1).all())
        assert not tensors[f"{norm}.bias"].any() and not tensors[f"{norm}.running_mean"].any()
        assert bool((tensors[f"{norm}.running_var"] == 1).all())


def test_a_replaced_units_mean_goes_on_through_the_next_bias() -> None:
    """Of a unit that always puts out the same, the outputs stay."""
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    with torch.no_grad():
        net[0].weight[1] = 0
        net[0].bias[1] = 0.25
        net[2].weight[:, 1] = torch.tensor([0.01, -0.02])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    ContinualBackprop(replacement_rate=0.1, maturity=2).attach(net, optimizer)
    inputs = torch.randn(50, 2, dtype=torch.double) + 1
    before = net(inputs).detach()
    for _ in range(6):
        optimizer.zero_grad()
        net(inputs).sum().backward()
        optimizer.step()
    assert not net[2].weight[:, 1].any()
    torch.testing.assert_close(net(inputs), before)
