"""The first share of a stream: which phases are left, and what a run on them is scored by."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ht_bench.errors import UsageError
from ht_bench.running.evaluate import run_plan
from ht_bench.running.first_share import first_metric, first_share, phase_steps_of
from ht_bench.running.plan import Request, make_plan
from ht_bench.streams.catalog import get_task
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.task import Task, parse_task
from tests.conftest import TINY


def of_data(text: str = TINY) -> Task:
    task = parse_task(tomllib.loads(text), "tiny")
    assert isinstance(task, Task)
    return task


@pytest.mark.parametrize(
    ("name", "share", "kept"),
    [
        ("continual-digits-v1", 0.1, [300]),
        ("continual-digits-v1", 0.25, [300, 300, 150]),
        ("warm-start-digits-v1", 0.1, [210]),
        ("warm-start-digits-v1", 1.0, [1500, 600]),
        ("permuted-digits-v1", 0.1, [150] * 3),
        ("swap-cartpole-dqn-v1", 0.1, [2400]),
        ("swap-cartpole-dqn-v1", 0.5, [4800, 4800, 2400]),
        ("swap-cartpole-ppo-v1", 0.2, [6144]),
    ],
)
def test_phases_end_at_the_share(name: str, share: float, kept: list[int]) -> None:
    whole = get_task(name)
    cut = first_share(whole, share)
    assert phase_steps_of(cut) == kept
    assert cut.name == whole.name and cut.seeds == whole.seeds
    assert (cut.sha256 == whole.sha256) is (share == 1)


def test_epochs_are_cut_by_updates() -> None:
    task = of_data(TINY.replace("updates = 4", "epochs = 4"))
    assert phase_steps_of(task) == [8, 2]
    assert first_share(task, 0.3).phases[0].updates == 3


def test_shares_of_the_phase_keep_their_length() -> None:
    """The rate's warm-up and the exploration end where they do in the whole stream."""
    digits = first_share(get_task("warm-start-digits-v1"), 0.2)
    assert isinstance(digits, Task)
    assert digits.optimizer.warmup * 420 == pytest.approx(0.1 * 1500)
    agent = first_share(get_task("swap-cartpole-dqn-v1"), 0.1)
    assert isinstance(agent, ReinforcementTask)
    assert agent.agent.settings["exploration_fraction"] == pytest.approx(0.32)


def test_its_runs_begin_as_those_of_the_whole() -> None:
    """Same draws, same rates: the losses agree until the cut."""
    whole = of_data(
        TINY.replace("updates = 4", "updates = 40").replace("points = 2", "points = 10")
    )
    cut = first_share(whole, 20 / 42)
    assert phase_steps_of(cut) == [20]
    curves = []
    for task in (whole, cut):
        request = Request(tasks=(task,), methods=("none",), seeds=(0,), split="validation")
        [record] = run_plan(make_plan(request), 1, progress=False).records
        by_step = dict(zip(record["curve"]["step"], record["curve"]["test/loss"], strict=True))
        curves.append({step: by_step[step] for step in (0, 4, 8, 12, 16, 20)})
    assert curves[0] == curves[1]


@pytest.mark.parametrize("share", [0, -0.1, 1.5])
def test_a_share_is_a_share(share: float) -> None:
    with pytest.raises(UsageError, match="a share lies above 0 and at most at 1"):
        first_share(of_data(), share)


def test_a_share_without_a_step_is_refused() -> None:
    with pytest.raises(UsageError, match="less than 1 of tiny-v1's 6 steps"):
        first_share(of_data(), 0.1)
    with pytest.raises(UsageError, match="less than 8 of swap-cartpole-dqn-v1's 24000 steps"):
        first_share(get_task("swap-cartpole-dqn-v1"), 1e-4)


def record(phases: list[int], steps: list[int], key: str, values: list[float]) -> dict[str, Any]:
    curve = {"phase": phases, "step": steps, key: values}
    facts = {"task": "t", "method": "m", "seed": 0, "classes": 10, "status": "finished"}
    return {**facts, "curve": curve}


def test_the_mean_of_the_ends_counts_a_cut_phase_by_its_share() -> None:
    whole = get_task("continual-digits-v1")
    cut = first_share(whole, 0.15)
    run = record([0, 0, 1, 1], [0, 300, 300, 450], "test/accuracy", [0.1, 0.8, 0.2, 0.5])
    assert first_metric(run, cut, whole) == pytest.approx((0.8 + 0.5 * 0.5) / 1.5)
    assert first_metric({**run, "status": "diverged"}, cut, whole) == 0.1


def test_families_scored_by_a_curve_have_its_mean() -> None:
    whole = get_task("swap-cartpole-dqn-v1")
    cut = first_share(whole, 0.3)
    steps = [0, 2400, 4800, 4800, 6000, 7200]
    returns = [10.0, 20.0, 40.0, 30.0, 50.0, 60.0]
    run = record([0, 0, 0, 1, 1, 1], steps, "eval/return", returns)
    first, second = np.trapezoid([10, 20, 40]) / 2, np.trapezoid([30, 50, 60]) / 2
    assert first_metric(run, cut, whole) == pytest.approx((first + second / 2) / 1.5)


def test_runs_lie_apart(tmp_path: Path) -> None:
    from ht_bench.running.tune import Budget, search

    request = Request(tasks=(of_data(),), methods=(), seeds=(0, 1), out=tmp_path, tensorboard=False)
    found = search(("none",), request, budget=Budget(regime="first", share=0.5))
    [search_] = found.searches
    assert (search_.regime, search_.share, search_.runs) == ("first", 0.5, 2)
    assert search_.task == of_data()
    assert len(list(tmp_path.glob("first-0.5/tiny-v1/none-*/seed*/result.json"))) == 2
