"""The loop: against plain torch, on its grid, to the bit, and with seeds that diverge."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ht_bench.methods.base import Method
from ht_bench.methods.resolve import resolve
from ht_bench.records.record import Record, without_cost
from ht_bench.running.job import StackJob, run_stack
from ht_bench.streams.dataset import Dataset
from ht_bench.streams.randomness import torch_seed
from ht_bench.streams.stream import Stream
from ht_bench.streams.task import Task
from ht_bench.training.device import Compute
from ht_bench.training.history import Observer
from ht_bench.training.supervised import SupervisedRun

MakeJob = Callable[..., StackJob]
MakeTask = Callable[..., Task]
Trained = Callable[..., list[Record]]
PLAIN = {"name": "mlp", "hidden": [16, 12]}


# ---- against an independent loop ----


def normalised(data: Dataset, images: Any) -> Tensor:
    pixels = images.reshape(len(images), -1) / 16
    return torch.tensor((pixels - data.mean[0]) / data.std[0], dtype=torch.float32)


def train_plainly(task: Task, data: Dataset, seed: int) -> tuple[nn.Sequential, list[float]]:
    """One seed in plain torch; returns the network and the accuracy at each phase's end."""
    torch.manual_seed(torch_seed(task.name, seed, "initial weights"))
    layers = [nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 10)]
    net, stream, accuracies = nn.Sequential(*layers), Stream(task, data, seed), []
    inputs = normalised(data, data.train_images)
    for index, spec in enumerate(task.phases):
        phase = stream.phase(index)
        optimizer = torch.optim.AdamW(
            net.parameters(), lr=task.optimizer.lr, weight_decay=0.1, fused=False, foreach=False
        )
        epoch_steps = -(-len(phase.indices) // 16)
        steps = spec.updates or (spec.epochs or 0) * epoch_steps
        for step in range(steps):
            epoch, place = divmod(step, epoch_steps)
            batch = stream.order(index, epoch)[16 * place : 16 * place + 16]
            warm_up = min(1.0, (step + 1) / int(0.5 * steps))
            optimizer.param_groups[0]["lr"] = task.optimizer.lr * warm_up
            optimizer.zero_grad()
            outputs = net(inputs[phase.indices[batch]])
            nn.functional.cross_entropy(outputs, torch.tensor(phase.labels[batch])).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            optimizer.step()
        guessed = net(normalised(data, data.test_images)).argmax(1).numpy()
        accuracies.append(float((guessed == data.test_labels).mean()))
    return net, accuracies


def test_equals_a_plain_torch_loop(make_task: MakeTask, digits: Dataset) -> None:
    phases = [
        {"new": 0.5, "wrong": 0.5, "updates": 13},
        {"new": 0.25, "wrong": 0.25, "epochs": 3},
        {"new": 0.25, "updates": 11},
    ]
    optimizer = {"lr": 3e-3, "clip": 0.5, "weight_decay": 0.1, "warmup": 0.5}
    task = make_task(net=PLAIN, phases=phases, optimizer=optimizer)
    run = SupervisedRun(task, digits, Method(), (100, 7))
    history = run.train()
    points = {(point["phase"], point["step"]): point for point in history.points}
    ends = [points[0, 13], points[1, 22], points[2, 33]]
    for slot, seed in enumerate((100, 7)):
        net, accuracies = train_plainly(task, digits, seed)
        for mine, plain in zip(run.module.parameters(), net.parameters(), strict=True):
            torch.testing.assert_close(mine[slot], plain, rtol=0, atol=1e-5)
        recorded = [point["test/accuracy"][slot] for point in ends]
        np.testing.assert_allclose(recorded, accuracies, atol=1e-9)


# ---- the grid of the curve ----


def test_the_curve_has_its_points_and_starts_untrained(trained: Trained) -> None:
    [record, _] = trained("none")
    curve = record["curve"]
    assert curve["step"] == [0, 4, 8, 12, 12, 14, 16, 19, 19, 21, 24, 27]
    assert curve["phase"] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert curve["test/loss"][0] == pytest.approx(np.log(10), abs=0.3)
    for key in ("train/loss", "train/accuracy"):  # nothing is trained at a phase's start
        unknown = [index for index, value in enumerate(curve[key]) if value is None]
        assert unknown == [0, 4, 8]
    assert record["diagnostics"]["step"] == [12, 19, 27]
    assert record["steps"] == 27
    assert record["retention"] is None  # a stream of one view has none


def test_more_points_than_steps_give_a_point_per_step(make_job: MakeJob) -> None:
    phases = [{"new": 0.5, "updates": 3}, {"new": 0.5, "updates": 2}]
    training = {"batch": 16, "points": 10, "stack": 2}
    [record, _] = run_stack(make_job("none", phases=phases, training=training))
    assert record["curve"]["step"] == [0, 1, 2, 3, 3, 4, 5]


def test_a_phase_starts_where_its_method_and_its_tests_put_it(make_job: MakeJob) -> None:
    phases = [{"new": 0.5, "updates": 30}, {"new": 0.5, "updates": 2}]
    curves = {}
    for method in ("none", "full-reset"):
        [record, _] = run_stack(make_job(method, phases=phases, net=PLAIN))
        end, start = [i for i, step in enumerate(record["curve"]["step"]) if step == 30]
        curves[method] = (record["curve"]["test/loss"][end], record["curve"]["test/loss"][start])
    assert curves["none"][0] == curves["none"][1] == curves["full-reset"][0]
    assert curves["full-reset"][1] == pytest.approx(np.log(10), abs=0.3)


def test_early_stop_keeps_the_grid_and_repeats_values(trained: Trained) -> None:
    [whole, _] = trained("none")
    [stopped, _] = trained("early-stop", {"fraction": 0.34})
    curve, full = stopped["curve"], whole["curve"]
    assert (curve["step"], curve["phase"]) == (full["step"], full["phase"])
    assert stopped["steps"] == 4 + 2 + 8
    for key in ("test/accuracy", "test/loss", "train/accuracy", "train/loss"):
        assert curve[key][:2] == full[key][:2]
        assert curve[key][1:4] == [curve[key][1]] * 3
        assert curve[key][5:8] == [curve[key][5]] * 3
    assert len(set(curve["test/loss"][8:])) == 4


# ---- resets ----


def test_the_last_phase_of_full_reset_does_not_know_the_first(make_job: MakeJob) -> None:
    phases = [{"new": 0.5, "wrong": 0.5, "updates": 12}, {"new": 0.5, "updates": 12}]
    longer = [{"new": 0.5, "wrong": 0.9, "updates": 30}, phases[1]]
    short = run_stack(make_job("full-reset", phases=phases))
    long = run_stack(make_job("full-reset", phases=longer))
    for mine, other in zip(short, long, strict=True):
        for key in ("test/accuracy", "test/loss", "train/accuracy", "train/loss"):
            assert mine["curve"][key][-3:] == other["curve"][key][-3:]
            assert mine["curve"][key][3] != other["curve"][key][3] or key == "test/accuracy"
        assert mine["diagnostics"]["weights/norm"][1] == other["diagnostics"]["weights/norm"][1]


# ---- determinism ----


@pytest.mark.parametrize("method", ["none", "hare-tortoise", "shrink-perturb"])
def test_two_runs_are_bit_identical(method: str, make_job: MakeJob, trained: Trained) -> None:
    first = trained(method)
    torch.manual_seed(12345)  # nothing of the run hangs on the program around it
    second = run_stack(make_job(method))
    assert [without_cost(r) for r in first] == [without_cost(r) for r in second]


def test_a_seed_hangs_neither_on_its_mates_nor_on_its_slot(
    make_job: MakeJob, trained: Trained
) -> None:
    together = trained("hare-tortoise")
    alone = [run_stack(make_job("hare-tortoise", seeds=(seed,)))[0] for seed in (100, 101)]
    turned = run_stack(make_job("hare-tortoise", seeds=(101, 100)))[::-1]
    for other in (alone, turned):
        assert [without_cost(r) for r in other] == [without_cost(r) for r in together]


def globals_of_torch() -> list[Any]:
    cudnn = torch.backends.cudnn
    return [
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32),
        torch.is_grad_enabled(),
        torch.get_rng_state().tolist(),
    ]


