"""The learning rate: a linear rise, then constant, on the host and as a tensor on a device."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from ht_bench.methods.base import Method
from ht_bench.streams.data import load
from ht_bench.streams.task import OptimizerSpec, Task
from ht_bench.training.rate import LearningRate, rate_at
from ht_bench.training.supervised import SupervisedRun
from ht_bench.training.tape import Tapes

SPEC = OptimizerSpec(lr=0.5, warmup=0.4)
PLANNED = [10, 5]


def adam() -> torch.optim.Optimizer:
    return torch.optim.AdamW(nn.Linear(2, 2).parameters(), lr=0.1, fused=True)


def test_the_rise_is_linear_and_ends_at_its_share() -> None:
    rates = [rate_at(SPEC, step, 10) for step in range(10)]
    assert rates == pytest.approx([0.125, 0.25, 0.375, *[0.5] * 7])
    assert rate_at(OptimizerSpec(lr=0.5, warmup=0.0), 0, 10) == 0.5


@pytest.mark.parametrize("device", [None, "cpu"])
def test_each_step_of_each_phase_has_its_rate(device: str | None) -> None:
    optimizer = adam()
    rate = LearningRate(optimizer, SPEC, PLANNED, device)
    for phase, steps in enumerate(PLANNED):
        rate.open(phase)
        for step in (*range(steps), 1, 2):  # and back again, as a resumed run
            rate.seek(step)
            rate.set()
            rate.passed()
            expected = rate_at(SPEC, step, steps)
            assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(expected), (phase, step)


def test_on_a_device_the_optimizers_rate_stays_one_tensor() -> None:
    optimizer = adam()
    rate = LearningRate(optimizer, SPEC, PLANNED, "cpu")
    held = optimizer.param_groups[0]["lr"]
    assert isinstance(held, torch.Tensor)
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups[0]["lr"] is not held
    rate.bind()
    assert optimizer.param_groups[0]["lr"] is held


def test_a_resumed_run_binds_the_rate_again(make_task: Callable[..., Task]) -> None:
    run = SupervisedRun(make_task(), load("digits"), Method(), (100, 101), graphs=Tapes())
    held = run.optimizer.param_groups[0]["lr"]
    run.load_state_dict(run.state_dict())
    assert run.optimizer.param_groups[0]["lr"] is held
