"""A run stopped or killed anywhere goes on to the very result of an uninterrupted one."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from ht_bench.methods.base import Method
from ht_bench.records.record import Record, read_record, without_cost
from ht_bench.records.runs import result_file
from ht_bench.running.job import StackJob, run_stack
from ht_bench.training import checkpoint, run
from ht_bench.training.history import Interrupted, Observer

MakeJob = Callable[..., StackJob]
Trained = Callable[..., list[Record]]
LAST = 27


@dataclass(eq=False)
class OwnNoise(Method):
    """Adds noise to the weights from its own generators, one per seed."""

    name = "own-noise"

    def after_step(self) -> None:
        assert isinstance(self.generator, list)
        for parameter in self.module.parameters():
            for slot, generator in enumerate(self.generator[: len(parameter)]):
                target = parameter[slot] if self.stacked else parameter
                target.add_(torch.randn(target.shape, generator=generator), alpha=1e-3)


@dataclass(eq=False)
class GlobalNoise(Method):
    """Adds noise from torch's default generator, as dropout does."""

    name = "global-noise"

    def after_step(self) -> None:
        for parameter in self.module.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=1e-3)


METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "none": ("none", {}),
    "hare-tortoise, steps": ("hare-tortoise", {"reset_every": 5, "decay": 0.9}),
    "hare-tortoise, first reset": (
        "hare-tortoise",
        {"reset_every": 5, "first_reset": 2, "decay": 0.9},
    ),
    "hare-tortoise, epochs": ("hare-tortoise", {"reset_every": "2 epochs", "decay": 0.9}),
    "hare-tortoise, moments cleared": (
        "hare-tortoise",
        {"reset_every": 5, "decay": 0.9, "optimizer_state": "clear"},
    ),
    "ema": ("ema", {"decay": 0.9}),
    "shrink-perturb, fresh": ("shrink-perturb", {"amount": 0.5, "toward": "fresh"}),
    "shrink-perturb, initial": ("shrink-perturb", {"amount": 0.5, "toward": "initial"}),
    "self-distillation": ("self-distillation", {"decay": 0.9, "strength": 2.0}),
    "l2-init": ("l2-init", {"strength": 0.1}),
    "early-stop": ("early-stop", {"fraction": 0.6}),
    "full-reset": ("full-reset", {}),
    "own generators": (OwnNoise, {}),
    "torch's generator": (GlobalNoise, {}),
}
SHOWN = (
    *("hare-tortoise, steps", "hare-tortoise, epochs", "self-distillation", "early-stop"),
    *("shrink-perturb, fresh", "full-reset", "own generators", "torch's generator"),
)
"""Methods stopped at each kind of position in every run of the tests; others with --evidence."""


def shortened(always: Sequence[str], others: Sequence[str] = tuple(METHODS)) -> list[Any]:
    """Return both as parameters, the others marked as evidence."""
    rest = [name for name in others if name not in always]
    return [*always, *(pytest.param(name, marks=pytest.mark.evidence) for name in rest)]


POSITIONS = {
    "first step": 1,
    "on a grid point": 4,
    "mid-phase": 6,
    "before the last step of a phase": 11,
    "last step of a phase": 12,
    "first step of a phase": 13,
    "in an epoch of the second phase": 17,
    "first step of the last phase": 20,
    "before the last step": LAST - 1,
    "last step": LAST,
}


def stop_after(steps: int) -> Observer:
    counter = itertools.count(1)
    return Observer(stop=lambda: next(counter) == steps)


def interrupt(job: StackJob, steps: int) -> None:
    with pytest.raises(Interrupted):
        run_stack(job, stop_after(steps))
    assert job.checkpoint_file is not None and job.checkpoint_file.is_file()


def equal_parts(records: list[Record]) -> list[Record]:
    return [without_cost(record) for record in records]