@dataclass(eq=False)
class Fails(Method):
    def after_step(self) -> None:
        raise ZeroDivisionError


@pytest.mark.parametrize("fails", [False, True])
def test_torch_is_as_before_afterwards(fails: bool, make_job: MakeJob) -> None:
    torch.set_num_threads(2)
    before = globals_of_torch()
    job = make_job(Fails) if fails else make_job("shrink-perturb", {"toward": "fresh"})
    with pytest.raises(ZeroDivisionError) if fails else nullcontext():
        run_stack(job)
    assert globals_of_torch() == before


# ---- divergence ----


@dataclass(eq=False)
class Poison(Method):
    """Writes NaN into the gradients of the seeds in `slots` from the step `start` on."""

    name = "poison"

    slots: tuple[int, ...] = ()
    start: int = 6

    def setup(self) -> None:
        self._step = 0

    def before_step(self) -> None:
        self._step += 1
        if self._step >= self.start:
            for parameter in self.module.parameters():
                for slot in self.slots:
                    assert parameter.grad is not None
                    parameter.grad[slot] = float("nan")


@pytest.mark.parametrize(("sick", "start"), [(0, 6), (1, 8), (2, 6)])
def test_one_diverged_seed_leaves_its_mates_alone(sick: int, start: int, make_job: MakeJob) -> None:
    """From step 6 on losses are NaN at the point of step 8; from step 8 on only weights are."""
    training = {"batch": 16, "points": 3, "stack": 3}
    shape = {"seeds": (100, 101, 102), "training": training}
    clean = run_stack(make_job(Poison, **shape))
    records = run_stack(make_job(Poison, {"slots": (sick,), "start": start}, **shape))
    for record in (*clean, *records):
        del record["hyperparameters"]
    for slot in {0, 1, 2} - {sick}:
        assert records[slot]["status"] == "finished"
        assert without_cost(records[slot]) == without_cost(clean[slot])
    curve = records[sick]["curve"]
    assert records[sick]["status"] == "diverged"
    assert curve["step"] == clean[sick]["curve"]["step"]
    assert curve["test/accuracy"][:2] == clean[sick]["curve"]["test/accuracy"][:2]
    assert curve["test/accuracy"][2:] == [0.1] * 10
    assert curve["test/loss"][2:] == [None] * 10


