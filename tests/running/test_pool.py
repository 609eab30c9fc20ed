"""Who trains the stacks: failures stay where they are, and a pool changes no bit."""

from __future__ import annotations

import errno
import importlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import ht_bench
from ht_bench import registry
from ht_bench.methods.resolve import Named
from ht_bench.records.record import Record, without_cost
from ht_bench.records.runs import read_runs
from ht_bench.running.evaluate import Finished, run_plan
from ht_bench.running.executor import ExecutorRequest, signals_stop
from ht_bench.running.local import LocalExecutor
from ht_bench.running.plan import Request, make_plan
from ht_bench.running.time_limit import NO_LIMIT
from ht_bench.streams.task import Task, parse_task

Call = Callable[..., Any]
METHODS = '''\
"""Methods that misbehave in a stack that holds seed 101, and two that do not."""
import dataclasses
import os
import pathlib
import signal
import sys
import time

import torch

import ht_bench
from ht_bench.streams.randomness import torch_seed

SICK = torch_seed("tiny", 101, "method")

@dataclasses.dataclass(eq=False)
class Misbehaving(ht_bench.Method):
    def setup(self):
        self.sick = any(g.initial_seed() == SICK for g in self.generator)
        self.steps = 0

    def after_step(self):
        self.steps += 1
        if self.sick and self.steps == 5:
            self.misbehave()

class Raises(Misbehaving):
    def misbehave(self):
        raise ZeroDivisionError("the sky fell")  # Raises

class Leaves(Misbehaving):
    def misbehave(self):
        sys.exit(0)  # Leaves

class Dies(Misbehaving):
    def misbehave(self):
        os.kill(os.getpid(), signal.SIGKILL)

class Hangs(ht_bench.Method):
    def after_step(self):
        pathlib.Path(__file__).with_name("hanging").touch()
        time.sleep(3600)

@dataclasses.dataclass(eq=False)
class Noisy(ht_bench.Method):
    def after_step(self):
        for parameter in self.module.parameters():
            for slot, generator in enumerate(self.generator):
                noise = torch.randn(parameter[slot].shape, generator=generator)
                parameter[slot] += 0.01 * noise
'''


def tiny(updates: int = 12) -> Task:
    table = {
        "name": "tiny",
        "family": "warm-start",
        "data": {"name": "digits", "train": 60},
        "net": {"name": "mlp", "hidden": [16, 12]},
        "optimizer": {"lr": 1e-2},
        "training": {"batch": 16, "points": 2},
        "phases": [{"new": 0.5, "wrong": w, "updates": updates} for w in (0.5, 0.0)],
    }
    return parse_task(table, "tiny.toml")


@pytest.fixture
def task() -> Task:
    return tiny()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a user's own methods."""
    path = tmp_path_factory.mktemp("methods") / "users_methods.py"
    path.write_text(METHODS, encoding="utf-8")
    return path


def plan_of(task: Task, methods: Sequence[Named], out: Path | None, seeds: Sequence[int]) -> Any:
    return make_plan(Request((task,), tuple(methods), tuple(seeds), out=out, tensorboard=False))


def run(workers: int, *request: Any) -> Finished:
    return run_plan(plan_of(*request), workers, progress=False)


def executor(workers: int) -> LocalExecutor:
    return LocalExecutor(ExecutorRequest(workers=workers), lambda sentence: None)


def by_run(records: list[Record]) -> dict[tuple[str, int], Record]:
    return {(r["method"], r["seed"]): without_cost(r) for r in records}


@dataclass
class Ran:
    """The same methods by two workers, into a folder, and by this process."""

    out: Path
    pool: Finished
    alone: Finished


