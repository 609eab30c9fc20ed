"""Runs on stacks of convolutional nets: methods, a seed's bits, resume, and single seeds."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.methods.recipe import recipe_names
from ht_bench.methods.resolve import resolve
from ht_bench.networks import stacked_conv
from ht_bench.networks.stacked_conv import StackedChain
from ht_bench.records.record import without_cost
from ht_bench.running.job import StackJob, run_stack
from ht_bench.streams.dataset import Dataset
from ht_bench.streams.task import Task
from ht_bench.training import build
from ht_bench.training.history import Interrupted, Observer
from ht_bench.training.supervised import SupervisedRun
from ht_bench.training.tape import Tapes

MakeTask = Callable[..., Task]
MakeJob = Callable[..., StackJob]
SETTINGS: dict[str, dict[str, Any]] = {
    "hare-tortoise": {"reset_every": 5, "decay": 0.9},
    "ema": {"decay": 0.9},
    "self-distillation": {"decay": 0.9},
    "l2-init": {"strength": 1e-2},
}


@pytest.fixture
def stacked(cnn_changes: dict[str, Any]) -> dict[str, Any]:
    """Return changes to the tiny task: a stack of four cnns on augmented pictures."""
    return {**cnn_changes, "training": {"batch": 16, "points": 3, "stack": 4}}


def trained(task: Task, data: Dataset, name: str, seeds: tuple[int, ...], **more: Any) -> Any:
    method = resolve(name, "", SETTINGS.get(name)).build()
    run = SupervisedRun(task, data, method, seeds, **more)
    run.train()
    return run


@pytest.mark.parametrize("way", ["as on a CPU", "as on a GPU"])
@pytest.mark.parametrize("name", recipe_names())
def test_every_method_trains_each_seed_as_its_lone_network(
    name: str,
    way: str,
    make_task: MakeTask,
    stacked: dict[str, Any],
    cnn_changes: dict[str, Any],
    pictures: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if way == "as on a GPU":
        monkeypatch.setattr(stacked_conv, "side_by_side", lambda maps: True)
    together = trained(make_task(**stacked), pictures, name, (100, 101, 102, 103))
    assert isinstance(together.module, StackedChain)
    alone = trained(make_task(**cnn_changes), pictures, name, (103,))
    assert not isinstance(alone.module, StackedChain)
    theirs = alone.module.state_dict()
    for key, tensor in together.module.state_dict().items():
        torch.testing.assert_close(tensor[3], theirs[key], rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize(
    "name", [*SETTINGS, "none", "full-reset", "head-reset", "shrink-perturb", "layer-norm", "crelu"]
)
def test_a_seed_has_the_same_bits_whatever_its_mates_and_slot(
    name: str, make_job: MakeJob, stacked: dict[str, Any]
) -> None:
    found: dict[int, dict[str, Any]] = {}
    for seeds in [(100, 101, 102), (102, 100), (103, 101, 104, 102)]:
        for record in run_stack(make_job(name, SETTINGS.get(name), seeds=seeds, **stacked)):
            kept = {key: record[key] for key in ("curve", "diagnostics", "status", "steps")}
            assert found.setdefault(record["seed"], kept) == kept
    assert sorted(found) == [100, 101, 102, 103, 104]
    assert found[100]["curve"] != found[101]["curve"]


@pytest.mark.parametrize("name", ["hare-tortoise", "full-reset"])
def test_a_stack_goes_on_after_each_stop(
    name: str, make_job: MakeJob, stacked: dict[str, Any], tmp_path: Path
) -> None:
    whole = run_stack(make_job(name, SETTINGS.get(name), **stacked))
    job = make_job(name, SETTINGS.get(name), tmp_path, **stacked)
    for steps in (1, 5, 7, 4):
        counter = itertools.count(1)
        with pytest.raises(Interrupted):
            run_stack(job, Observer(stop=lambda c=counter, s=steps: next(c) == s))  # type: ignore[misc]
    assert [without_cost(r) for r in run_stack(job)] == [without_cost(r) for r in whole]


@pytest.mark.parametrize("way", ["as on a CPU", "as on a GPU"])
def test_a_captured_step_of_a_stack_trains_as_step_by_step(
    way: str,
    make_task: MakeTask,
    stacked: dict[str, Any],
    pictures: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if way == "as on a GPU":
        monkeypatch.setattr(stacked_conv, "side_by_side", lambda maps: True)
    task, seeds = make_task(**stacked), (100, 101, 102, 103)
    runs = [
        trained(task, pictures, "hare-tortoise", seeds, graphs=graphs) for graphs in (None, Tapes())
    ]
    for one, other in zip(*(run.module.state_dict().values() for run in runs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_a_task_of_single_seeds_trains_the_lone_network(
    make_task: MakeTask, cnn_changes: dict[str, Any], stacked: dict[str, Any], pictures: Dataset
) -> None:
    """Its weights are those of the seed's slot in a stack."""
    lone = build.network(make_task(**cnn_changes), pictures, (101,), {})
    assert type(lone.get_submodule("conv0")) is nn.Conv2d
    stack = build.network(make_task(**stacked), pictures, (100, 101, 101, 102), {})
    own: dict[str, Tensor] = lone.state_dict()
    for name, tensor in stack.state_dict().items():
        assert torch.equal(tensor[1], own[name]) and torch.equal(tensor[2], own[name])
    assert not torch.equal(
        *(stack.get_parameter("conv0.weight")[slot] for slot in (0, 1))  # type: ignore[misc]
    )


def test_a_method_cannot_put_a_network_without_a_stack_into_one(
    make_task: MakeTask, stacked: dict[str, Any], pictures: Dataset
) -> None:
    change = {"name": "vgg16"}
    task = make_task(**{**stacked, "net": {"name": "cnn"}})
    with pytest.raises(UsageError, match="'vgg16' does not stack seeds"):
        build.network(task, pictures, (100, 101, 102, 103), change)
