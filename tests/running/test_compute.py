"""Where and how precisely each task is computed: asked for, or the task's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import ht_bench
from ht_bench.errors import UsageError
from ht_bench.running.compute import ComputeRequest, choose, gains_from_gpu, remarks
from ht_bench.running.plan import Request, make_plan
from ht_bench.streams.catalog import get_task
from ht_bench.streams.task import Task, load_task
from ht_bench.training.device import Compute


@pytest.fixture
def task(write_task: Any) -> Task:
    return load_task(write_task())


def published(task: Task, precision: Any = "tf32") -> Task:
    return replace(task, training=replace(task.training, precision=precision))


@pytest.fixture
def _cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def test_the_precision_is_part_of_a_task_and_its_default_of_no_hash(task: Task) -> None:
    assert published(task, "fp32").sha256 == task.sha256 != published(task).sha256
    assert get_task("warm-start-cifar10-v1").precision == "fp32"
    assert get_task("warm-start-cifar10-v2").precision == "tf32"
    assert get_task("swap-cartpole-dqn-v1").precision == "fp32"


@pytest.mark.parametrize(
    ("own", "asked", "chosen"),
    [
        ("fp32", ComputeRequest("cpu"), Compute("cpu", "fp32")),
        ("tf32", ComputeRequest("cpu"), Compute("cpu", "fp32")),
        ("tf32", ComputeRequest("cuda"), Compute("cuda", "tf32")),
        ("bf16", ComputeRequest("cpu"), Compute("cpu", "bf16")),
        ("tf32", ComputeRequest("cpu", "bf16", 2), Compute("cpu", "bf16", 2)),
        ("tf32", ComputeRequest("cuda", "fp32"), Compute("cuda", "fp32")),
        ("fp32", ComputeRequest("cuda", "tf32"), Compute("cuda", "tf32")),
    ],
)
@pytest.mark.usefixtures("_cuda")
def test_a_task_has_its_own_precision_unless_another_is_asked_for(
    task: Task, own: str, asked: ComputeRequest, chosen: Compute
) -> None:
    assert choose(published(task, own), asked) == chosen


@pytest.mark.usefixtures("_cuda")
def test_auto_takes_the_gpu_where_it_pays() -> None:
    """Not for the digits tasks, classic control and MinAtar, which are a CPU's."""
    small = ["warm-start-digits-v1", "shuffled-digits-v1", "swap-cartpole-dqn-v1"]
    small += ["games-minatar-v1"]
    large = ["warm-start-cifar10-v2", "continual-cifar100-v2", "warm-start-mnist-v2"]
    large += ["warm-start-cifar10-small-v1", "atari-100k-alien-v1"]

    def stub(name: str) -> Any:
        side = 8 if name == "digits" else 28
        return type("Data", (), {"train_images": torch.empty(1, 1, side, side), "classes": 10})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ht_bench.running.compute.dataset", stub)
        for name in (*small, *large):
            assert gains_from_gpu(get_task(name)) == (name in large), name
            device = "cuda" if name in large else "cpu"
            assert choose(get_task(name), ComputeRequest()).device == device
            assert choose(get_task(name), ComputeRequest("cuda")).device == "cuda"
    digits = get_task(small[0])
    [said] = remarks(digits, ComputeRequest(), Compute())
    assert "warm-start-digits-v1 trains on the CPU" in said and "--device cuda" in said
    assert not remarks(digits, ComputeRequest("cpu"), Compute())


def test_what_there_is_not_is_refused(task: Task) -> None:
    with pytest.raises(UsageError, match="tiny-v1 trains on a CPU, which has no TF32"):
        choose(task, ComputeRequest("cpu", "tf32"))
    agents = get_task("swap-cartpole-ppo-v1")
    with pytest.raises(UsageError, match="the agents of swap-cartpole-ppo-v1 train in fp32"):
        choose(agents, ComputeRequest("cpu", "bf16"))


def test_a_tf32_task_trains_on_a_cpu_in_fp32_and_says_so(task: Task, tmp_path: Path) -> None:
    shared: Any = {"progress": False, "out": tmp_path, "device": "cpu"}
    with pytest.warns(UserWarning, match="tiny-v1 is published in TF32, which a CPU does not"):
        result = ht_bench.evaluate("none", published(task), [0], **shared)
    plain = ht_bench.evaluate("none", task, [0], progress=False)
    assert result.records[0]["precision"] == "fp32"
    assert result.records[0]["curve"] == plain.records[0]["curve"]
    rough = ht_bench.evaluate("none", published(task), [0], precision="bf16", **shared)
    assert rough.records[0]["precision"] == "bf16"


def test_a_superseded_task_says_what_replaces_it(task: Task) -> None:
    old = replace(task, superseded_by="tiny-v2")
    plan = make_plan(Request((old,), ("none",), (0,)))
    assert plan.remarks == ("tiny-v1 is superseded by tiny-v2.",) and not plan.notes
