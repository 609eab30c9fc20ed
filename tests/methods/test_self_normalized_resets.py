"""Self-normalized resets against their rule in plain Python: silences, histograms, percentiles."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ht_bench.methods.recycling import Activity
from ht_bench.methods.self_normalized_resets import BINS, SelfNormalizedResets

STEPS, UNITS = 120, 4


def attached(**values: float) -> SelfNormalizedResets:
    net = nn.Sequential(nn.Linear(2, UNITS), nn.ReLU(), nn.Linear(UNITS, 2))
    method = SelfNormalizedResets(**values)  # type: ignore[arg-type]
    return method.attach(net, torch.optim.SGD(net.parameters(), lr=0.0))


def show(method: SelfNormalizedResets, fires: list[bool]) -> list[bool]:
    """One step in which these units fire; returns which are recycled after it."""
    method._activities[0].value.copy_(torch.tensor([fires]).float())
    method.after_step()
    return method.chosen()[0].tolist()


@pytest.mark.parametrize("percentile", [0.5, 0.9, 0.98])
@pytest.mark.parametrize("minimum", [1, 6])
def test_silences_longer_than_the_percentile_are_ended(percentile: float, minimum: int) -> None:
    draw = np.random.default_rng(0)
    rates = [0.9, 0.5, 0.2, 0.05]
    method = attached(percentile=percentile, minimum=minimum)
    silence, times = [0] * UNITS, [list[int]() for _ in range(UNITS)]
    resets = 0
    for _ in range(STEPS):
        fires = [bool(draw.random() < rate) for rate in rates]
        expected = []
        for unit in range(UNITS):
            silence[unit] += 1
            if fires[unit]:
                times[unit].append(silence[unit])
                silence[unit] = 0
            ordered = sorted(times[unit])
            # the smallest time up to which a share of `percentile` of all times lies
            at = max(1, math.ceil(percentile * len(ordered) - 1e-9))
            threshold = max(minimum, ordered[at - 1]) if ordered else minimum
            reset = silence[unit] > threshold
            if reset:
                times[unit].append(silence[unit])
                silence[unit] = 0
                resets += 1
            expected.append(reset)
        assert show(method, fires) == expected
    assert resets > 0
    histogram = method._times[0]
    assert histogram.sum(-1).tolist() == [len(t) for t in times]
    assert histogram.shape == (UNITS, BINS)


def test_a_silence_beyond_the_last_bin_is_counted_there() -> None:
    method = attached(percentile=0.9, minimum=1, every=10_000)
    for _ in range(BINS + 20):
        method._activities[0].value.zero_()
        method.after_step()
    method._activities[0].value.fill_(1)
    method.after_step()
    assert method._times[0][:, -1].tolist() == [1] * UNITS
    assert method._silences[0].tolist() == [[0] * UNITS]


def test_a_unit_fires_when_it_is_positive_anywhere_in_the_batch() -> None:
    method = attached()
    features = torch.tensor([[0.0, 1.0, -1.0, 0.0], [0.0, 0.0, -2.0, 0.5]]).unflatten(-1, (1, 4))
    assert method.observe(features, (-3,)).tolist() == [[0.0, 1.0, 0.0, 1.0]]
    method.detach()


def through(method: SelfNormalizedResets, net: nn.Module, inputs: Tensor) -> None:
    method.optimizer.zero_grad()
    net(inputs).sum().backward()
    method.optimizer.step()


def test_in_training_a_silent_unit_is_drawn_anew_and_what_fires_stays() -> None:
    method = attached(percentile=0.9, minimum=3, every=1)
    net = method.module
    with torch.no_grad():
        net[0].bias.copy_(torch.tensor([5.0, 5.0, -9.0, 5.0]))
        net[0].weight.mul_(0.1)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for step in range(5):
        through(method, net, torch.ones(4, 2))
        moved = not torch.equal(net[0].bias, before["0.bias"])
        assert moved is (step >= 3)  # silent for 4 steps: longer than 3
    assert not torch.equal(net[0].bias[2], before["0.bias"][2])
    assert torch.equal(net[0].bias[[0, 1, 3]], before["0.bias"][[0, 1, 3]])
    assert not net[2].weight[:, 2].any() and net[2].weight[:, [0, 1, 3]].all()


def test_it_is_watched_once_a_step_however_often_the_network_runs() -> None:
    method = attached(percentile=0.9, minimum=50)
    for _ in range(3):
        method.module(torch.ones(4, 2))
    through(method, method.module, torch.ones(4, 2))
    silent = ~(method.activity[0] > 0)
    assert method._silences[0].tolist() == silent.int().tolist()
    assert isinstance(method._activities[0], Activity)
    assert dataclasses.replace(method).percentile == 0.9
