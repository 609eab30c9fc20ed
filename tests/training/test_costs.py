"""What a run's cost means: seconds of steps, bytes of its own, on every system."""

import builtins
import gc
import itertools
import os
import sys
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import ht_bench
from ht_bench.methods.base import Method
from ht_bench.methods.clear_moments import ClearMoments
from ht_bench.running.job import StackJob, run_stack
from ht_bench.streams.task import Task, load_task
from ht_bench.training import device
from ht_bench.training.device import Compute, PeakMemory
from ht_bench.training.history import Interrupted, Observer
from ht_bench.training.run import held_bytes

NAP = 0.05
MakeJob = Callable[..., StackJob]


@pytest.fixture
def task(write_task: Callable[..., Path]) -> Task:
    return load_task(write_task())


def cost(method: Any, task: Task) -> dict[str, float]:
    result = ht_bench.evaluate(method, task, (0, 1, 2, 3), device="cpu", progress=False)
    return dict(result.records[0]["cost"])


def test_seconds_are_those_of_steps(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow evaluation is not the method's cost; a slow step is."""
    from ht_bench.training.accuracy import Evaluation

    measure = Evaluation.measure

    def slowly(*given: Any) -> Any:
        time.sleep(NAP)
        return measure(*given)

    class Slow(ht_bench.Method):
        def after_step(self) -> None:
            time.sleep(NAP)

    usual = cost("none", task)
    with monkeypatch.context() as patch:
        patch.setattr(Evaluation, "measure", slowly)
        looked_at = cost("hare-tortoise", task)
    points = 5
    assert looked_at["evaluation_seconds"] >= 2 * points * NAP / 4  # hare and tortoise, per seed
    assert looked_at["stack_seconds"] < points * NAP + usual["stack_seconds"] * 4
    slow = cost(Slow, task)
    steps = 6
    assert slow["stack_seconds"] >= steps * NAP > slow["evaluation_seconds"]
    assert slow["seconds"] == pytest.approx(slow["stack_seconds"] / 4)


def test_tensor_bytes_are_counted(task: Task) -> None:
    """Adam keeps two numbers and a step per parameter, the tortoise one more number."""
    plain, average = cost("none", task), cost("ema", task)
    result = ht_bench.evaluate("ema", task, (0,), progress=False)
    extra = 4 * result.records[0]["extra_parameters"]
    assert average["tensor_bytes"] - plain["tensor_bytes"] == pytest.approx(extra, rel=0.05)
    assert plain["tensor_bytes"] == pytest.approx(3 * extra, rel=0.05)


def test_moments_that_the_last_step_clears_were_held(task: Task) -> None:
    """Cleared every 2 steps, of which every point of the curve and the end is one."""
    planned = [phase.updates for phase in task.phases]
    assert all(steps and steps % 2 == 0 for steps in planned)
    cleared = cost(ClearMoments(every=2), task)
    assert cleared["tensor_bytes"] == pytest.approx(cost("none", task)["tensor_bytes"], rel=0.01)


def test_what_was_held_before_an_interruption_counts(make_job: MakeJob, tmp_path: Path) -> None:
    """Stopped in the last phase, whose only look is at the end, where the moments are cleared."""
    values, looks = {"every": 27}, {"batch": 16, "points": 1, "stack": 2}
    whole = run_stack(make_job("clear-moments", values, training=looks))
    plain = run_stack(make_job("none", training=looks))
    assert whole[0]["cost"]["tensor_bytes"] == plain[0]["cost"]["tensor_bytes"]
    job = make_job("clear-moments", values, tmp_path, training=looks)
    steps = itertools.count(1)
    with pytest.raises(Interrupted):
        run_stack(job, Observer(stop=lambda: next(steps) == 24))
    assert run_stack(job)[0]["cost"]["tensor_bytes"] == whole[0]["cost"]["tensor_bytes"]


def test_a_tensor_held_twice_counts_once() -> None:
    import torch

    held = torch.zeros(10)
    assert held_bytes({"a": held, "b": [held, torch.zeros(3, dtype=torch.float64)]}) == 64


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux starts the peak anew")
def test_the_peak_is_the_runs_own() -> None:
    import torch

    earlier = torch.ones(30_000_000)
    memory = PeakMemory(Compute())
    assert memory.bytes() < 20_000_000
    torch.ones(20_000_000).sum()
    assert 60_000_000 < memory.bytes() < 110_000_000
    assert earlier.numel()


def test_a_system_without_posix_trains(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows has no `resource`, no `fcntl`, no affinity and no /proc."""
    real = builtins.open

    def refuse(path: Any, *given: Any, **options: Any) -> Any:
        if str(path).startswith("/proc"):
            raise FileNotFoundError(2, "No such file", str(path))
        return real(path, *given, **options)

    for name in ("resource", "fcntl"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("ht_bench.records.runs.fcntl", None)
    monkeypatch.setattr(builtins, "open", refuse)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(device.platform, "system", lambda: "Windows")
    result = ht_bench.evaluate("ema", task, (0,), out=tmp_path / "runs", progress=False)
    assert result.records[0]["cost"]["peak_memory_bytes"] == 0
    assert list((tmp_path / "runs").rglob("result.json"))


@dataclass(eq=False)
class Kept(Method):
    """Remembers every module it was attached to, weakly, and fails if asked to."""

    fails: bool = False

    def setup(self) -> None:
        MODULES.append(weakref.ref(self.module))

    def after_step(self) -> None:
        if self.fails:
            raise ZeroDivisionError


MODULES: list[Any] = []


def test_a_run_is_freed_when_it_ends_a_failed_one_before_the_next(make_job: MakeJob) -> None:
    gc.unfreeze()  # the tests put torch's modules aside, as runs do by themselves
    MODULES.clear()
    run_stack(make_job(Kept))
    assert [module() for module in MODULES] == [None] and gc.get_freeze_count() == 0
    with pytest.raises(ZeroDivisionError):
        run_stack(make_job(Kept, {"fails": True}))
    run_stack(make_job("none"))
    assert [module() for module in MODULES] == [None, None] and gc.get_freeze_count() == 0
    gc.freeze()