def test_when_all_seeds_diverge_training_stops_and_curves_are_whole(make_job: MakeJob) -> None:
    told: list[int] = []
    job = make_job(Poison, {"slots": (0, 1)})
    records = run_stack(job, Observer(progress=told.append))
    for record in records:
        assert record["status"] == "diverged"
        assert record["steps"] == 8  # noticed at the first point of the curve after step 6
        assert len(record["curve"]["test/accuracy"]) == 12
        assert record["curve"]["test/accuracy"][-1] == 0.1
    assert sum(told) == 27


# ---- augmentation, precision, retention ----


def test_augmentation_changes_training_and_no_test_point(
    make_job: MakeJob, cnn_changes: dict[str, Any]
) -> None:
    plain = [{**phase, "augment": False} for phase in cnn_changes["phases"]]
    [augmented] = run_stack(make_job(seeds=(100,), **cnn_changes))
    [unaugmented] = run_stack(make_job(seeds=(100,), **{**cnn_changes, "phases": plain}))
    assert augmented["curve"]["test/loss"][0] == unaugmented["curve"]["test/loss"][0]
    assert augmented["curve"]["train/loss"][1] != unaugmented["curve"]["train/loss"][1]


def test_bf16_autocast_runs_on_a_cpu(make_job: MakeJob, trained: Trained) -> None:
    job = dataclasses.replace(make_job("hare-tortoise"), compute=Compute("cpu", "bf16"))
    exact, rough = trained("hare-tortoise")[0], run_stack(job)[0]
    assert rough["status"] == "finished" and rough["precision"] == "bf16"
    losses = [np.array(record["curve"]["test/loss"]) for record in (exact, rough)]
    assert not np.array_equal(*losses)
    np.testing.assert_allclose(*losses, rtol=0.1)


def test_retention_of_permuted_inputs_is_the_last_network_on_every_view(
    make_task: MakeTask, digits: Dataset
) -> None:
    phases = [{**new, "inputs": "permuted", "updates": 40} for new in ({"new": 1.0}, {})]
    task = make_task(net=PLAIN, family="permuted", phases=phases, data={"name": "digits"})
    records = run_stack(StackJob(task, resolve("none"), (100, 7)))
    run = SupervisedRun(task, digits, Method(), (100, 7))
    run.train()
    for slot, seed in enumerate((100, 7)):
        accuracies = []
        for index in range(2):
            view = Stream(task, digits, seed).test(index)
            assert view.permutation is not None
            pixels = digits.test_images.reshape(-1, 64)[view.indices][:, view.permutation]
            inputs = normalised(digits, pixels)
            with torch.no_grad():
                guessed = run.module(inputs.expand(2, -1, -1))[slot].argmax(-1).numpy()
            accuracies.append(float((guessed == view.labels).mean()))
        last = records[slot]["curve"]["test/accuracy"][-1]
        assert records[slot]["retention"] == pytest.approx(accuracies, abs=0.0021)  # one of 500
        assert accuracies[1] == pytest.approx(last, abs=0.0021)
        assert accuracies[0] < accuracies[1]