def assert_continues(job: StackJob, whole: list[Record]) -> None:
    """Run the rest: equal records, equal files, and no checkpoint left."""
    assert equal_parts(run_stack(job)) == equal_parts(whole)
    assert job.folder is not None and job.checkpoint_file is not None
    written = [read_record(result_file(job.folder, seed)) for seed in job.seeds]
    assert equal_parts(written) == equal_parts(whole)
    assert not job.checkpoint_file.exists()


def stop_at(positions: Sequence[int], job: StackJob, whole: list[Record]) -> None:
    """Stop one run at each position in turn; it then ends as an uninterrupted one."""
    for before, steps in itertools.pairwise((0, *positions)):
        interrupt(job, steps - before)
    assert_continues(job, whole)


@pytest.mark.parametrize("name", shortened(SHOWN))
def test_stopped_at_every_kind_of_position(
    name: str, make_job: MakeJob, trained: Trained, tmp_path: Path
) -> None:
    stop_at(list(POSITIONS.values()), make_job(*METHODS[name], tmp_path), trained(*METHODS[name]))


@pytest.mark.evidence
@pytest.mark.parametrize("name", METHODS)
def test_stopped_once_at_every_kind_of_position(
    name: str, make_job: MakeJob, trained: Trained, tmp_path: Path
) -> None:
    for steps in POSITIONS.values():
        stop_at([steps], make_job(*METHODS[name], tmp_path / str(steps)), trained(*METHODS[name]))


@pytest.mark.evidence
@pytest.mark.parametrize("name", METHODS)
def test_stopped_after_every_single_step(
    name: str, make_job: MakeJob, trained: Trained, tmp_path: Path
) -> None:
    stop_at(range(1, LAST + 1), make_job(*METHODS[name], tmp_path), trained(*METHODS[name]))


