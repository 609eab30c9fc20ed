"""How many processes: one per core on a CPU, and on a GPU what a trial finds to pay."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ht_bench.methods.resolve import resolve
from ht_bench.running import workers
from ht_bench.running.gpus import visible_gpus
from ht_bench.running.job import StackJob
from ht_bench.running.pool import Pool
from ht_bench.running.time_limit import NO_LIMIT, TimeLimit
from ht_bench.running.workers import Load, choose_workers, most_useful, trial
from ht_bench.streams.task import Task, load_task
from ht_bench.training.device import Compute

GIB = 2**30


@pytest.fixture
def job(write_task: Callable[..., Path]) -> StackJob:
    """Return a stack of the tiny task that has no soon end."""
    task = load_task(write_task())
    assert isinstance(task, Task)
    phases = tuple(replace(phase, updates=10**6) for phase in task.phases)
    return StackJob(replace(task, phases=phases), resolve("none"), (0,))


@pytest.mark.parametrize(
    ("rates", "each", "free", "most", "chosen", "asked"),
    [
        ({1: 10, 2: 19, 4: 30, 8: 31}, GIB, 80 * GIB, 16, 4, [1, 2, 4, 8]),
        ({1: 10, 2: 10.9}, GIB, 80 * GIB, 16, 1, [1, 2]),
        ({1: 10, 2: 19, 4: 30, 6: 45}, GIB, 80 * GIB, 6, 6, [1, 2, 4, 6]),
        ({1: 10, 2: 19, 3: 25}, 3 * GIB, 10 * GIB, 16, 3, [1, 2, 3]),
        ({1: 10}, 6 * GIB, 10 * GIB, 16, 1, [1]),
        ({1: 10, 2: 0}, GIB, 80 * GIB, 16, 1, [1, 2]),
        ({1: 10, 2: 20}, 0, 80 * GIB, 2, 2, [1, 2]),
    ],
    ids=["levels off", "no gain", "cores", "memory", "memory of one", "fails", "memory unknown"],
)
def test_processes_are_doubled_while_it_pays_and_fits(
    rates: dict[int, float], each: int, free: int, most: int, chosen: int, asked: list[int]
) -> None:
    calls = []

    def measure(count: int) -> Load:
        calls.append(count)
        return Load(rates[count], each * count)

    assert most_useful(measure, free, most) == chosen
    assert calls == asked


def test_a_cpu_has_one_process_per_core_and_no_more_than_stacks(
    job: StackJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "available_cores", lambda: 3)
    said: list[str] = []
    assert choose_workers([job] * 5, NO_LIMIT, said.append) == 3
    assert choose_workers([job] * 2, NO_LIMIT, said.append) == 2
    assert choose_workers([], NO_LIMIT, said.append) == 1 and not said


def test_a_trial_trains_the_first_stack_and_says_what_it_chose(
    job: StackJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU, as if it were a GPU of which every process takes 2 GiB."""
    on_gpu = replace(job, compute=Compute("cuda"))
    monkeypatch.setattr(workers, "available_cores", lambda: 2)
    monkeypatch.setattr(workers, "GAIN", 0.0)
    monkeypatch.setattr(workers, "WINDOW", 0.5)
    taken = iter([80 * GIB, 78 * GIB, 76 * GIB])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (next(taken), 80 * GIB))
    monkeypatch.setattr(
        workers,
        "trial",
        lambda first, most, used: trial(replace(first, compute=Compute()), 2, used),
    )
    said: list[str] = []
    assert choose_workers([on_gpu] * 3, NO_LIMIT, said.append) == 2
    assert said[-1].startswith("2 process(es) on the GPU (1: ") and "2.0 GiB, 2: " in said[-1]
    assert "in 4.0 GiB); --jobs N" in said[-1] and "1: 0 steps/s" not in said[-1]
    assert choose_workers([on_gpu] * 3, TimeLimit(120), said.append) == 1
    assert "no time to try" in said[-1]
    assert choose_workers([on_gpu], NO_LIMIT, said.append) == 1 and len(said) == 3


@pytest.mark.evidence
def test_a_stack_that_fails_has_no_rate(job: StackJob, tmp_path: Path) -> None:
    file = tmp_path / "failing.py"
    file.write_text(
        "import ht_bench\n\nclass Fails(ht_bench.Method):\n"
        "    def after_step(self):\n        raise ZeroDivisionError\n",
        encoding="utf-8",
    )
    failing = replace(job, method=resolve(f"{file}:Fails"))
    with trial(failing, 1, lambda: 7) as measure:
        assert measure(1) == Load(0.0, 7)


def test_several_gpus_have_the_processes_of_one_each(
    job: StackJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial fills the first of them; with fewer stacks than that there is none."""
    on_gpu, said = replace(job, compute=Compute("cuda")), list[str]()
    monkeypatch.setattr(workers, "available_cores", lambda: 16)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (80 * GIB, 80 * GIB))

    @contextlib.contextmanager
    def two_pay(job: StackJob, most: int, used: Callable[[], int]) -> Iterator[Any]:
        assert most == 4
        yield lambda count: Load({1: 10, 2: 19, 4: 20}[count], GIB)

    monkeypatch.setattr(workers, "trial", two_pay)
    assert choose_workers([on_gpu] * 20, NO_LIMIT, said.append) == 8
    assert "2 process(es) on each of 4 GPUs" in said[-1]
    assert choose_workers([on_gpu] * 3, NO_LIMIT, said.append) == 3
    assert choose_workers([on_gpu] * 20, TimeLimit(60.0), said.append) == 4


def test_the_gpus_are_those_that_cuda_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert visible_gpus({}) == ["0", "1"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "5, GPU-1a2b"}) == ["5", "GPU-1a2b"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "-1"}) == []


def shown() -> str:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "all")


def test_each_worker_process_sees_a_gpu_of_its_own() -> None:
    pool = Pool(3, ["4", "7"])
    try:
        told = [executor.submit(shown).result() for executor in pool.executors]
    finally:
        pool.close(at_once=False)
    assert told == ["4", "7", "4"]
