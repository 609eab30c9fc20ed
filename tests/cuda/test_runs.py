"""Runs on a device: resumed at any step, stacked, compiled, their random numbers and settings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ht_bench.errors import UsageError
from ht_bench.methods.resolve import resolve
from ht_bench.records.record import read_record, without_cost
from ht_bench.streams.dataset import Dataset
from ht_bench.streams.task import Task
from ht_bench.training import build
from ht_bench.training.checkpoint import CheckpointPlan
from ht_bench.training.compiled import CompiledForward
from ht_bench.training.device import Compute, settings
from ht_bench.training.history import Interrupted, Observer
from ht_bench.training.supervised import SupervisedRun

Train = Callable[..., SupervisedRun]
MakeTask = Callable[..., Task]
CNN = {"name": "cnn", "channels": [8], "hidden": [8]}
METHODS = ("none", "hare-tortoise", "self-distillation", "shrink-perturb", "full-reset")


def method_of(name: str) -> Any:
    values = {
        "hare-tortoise": {"decay": 0.9, "reset_every": 5},
        "self-distillation": {"decay": 0.9},
    }
    return resolve(name, "", values.get(name)).build()


def assert_equal(first: SupervisedRun, second: SupervisedRun) -> None:
    theirs = second.module.state_dict()
    for name, tensor in first.module.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    assert repr(first.history.points) == repr(second.history.points)


# ---- resuming ----


def stopping(after: int) -> Observer:
    """Stop after so many steps."""
    seen = [0]

    def progress(steps: int) -> None:
        seen[0] += steps

    return Observer(progress=progress, stop=lambda: seen[0] >= after)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("stop", [1, 7, 12, 16])
def test_a_run_is_resumed_bit_for_bit(
    name: str, stop: int, make_task: MakeTask, train: Train, tmp_path: Path
) -> None:
    task, plan = make_task(), CheckpointPlan(tmp_path / "stack.pt", "mine")
    whole = train(task, method_of(name))
    with pytest.raises(Interrupted):
        train(task, method_of(name), plan=plan, observer=stopping(stop))
    assert_equal(whole, train(task, method_of(name), plan=plan))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_convolutional_run_is_resumed_bit_for_bit(
    precision: str, make_task: MakeTask, train: Train, pictures: Dataset, tmp_path: Path
) -> None:
    phases = [{"new": 0.5, "updates": 7, "augment": True}, {"new": 0.5, "updates": 9}]
    task = make_task(net=CNN, phases=phases, training={"batch": 16, "points": 2})
    options: dict[str, Any] = {"precision": precision, "seeds": (100,), "data": pictures}
    plan = CheckpointPlan(tmp_path / "stack.pt", "mine")
    whole = train(task, method_of("hare-tortoise"), **options)
    with pytest.raises(Interrupted):
        train(task, method_of("hare-tortoise"), plan=plan, observer=stopping(9), **options)
    assert_equal(whole, train(task, method_of("hare-tortoise"), plan=plan, **options))


TASK = """\
name = "kill-v1"
family = "warm-start"
seeds = "100-101"
data = { name = "digits", train = 300 }
net = { name = "mlp", hidden = [64, 64] }
optimizer = { lr = 1e-3 }
training = { batch = 64, stack = 2, points = 40 }

[[phases]]
new = 0.5
wrong = 0.5
updates = 20000

[[phases]]
new = 0.5
updates = 2000
"""


@pytest.mark.evidence
def test_a_killed_command_goes_on_to_the_same_records(device: str, tmp_path: Path) -> None:
    (tmp_path / "kill.toml").write_text(TASK, encoding="utf-8")

    def command(out: str) -> list[str]:
        words = ["run", "--task", str(tmp_path / "kill.toml"), "--method", "hare-tortoise"]
        return [sys.executable, "-m", "ht_bench", *words, "--device", device, "--out", out]

    subprocess.run(command(str(tmp_path / "whole")), check=True, timeout=300)
    process = subprocess.Popen(command(str(tmp_path / "killed")), start_new_session=True)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed").rglob("stack-*.pt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run(command(str(tmp_path / "killed")), check=True, timeout=300)
    found = {
        name: [
            without_cost(read_record(path))
            for path in sorted((tmp_path / name).rglob("result.json"))
        ]
        for name in ("whole", "killed")
    }
    assert found["whole"] == found["killed"] and len(found["whole"]) == 2


# ---- stacks ----


@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_a_seeds_bits_depend_on_neither_slot_nor_mates(
    net: str, make_task: MakeTask, train: Train, pictures: Dataset
) -> None:
    tables = {"mlp": {"name": "mlp", "hidden": [16, 12]}, "cnn": CNN}
    try:
        task = make_task(net=tables[net])
    except UsageError:
        pytest.skip(f"'{net}' stacks no seeds in this version")
    data = pictures if net == "cnn" else None
    runs = [
        train(task, method_of("hare-tortoise"), seeds=seeds, data=data)
        for seeds in ((100, 101), (101, 100), (102, 101))
    ]
    slots = (1, 0, 1)
    weights = [
        {name: tensor[slot] for name, tensor in run.module.state_dict().items()}
        for run, slot in zip(runs, slots, strict=True)
    ]
    for other in weights[1:]:
        for name, tensor in weights[0].items():
            assert torch.equal(tensor, other[name]), name


# ---- compilation ----


def test_a_compiled_network_trains_as_the_plain_one(
    make_task: MakeTask, device: str, pictures: Dataset
) -> None:
    if device == "cpu":
        pytest.skip("compiling for a CPU needs a C++ compiler")
    phases = [{"new": 1.0, "updates": 12}]
    task = make_task(net=CNN, phases=phases, training={"batch": 16, "points": 2})
    losses = []
    for compiled in (False, True):
        compute = Compute(device)
        with settings(compute):
            run = SupervisedRun(task, pictures, method_of("none"), (100,), "test", compute)
            if compiled:
                run.step.full_forward = CompiledForward(run.module)
            run.train()
        losses.append(run.history.points[-1]["test/loss"])
    assert losses[0] == pytest.approx(losses[1], abs=0.02)


# ---- random numbers and settings ----


def test_dropout_is_keyed_whatever_was_drawn_before(
    make_task: MakeTask, train: Train, pictures: Dataset, device: str
) -> None:
    if device == "cpu":
        pytest.skip("the transformer is too large for a CPU's test")
    task = make_task(
        net={"name": "vit"},
        phases=[{"new": 1.0, "updates": 6}],
        training={"batch": 16, "points": 1},
    )
    runs = []
    for drawn in (1, 1000):
        torch.rand(drawn, device=device)
        runs.append(train(task, method_of("none"), seeds=(100,), data=pictures))
    assert_equal(*runs)


def test_drawing_a_network_leaves_the_devices_random_numbers_alone(
    make_task: MakeTask, pictures: Dataset, device: str
) -> None:
    state = torch.cuda.get_rng_state if device == "cuda" else torch.get_rng_state
    before = state()
    build.network(make_task(), pictures, (100, 101), {})
    assert torch.equal(state(), before)


@pytest.mark.parametrize("before", [None, ":16:8"])
def test_settings_are_as_before_afterwards(
    before: str | None, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if before is not None:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", before)
    sdp = torch.backends.cuda.mem_efficient_sdp_enabled()
    with settings(Compute(device)):
        pass
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == before
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cuda.mem_efficient_sdp_enabled() == sdp
