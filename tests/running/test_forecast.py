"""What a plan will take, before it is begun; and a long sweep that keeps no curves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ht_bench.methods.resolve import resolve
from ht_bench.records.record import outline, read_record
from ht_bench.running.evaluate import run_plan
from ht_bench.running.expected import Times, stack_seconds
from ht_bench.running.forecast import forecast
from ht_bench.running.job import StackJob
from ht_bench.running.plan import Plan, Request, make_plan
from ht_bench.streams.task import Task, load_task
from tests.conftest import TINY

Call = Callable[..., Any]
Make = Callable[..., dict[str, Any]]


@pytest.fixture
def task(tmp_path: Path) -> Task:
    (tmp_path / "tiny.toml").write_text(TINY, encoding="utf-8")
    task = load_task(tmp_path / "tiny.toml")
    assert isinstance(task, Task)
    return task


def planned(task: Task, out: Path, *methods: str) -> Plan:
    return make_plan(Request(tasks=(task,), methods=methods, out=out))


def test_a_dry_run_says_what_is_left_and_trains_nothing(
    task: Task, tmp_path: Path, call: Call
) -> None:
    words = ("run", "--task", tmp_path / "tiny.toml", "--method", "none,ema", "--dry-run")
    answer = call(*words, "--out", tmp_path / "runs")
    assert answer.code == 0
    assert "8 runs in 2 stack(s) of seeds are left to train" in answer.out
    assert "the time on tiny-v1 is not known before a run of it" in answer.out
    assert answer.out.endswith("Nothing was trained.\n")
    assert not list(tmp_path.rglob("result.json"))
    assert str(forecast(planned(task, tmp_path / "runs"))) == "Nothing is left to train."


def test_finished_runs_tell_hours_and_disk(task: Task, tmp_path: Path) -> None:
    done = run_plan(planned(task, tmp_path, "none"), 1, False)
    told = forecast(planned(task, tmp_path, "none", "ema"))
    assert (told.runs, told.stacks, told.measured, told.unknown) == (4, 1, 4, ())
    assert told.hours == {"cpu": pytest.approx(stack_seconds(done.records[0]) / 3600)}
    assert told.bytes is not None and 4 * 4096 <= told.bytes < 4 * 100_000
    assert "core-hours of one process (by 4 finished runs" in str(told)


def test_a_sweep_keeps_outlines_of_what_is_on_disk(task: Task, tmp_path: Path) -> None:
    run_plan(planned(task, tmp_path, "none"), 1, False)
    done = run_plan(planned(task, tmp_path, "none", "ema"), 1, False, brief=True)
    files = [next(tmp_path.rglob(f"{m}-*/seed{s}")) for m in ("none", "ema") for s in task.seeds]
    assert done.records == [outline(read_record(file / "result.json")) for file in files]
    assert all("curve" not in record for record in done.records)
    in_memory = make_plan(Request(tasks=(task,), methods=("none",)))
    assert all("curve" in record for record in run_plan(in_memory, 1, False, brief=True).records)


def test_times_are_means_over_stacks(task: Task, make_record: Make) -> None:
    job = StackJob(task, resolve("none"), (0,))
    other = replace(job, method=resolve("ema"))

    def record(method: str, seconds: float) -> dict[str, Any]:
        cost = {"seconds": seconds, "peak_memory_bytes": 1, "stack_seconds": seconds}
        return make_record([[0.1]], method, task=task.name, cost=cost)

    times = Times([record("none", 1.0), record("none", 3.0), record("l2", 8.0)])
    assert times.of(job) == pytest.approx(2.0) and times.of(other) == pytest.approx(4.0)
    assert Times().of(job) is None
