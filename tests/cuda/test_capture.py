"""Steps captured as CUDA graphs train as steps that are run anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from ht_bench.methods.recipe import recipe_names
from ht_bench.methods.resolve import resolve
from ht_bench.streams.dataset import Dataset
from ht_bench.streams.task import Task
from ht_bench.training.supervised import SupervisedRun

Train = Callable[..., SupervisedRun]
MakeTask = Callable[..., Task]

SETTINGS: dict[str, dict[str, Any]] = {
    "hare-tortoise": {"reset_every": 5, "decay": 0.9, "optimizer_state": "clear"},
    "ema": {"decay": 0.9},
    "self-distillation": {"decay": 0.9},
    "l2": {"strength": 1e-2},
    "l2-init": {"strength": 1e-2},
}
CNN = {"name": "cnn", "channels": [8], "hidden": [8]}


def method_of(name: str) -> Any:
    return resolve(name, "", SETTINGS.get(name)).build()


def assert_alike(first: SupervisedRun, second: SupervisedRun, tolerance: float = 1e-4) -> None:
    """Weights and what the method keeps agree to rounding; captures may round otherwise."""
    theirs = second.module.state_dict()
    for name, tensor in first.module.state_dict().items():
        assert_close(tensor, theirs[name], rtol=tolerance, atol=tolerance, msg=name)
    for mine, other in zip(first.history.points, second.history.points, strict=True):
        assert mine["test/loss"] == pytest.approx(other["test/loss"], abs=100 * tolerance)


@pytest.mark.parametrize("name", recipe_names())
def test_every_method_trains_alike_captured_and_anew(
    name: str, make_task: MakeTask, train: Train, graphs: Any, uncaptured: Any
) -> None:
    task = make_task()
    captured = train(task, method_of(name), graphs)
    assert graphs.replays > 8, "nothing was replayed"
    assert_alike(captured, train(task, method_of(name), uncaptured))


@pytest.mark.parametrize("name", ["none", "hare-tortoise"])
def test_a_run_by_itself_captures(name: str, make_task: MakeTask, train: Train) -> None:
    """As the command line does it; against a run without graphs, whose rates are set on the host.

    On a CPU nothing is captured by itself.
    """
    run = train(make_task(), method_of(name))
    assert (run.graphs is not None) is (run.compute.device == "cuda")
    plain = train(make_task(), method_of(name), None)
    for mine, theirs in zip(run.history.points, plain.history.points, strict=True):
        assert mine["test/loss"] == pytest.approx(theirs["test/loss"], abs=0.05)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("augment", [False, True])
def test_convolutions_train_alike_in_every_precision(
    precision: str,
    augment: bool,
    make_task: MakeTask,
    train: Train,
    graphs: Any,
    uncaptured: Any,
    pictures: Dataset,
    device: str,
) -> None:
    if precision == "tf32" and device == "cpu":
        pytest.skip("a CPU has no TF32")
    phases = [{"new": 0.5, "updates": 7, "augment": augment}, {"new": 0.5, "epochs": 2}]
    task = make_task(net=CNN, phases=phases, training={"batch": 16, "points": 2})
    options: dict[str, Any] = {"precision": precision, "seeds": (100,), "data": pictures}
    captured = train(task, method_of("hare-tortoise"), graphs, **options)
    assert graphs.replays > 5
    again = train(task, method_of("hare-tortoise"), uncaptured, **options)
    assert_alike(captured, again, 2e-2 if precision == "bf16" else 1e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("state", ["keep", "clear"])
def test_resets_fall_between_captured_steps(
    optimizer: str, state: str, make_task: MakeTask, train: Train, graphs: Any, uncaptured: Any
) -> None:
    task = make_task(optimizer={"lr": 1e-2, "name": optimizer, "clip": 0.5})
    values = {"decay": 0.9, "reset_every": 4, "first_reset": 2, "optimizer_state": state}
    runs = [
        train(task, resolve("hare-tortoise", "", values).build(), each)
        for each in (graphs, uncaptured)
    ]
    assert_alike(*runs)


def test_nothing_waits_for_the_device_between_two_points(
    make_task: MakeTask, train: Train, graphs: Any, device: str
) -> None:
    """Replayed steps read nothing back: torch itself refuses a synchronisation meanwhile."""
    if device == "cpu":
        pytest.skip("a CPU has nothing to wait for")
    task = make_task(phases=[{"new": 1.0, "updates": 40}], training={"batch": 20, "points": 1})
    run = train(task, method_of("hare-tortoise"), graphs)
    before = torch.cuda.get_sync_debug_mode()
    with graphs.active():
        run.step.take(0)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            run.step.take(1)
            run.step.take(2)
        finally:
            torch.cuda.set_sync_debug_mode(before)