@pytest.mark.parametrize("name", METHODS)
def test_killed_right_after_the_checkpoint_of_each_phase_boundary(
    name: str, make_job: MakeJob, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    killed: list[int] = []
    original = checkpoint.save

    def save(path: Path, fingerprint: str, state: dict[str, Any]) -> None:
        original(path, fingerprint, state)
        if state["position"]["step"] == 0:
            killed.append(state["position"]["phase"])
            raise Killed

    job = make_job(*METHODS[name], tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save)
        patch.setattr(run, "PAYS", 0.0)
        for _ in range(3):
            with pytest.raises(Killed):
                run_stack(job)
    assert killed == [1, 2, 3]
    assert_continues(job, trained(*METHODS[name]))


@pytest.mark.parametrize(
    "name", shortened(("hare-tortoise, steps", "full-reset"), ("none", "shrink-perturb, fresh"))
)
def test_a_lone_cnn_with_augmentation(
    name: str, make_job: MakeJob, cnn_changes: dict[str, Any], tmp_path: Path
) -> None:
    finished = run_stack(make_job(*METHODS[name], seeds=(100,), **cnn_changes))
    job = make_job(*METHODS[name], tmp_path, (100,), **cnn_changes)
    stop_at(list(POSITIONS.values()), job, finished)


def test_the_curve_and_the_progress_are_told_again(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job("none", None, tmp_path)
    interrupt(job, 14)
    points: list[int] = []
    steps: list[int] = []
    [record, _] = run_stack(job, Observer(steps.append, lambda entry: points.append(entry["step"])))
    assert points == record["curve"]["step"]
    assert steps[0] == 14 and sum(steps) == LAST


def test_seconds_add_up_over_interruptions(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job("none", None, tmp_path)
    interrupt(job, 25)
    assert job.checkpoint_file is not None
    saved = checkpoint.load(job.checkpoint_file, job.fingerprint())
    assert saved is not None
    [record, _] = run_stack(job)
    assert record["cost"]["stack_seconds"] > saved["seconds"] > 0


# ---- checkpoints that cannot be used ----


def broken(whole: bytes, kind: str) -> bytes:
    if kind == "empty":
        return b""
    if kind == "half":
        return whole[: len(whole) // 2]
    if kind.startswith("cut"):
        return whole[: len(whole) * int(kind.split()[1]) // 20]
    draw = random.Random(kind)
    flipped = bytearray(whole)
    flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
    return bytes(flipped)


def test_a_corrupt_checkpoint_is_left_out_with_a_warning(
    make_job: MakeJob, trained: Trained, tmp_path: Path
) -> None:
    job = make_job("none", None, tmp_path)
    interrupt(job, 14)
    assert job.checkpoint_file is not None
    saved = job.checkpoint_file.read_bytes()
    for kind in ("empty", "half", "bit 0"):  # others: test_checkpoint.py
        job.checkpoint_file.write_bytes(broken(saved, kind))
        with pytest.warns(UserWarning, match="unreadable; this run starts anew"):
            records = run_stack(job)
        assert equal_parts(records) == equal_parts(trained("none")), kind


DAMAGES = [f"{kind} {k}" for kind in ("cut", "bit") for k in range(20)]


@pytest.mark.parametrize("kind", shortened(("cut 7", "bit 3"), DAMAGES))
def test_after_any_damage_the_one_before_ends_as_an_undisturbed_run(
    kind: str, make_job: MakeJob, trained: Trained, tmp_path: Path
) -> None:
    job = make_job("hare-tortoise", {"reset_every": 5, "decay": 0.9}, tmp_path)
    interrupt(job, 10)
    interrupt(job, 7)  # at step 17
    assert job.checkpoint_file is not None
    job.checkpoint_file.write_bytes(broken(job.checkpoint_file.read_bytes(), kind))
    steps: list[int] = []
    with pytest.warns(UserWarning, match="is unreadable; this run goes on from the one before"):
        records = run_stack(job, Observer(steps.append))
    assert steps[0] == 10 and sum(steps) == LAST
    assert equal_parts(records) == equal_parts(trained(*METHODS["hare-tortoise, steps"]))
    assert job.folder is not None and not list(job.folder.glob("*.pt*"))


@pytest.mark.parametrize("kind", ["hyperparameters", "task", "split"])
def test_a_checkpoint_of_other_settings_is_not_used(
    kind: str, make_job: MakeJob, trained: Trained, tmp_path: Path
) -> None:
    weak, strong = {"strength": 0.1}, {"strength": 0.2}
    others = {
        "hyperparameters": make_job("l2", strong, tmp_path),
        "task": make_job("l2", weak, tmp_path, optimizer={"lr": 1e-3}),
        "split": StackJob(
            make_job().task, make_job("l2", weak).method, (100, 101), "validation", out=tmp_path
        ),
    }
    interrupt(others[kind], 14)
    job = make_job("l2", weak, tmp_path)
    left, wanted = others[kind].checkpoint_file, job.checkpoint_file
    assert left is not None and wanted is not None
    wanted.parent.mkdir(parents=True, exist_ok=True)
    if left != wanted:
        shutil.move(left, wanted)
    whose = "another task" if kind == "task" else "other settings"
    with pytest.warns(UserWarning, match=f"is of {whose}; this run starts anew"):
        records = run_stack(job)
    assert equal_parts(records) == equal_parts(trained("l2", weak))


def test_a_checkpoint_of_other_software_is_not_used(
    make_job: MakeJob, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job("none", None, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("ht_bench.running.job.software", lambda compute: {"torch": "0.4.1"})
        interrupt(job, 14)
    with pytest.warns(UserWarning, match="is of other software; this run starts anew"):
        records = run_stack(job)
    assert equal_parts(records) == equal_parts(trained("none"))


def test_tensors_of_a_cuda_checkpoint_come_back_where_they_were() -> None:
    """An optimizer's `step` on the device would be waited for in every step."""

    class Storage:
        def cuda(self) -> str:
            return "on the present device"

    places, storage = checkpoint._places("cuda"), Storage()
    assert callable(places) and checkpoint._places("cpu") == "cpu"
    assert places(storage, "cpu") is storage
    assert places(storage, "cuda:3") == "on the present device"
