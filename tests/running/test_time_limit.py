"""A limit of time: what is begun, what is saved, what is left, and that the next call goes on."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from ht_bench.errors import UsageError
from ht_bench.methods.resolve import resolve
from ht_bench.records.record import without_cost
from ht_bench.running import job as jobs_module
from ht_bench.running.evaluate import Finished, run_plan
from ht_bench.running.expected import Left, Times, by_information
from ht_bench.running.job import StackJob
from ht_bench.running.plan import Request, make_plan
from ht_bench.running.time_limit import TimeLimit, parse_duration
from ht_bench.streams.task import Task, load_task

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("12m", 720), ("90s", 90), ("2h", 7200), ("1h30m", 5400), ("0.5m", 30), (" 5s ", 5)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text, "--for") == seconds


@pytest.mark.parametrize("text", ["", "12", "m", "0s", "-3m", "1.2.3m", "ten minutes", "30m1h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="--for .*: write a time such as 12m"):
        parse_duration(text, "--for")


def test_training_stops_before_the_end_and_little_is_begun_late() -> None:
    now = 0.0
    limit = TimeLimit(720, lambda: now, 0.0)
    assert limit.reserve == 36 and limit.left == 684 and not limit.is_over()
    assert limit.admits(None) and limit.admits(5000)
    now = 660.0
    assert limit.admits(20) and limit.admits(None)
    now = 670.0
    assert limit.admits(10) and not limit.admits(15) and not limit.admits(None)
    now = 684.0
    assert limit.is_over() and not limit.admits(0.1)
    assert (TimeLimit(60).reserve, TimeLimit(7200).reserve, TimeLimit(4).reserve) == (10, 60, 2)
    assert not TimeLimit().is_over() and TimeLimit().admits(None)


# ---- the order, and what is left ----


@pytest.fixture
def task(write_task: Write) -> Task:
    """Return the tiny task in stacks of one seed."""
    return load_task(write_task(stack=("stack = 4", "stack = 1")))


def test_one_stack_of_every_cell_comes_first_the_shorter_before_the_longer(task: Task) -> None:
    slow = replace(task, name="slow-v1", minutes_per_stack=2.0)
    quick = replace(task, name="quick-v1", minutes_per_stack=0.1)
    plan = make_plan(Request((slow, task, quick), ("none", "l2"), (0, 1)))
    order = by_information(plan.jobs, (), Times())
    told = [(job.task.name, job.seeds[0]) for job in order]
    rounds = [("quick-v1", 0)] * 2 + [("slow-v1", 0)] * 2 + [("tiny-v1", 0)] * 2
    assert told == rounds + [(name, 1) for name, _ in rounds]


def test_a_cell_with_finished_seeds_waits_for_the_others(task: Task, tmp_path: Path) -> None:
    run_plan(make_plan(Request((task,), ("none",), (0, 1), out=tmp_path)), 1, progress=False)
    plan = make_plan(Request((task,), ("none", "l2"), (0, 1, 2), out=tmp_path))
    order = by_information(plan.jobs, plan.finished, Times())
    assert [(job.method.name, job.seeds[0]) for job in order] == [
        *(("l2", 0), ("l2", 1), ("none", 2), ("l2", 2)),
    ]


def test_times_are_measured_then_guessed(task: Task, make_record: Any) -> None:
    job = StackJob(replace(task, minutes_per_stack=1.0), resolve("none"), (0,))
    other = replace(job, method=resolve("l2"))
    unknown = replace(job, task=replace(task, name="unknown"))
    assert Times().of(job) == 60 and Times().of(unknown) is None
    cost = {"seconds": 0.5, "stack_seconds": 4.0, "evaluation_seconds": 0.1}
    record = make_record([[0.1]], task=task.name, stack=10, cost=cost)
    assert Times([record]).of(job) == Times([record]).of(other) == pytest.approx(5.0)
    half = [Left(other, 0.25, 3.0), Left(unknown)]
    assert Times([record], half).of(other) == 12
    assert Times([record], half[:1]).remaining([*half[:1], Left(job)]) == pytest.approx(14.0)
    assert Times([record], half).remaining(half) is None


# ---- stopping and going on ----


@pytest.fixture
def ticking() -> Callable[[float], TimeLimit]:
    """Return a maker of limits whose clock goes on by one second whenever it is asked."""
    return lambda seconds: TimeLimit(seconds, count().__next__, 0.0)


def requested(task: Task, out: Path | None) -> Request:
    return Request((task,), ("none", "hare-tortoise"), (0, 1), out=out, tensorboard=False)


def test_what_does_not_fit_is_saved_and_the_next_call_goes_on(
    task: Task, tmp_path: Path, ticking: Callable[[float], TimeLimit]
) -> None:
    whole = run_plan(make_plan(requested(task, None)), 1, progress=False)
    request, calls, done = requested(task, tmp_path), 0, Finished([], [])
    cells = []
    while calls == 0 or done.left:
        done = run_plan(make_plan(request), 1, progress=False, limit=ticking(30))
        cells.append({(r["method"], r["seed"]) for r in done.records})
        begun = [left for left in done.left if left.share > 0]
        assert len(begun) == len(list(tmp_path.rglob("stack-*.pt"))) <= 1
        calls += 1
        assert calls < 10
    assert calls > 1 and cells[0] < cells[-1]
    assert all(cells[-1] >= cell for cell in cells)

    def by_key(records: list[Any]) -> Any:
        return {(r["method"], r["seed"]): without_cost(r) for r in records}

    assert by_key(done.records) == by_key(whole.records) and len(done.records) == 4


def test_a_pool_stops_in_time_too(task: Task, tmp_path: Path) -> None:
    long = replace(task, phases=tuple(replace(p, updates=10**6) for p in task.phases))

    def clock() -> float:
        return 100.0 if list(tmp_path.rglob("stack-*.pt")) else 0.0

    request = replace(requested(long, tmp_path), checkpoint_seconds=0.0)
    limit = TimeLimit(50, clock, 0.0)
    done = run_plan(make_plan(request), 2, progress=False, limit=limit)
    assert not done.records and not done.failures and len(done.left) == 4
    assert len(list(tmp_path.rglob("stack-*.pt"))) == sum(left.share > 0 for left in done.left) > 0
    assert done.seconds_left is not None and done.seconds_left > 10


def test_a_checkpoint_of_another_machine_is_not_continued(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ticking: Any
) -> None:
    """Its record would name one machine for what two have computed; finished ones count."""
    request = requested(task, tmp_path)
    first = run_plan(make_plan(request), 1, progress=False, limit=ticking(30))
    assert any(left.share > 0 for left in first.left)
    monkeypatch.setattr(jobs_module, "hardware", lambda compute: {"processor": "another"})
    with pytest.warns(UserWarning, match="is of another machine; this run"):
        done = run_plan(make_plan(request), 1, progress=False)
    kept = {(r["method"], r["seed"]) for r in first.records}
    for record in done.records:
        same = record["hardware"] != {"processor": "another"}
        assert same == ((record["method"], record["seed"]) in kept)


def test_the_command_line_stops_in_time_and_says_how_to_go_on(
    write_task: Write, call: Callable[..., Any], tmp_path: Path
) -> None:
    path = write_task("long", updates=("updates = 4", "updates = 1000000"))
    words = ["run", "--task", path, "--method", "none", "--out", tmp_path / "my runs"]
    answer = call(*words, "--seeds", "0-3", "--set", "x=1", "--for", "4s")
    assert answer.code == 2 and "no hyperparameter 'x'" in answer.error
    answer = call(*words, "--seeds", "0-3", "--no-tensorboard", "--for", "4s")
    assert answer.code == 0, answer.error
    assert "4 of 4 runs are left, in 1 stack(s) (about " in answer.out
    again = shlex.split(answer.out.strip().splitlines()[-1])
    assert again[0] == "ht-bench" and {str(w) for w in words} < set(again)
    assert "--no-tensorboard" in again and again[again.index("--for") + 1] == "4s"
    assert list((tmp_path / "my runs").rglob("stack-0-3.pt"))
    assert call("run", "--for", "soon").code == 2
