"""The image tasks on real data, shortened; skipped where HT_BENCH_DATA names no data."""

import dataclasses

import numpy as np
import pytest

from ht_bench.methods.resolve import resolve
from ht_bench.running.job import StackJob, run_stack
from ht_bench.streams.catalog import get_task
from ht_bench.streams.data import load
from ht_bench.streams.stream import Stream, planned_steps
from ht_bench.streams.task import Task

pytestmark = pytest.mark.usefixtures("real_data_cache")


def shortened(name: str, updates: int, **training: int) -> Task:
    task = get_task(name)
    phases = [dataclasses.replace(p, epochs=None, updates=updates) for p in task.phases]
    return dataclasses.replace(
        task,
        phases=tuple(phases),
        training=dataclasses.replace(task.training, points=1, **training),
    )


def test_published_cifar10_has_the_published_number_of_steps() -> None:
    stream = Stream(get_task("warm-start-cifar10-v1"), load("cifar10"), 100)
    assert planned_steps(stream) == [20_000, 21_756]


def test_mnist_learns_from_clean_data_after_wrong_labels() -> None:
    task = shortened("warm-start-mnist-v1", 60)
    [record] = run_stack(StackJob(task, resolve("hare-tortoise", task.name), (100,)))
    curve = record["curve"]
    assert record["status"] == "finished"
    assert curve["step"] == [0, 60, 60, 120]
    assert 0.02 < curve["test/accuracy"][0] < 0.25
    assert curve["hare/accuracy"][3] > 0.9
    assert curve["train/accuracy"][1] < 0.6 < curve["train/accuracy"][3]


@pytest.mark.parametrize("method", ["none", "shrink-perturb"])
def test_a_few_steps_of_the_published_resnet_on_cifar10(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = shortened("warm-start-cifar10-v1", 2, batch=16)
    small = {"test_images": load("cifar10").test_images[:20]}
    small["test_labels"] = load("cifar10").test_labels[:20]
    data = dataclasses.replace(load("cifar10"), **small)
    monkeypatch.setattr("ht_bench.running.kinds.dataset", lambda name: data)
    monkeypatch.setattr("ht_bench.training.diagnosing.DIAGNOSED", 8)
    [record] = run_stack(StackJob(task, resolve(method, task.name), (100,)))
    assert record["status"] == "finished"
    assert record["steps"] == 4
    losses = [loss for loss in record["curve"]["train/loss"] if loss is not None]
    assert losses and np.isfinite(losses).all()
