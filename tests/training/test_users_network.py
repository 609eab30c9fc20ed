"""A user's network where a built-in one is: the loop, resets, diagnostics, stacks of seeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ht_bench.errors import UsageError
from ht_bench.methods.resolve import resolve
from ht_bench.networks.parts import layers_of
from ht_bench.running.job import StackJob, run_stack
from ht_bench.running.kinds import check
from ht_bench.streams.data import load
from ht_bench.streams.task import Task
from ht_bench.training.supervised import SupervisedRun

FILE = Path(__file__).parents[1] / "networks" / "user_parts.py"
LONE = {"net": {"name": f"{FILE}:ByPosition"}, "training": {"batch": 16, "points": 3}}
STACKED = {"net": {"name": f"{FILE}:Perceptron", "width": 4}}
DRAWING = {"net": {"name": "mlp", "hidden": [8], "activation": f"{FILE}:Jitter"}}


@pytest.mark.parametrize("method", ["none", "head-reset", "full-reset", "hare-tortoise"])
@pytest.mark.parametrize("changes", [LONE, STACKED])
def test_it_trains_and_is_diagnosed(
    changes: dict[str, Any], method: str, make_job: Callable[..., StackJob]
) -> None:
    settings = {"reset_every": 5, "decay": 0.9} if method == "hare-tortoise" else None
    seeds = (100,) if changes is LONE else (100, 101)
    records = run_stack(make_job(method, settings, seeds=seeds, **changes))
    for record in records:
        assert record["status"] == "finished"
        assert record["curve"]["train/loss"][-1] < record["curve"]["train/loss"][1]
        assert len(record["diagnostics"]["plasticity/srank"]) == 3


@pytest.mark.parametrize("changes", [LONE, STACKED])
def test_a_head_reset_draws_its_last_layer_anew(
    changes: dict[str, Any], make_task: Callable[..., Task]
) -> None:
    seeds = (100,) if changes is LONE else (100, 101)
    task = make_task(**changes)
    run = SupervisedRun(task, load("digits"), resolve("head-reset", "").build(), seeds)
    before = {name: p.detach().clone() for name, p in run.module.named_parameters()}
    run._open(1)
    run.position.phase = 1
    run._cross(1)
    moved = {n for n, p in run.module.named_parameters() if not torch.equal(p, before[n])}
    last = layers_of(run.module)[-1]
    assert moved and all(name.startswith(f"{last}.") for name in moved)


@pytest.mark.parametrize("changes", [STACKED, DRAWING])
def test_a_seed_does_not_depend_on_its_mates(
    changes: dict[str, Any], make_job: Callable[..., StackJob]
) -> None:
    curves = []
    for seeds in [(100, 101), (102, 100)]:
        records = run_stack(make_job("none", None, seeds=seeds, **changes))
        [own] = [record for record in records if record["seed"] == 100]
        curves.append(own["curve"])
    assert curves[0] == curves[1]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("narrow", "logits of shape \\(2, 10\\) are wanted"), ("broken", "cannot be built")],
)
def test_what_is_no_network_is_refused_before_training(
    name: str, sentence: str, make_task: Callable[..., Task]
) -> None:
    task = make_task(net={"name": f"{FILE}:{name}"}, training={"batch": 16, "points": 3})
    with pytest.raises(UsageError, match=f"Task tiny: .*{sentence}"):
        check(task, resolve("none", "tiny"))