@pytest.fixture(scope="module")
def ran(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """A lost class, three that misbehave in seed 101, and four sound methods: seeds 101 and 102."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(file.parent))  # workers import from there too
        patch.setattr(registry.methods, "_entries", dict(registry.methods._entries))
        module = importlib.import_module(file.stem)
        ht_bench.register_method("noisy")(module.Noisy)
        lost = type("Lost", (ht_bench.Method,), {"__module__": file.stem})
        patch.setattr(module, "Lost", lost, raising=False)  # here, but in no worker
        sound = ("noisy", ht_bench.L2Init(strength=0.1), "none", "hare-tortoise")
        failing = (f"{file}:Raises", f"{file}:Leaves")
        out = tmp_path_factory.mktemp("pool")
        pool = run(2, tiny(), (lost, f"{file}:Dies", *failing, *sound), out, (101, 102))
        yield Ran(out, pool, run(1, tiny(), (*failing, *sound), None, (101, 102)))
        del sys.modules[file.stem]


def test_a_pool_equals_one_process_bit_for_bit(ran: Ran) -> None:
    """Of registered names, instances and files, randomness of their own included."""
    pool, alone = by_run(ran.pool.records), by_run(ran.alone.records)
    assert len(alone) == len(ran.alone.records) == 10
    assert {run: record for run, record in pool.items() if run[0] != "Dies"} == alone
    assert by_run(read_runs(ran.out)[0]) == pool


def test_failures_leave_all_other_stacks_running(ran: Ran) -> None:
    pool = set(by_run(ran.pool.records))
    sound = {"noisy", "l2-init", "none", "hare-tortoise"}
    assert {name for name, seed in pool if seed == 101} == sound
    assert {name for name, seed in pool if seed == 102} == sound | {"Raises", "Leaves", "Dies"}
    assert len(ran.pool.failures) == 5 and len(ran.alone.failures) == 2
    assert not any("\n" in sentence for sentence in ran.pool.failures)


def test_a_killed_worker_names_its_own_job(ran: Ran) -> None:
    [sentence] = [each for each in ran.pool.failures if "'Dies'" in each]
    assert "trained 'Dies' on tiny, seeds 101, died" in sentence
    assert "run the same command again" in sentence and "--jobs" in sentence


@pytest.mark.parametrize(
    ("name", "error"), [("Raises", "ZeroDivisionError: the sky fell"), ("Leaves", "SystemExit: 0")]
)
def test_a_method_that_raises_is_named_with_its_line(
    ran: Ran, file: Path, name: str, error: str
) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    line = next(n for n, text in enumerate(lines, 1) if text.endswith(f"# {name}"))
    for done in (ran.pool, ran.alone):
        [sentence] = [each for each in done.failures if f"'{name}'" in each]
        assert f"'{name}' failed on tiny with {error} ({file}, line {line})" in sentence


def test_a_class_that_no_worker_can_import_is_named(ran: Ran) -> None:
    first, second = (each for each in ran.pool.failures if "Lost" in each)  # one a stack
    for sentence in (first, second):
        assert "cannot be handed to worker processes" in sentence and "file.py:Class" in sentence


def test_a_class_that_cannot_be_pickled_is_refused_before_anything_starts(task: Task) -> None:
    @dataclass(eq=False)
    class Local(ht_bench.Method):
        pass

    with pytest.raises(ht_bench.UsageError, match="Local cannot be handed to worker processes"):
        ht_bench.evaluate(Local, task, (0, 1), jobs=2, progress=False)
    assert len(ht_bench.evaluate(Local, task, (0, 1), jobs=1, progress=False).records) == 2


# ---- Ctrl-C ----


def test_ctrl_c_with_400_stacks_planned_ends_the_two_that_run(tmp_path: Path) -> None:
    """They save their checkpoints, far from their end; none of the others is started."""
    plan = plan_of(tiny(updates=10**6), ("none",), tmp_path, range(400))
    assert len(plan.jobs) == 400
    steps_taken, interrupted = 0, False

    def interrupt(steps: int) -> None:
        nonlocal steps_taken, interrupted
        steps_taken += steps
        if steps and not interrupted and len(list(tmp_path.rglob(".lock"))) == 2:
            interrupted = True
            os.kill(os.getpid(), signal.SIGINT)

    with signals_stop() as stop:
        outcome = executor(2).execute(plan.jobs, interrupt, NO_LIMIT, stop)
    assert outcome.interrupted and not outcome.records and not outcome.failures
    begun = {path.parent.name for path in tmp_path.rglob(".lock")}
    assert len(begun) == 2
    assert {f"seed{path.stem.removeprefix('stack-')}" for path in tmp_path.rglob("*.pt")} == begun
    assert 0 < steps_taken < 10**6
    assert not multiprocessing.active_children()


def test_a_second_ctrl_c_ends_workers_in_the_middle_of_a_step(file: Path) -> None:
    plan, stop = plan_of(tiny(), (f"{file}:Hangs",), None, (1, 2)), threading.Event()

    def interrupt(steps: int) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        if file.with_name("hanging").exists():
            stop.set()

    with pytest.raises(KeyboardInterrupt):
        executor(2).execute(plan.jobs, interrupt, NO_LIMIT, stop.is_set)
    assert not multiprocessing.active_children()


# ---- folders that cannot be written ----


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_one_sentence_and_earlier_results_stay(
    call: str, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    earlier = run(1, task, ["none"], tmp_path, (100, 101))
    with monkeypatch.context() as patch:
        patch.setattr(f"ht_bench.files.os.{call}", full)
        done = run(1, task, ["none"], tmp_path, (100, 101, 102))
    [sentence] = done.failures
    assert sentence.startswith("Could not write ") and "No space left on device" in sentence
    assert by_run(done.records) == by_run(earlier.records) == by_run(read_runs(tmp_path)[0])
    assert not [file for file in tmp_path.rglob("*") if file.name.startswith((".result", ".stack"))]
    assert len(run(1, task, ["none"], tmp_path, (100, 101, 102)).records) == 3


def test_an_out_folder_that_is_a_file_is_one_sentence(tmp_path: Path, call: Call) -> None:
    file = tmp_path / "runs"
    file.write_text("mine", encoding="utf-8")
    answer = call("run", "--task", "warm-start-digits-v1", "--method", "none", "--out", file)
    assert answer.code == 2
    [line] = answer.error.splitlines()
    assert (
        line.startswith(f"ht-bench: The folder {file} cannot be written") and "name another" in line
    )
    assert file.read_text(encoding="utf-8") == "mine"


def test_evaluate_raises_the_sentence(task: Task, file: Path, tmp_path: Path) -> None:
    with pytest.raises(ht_bench.UsageError, match="'Raises' failed on tiny with ZeroDivisionError"):
        ht_bench.evaluate(f"{file}:Raises", task, (101,), out=tmp_path / "out", progress=False)
