"""Slurm jobs that die, and a driver that leaves before they end: nothing is lost or done twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ht_bench.records.runs import locked
from ht_bench.running.slurm_jobs import notes
from ht_bench.running.time_limit import TimeLimit

from .fake_slurm import FakeSlurm
from .slurm_sweeps import Sweep, alone, by_run, fake_slurm, plan

Call = Callable[..., Any]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return fake_slurm(tmp_path, monkeypatch)


# ---- jobs that die ----


def test_a_lost_node_has_the_job_submitted_again(slurm: FakeSlurm, tmp_path: Path) -> None:
    jobs = plan(tmp_path / "runs")

    def node(ids: list[str]) -> None:
        if len(slurm.jobs) == 1:
            slurm.end(ids[0], "NODE_FAIL")
        else:
            slurm.run(ids[0])

    sweep = Sweep(slurm, stacks_per_job=2)
    outcome = sweep.execute(jobs, node)
    assert by_run(outcome.records) == alone(jobs)
    assert len(slurm.jobs) == 2 and any("(NODE_FAIL) ended before 'none'" in s for s in sweep.said)


def test_of_a_batch_without_memory_each_stack_gets_a_job_of_its_own(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    """One dies there again, and is told with the end of its log after all tries."""
    jobs = plan(tmp_path / "runs", seeds=6)

    def node(ids: list[str]) -> None:
        batch, *singles = slurm.jobs
        if ids[0] in (batch, *singles[:1], *singles[3:]):
            slurm.end(ids[0], "OUT_OF_MEMORY", "slurmstepd: error:\n\nDetected 1 oom_kill event\n")
        else:
            slurm.run(ids[0])

    outcome = Sweep(slurm, stacks_per_job=3).execute(jobs, node)
    assert len(slurm.jobs) == 5
    [failure] = outcome.failures
    assert failure.startswith(f"Slurm job {slurm.jobs[-1]} (OUT_OF_MEMORY) ended before 'none' on")
    assert "seeds 0-1" in failure and "--slurm mem_gb=N" in failure and "\n" not in failure
    assert failure.endswith("_0_log.err ends with: slurmstepd: error: | Detected 1 oom_kill event")
    assert set(by_run(outcome.records)) == {("none", seed) for seed in (2, 3, 4, 5)}


def test_a_cancelled_job_is_not_submitted_again(slurm: FakeSlurm, tmp_path: Path) -> None:
    outcome = Sweep(slurm, stacks_per_job=2).execute(
        plan(tmp_path / "runs"), lambda ids: slurm.end(ids[0], "CANCELLED by 1000")
    )
    [failure] = outcome.failures
    assert "(CANCELLED) ended before" in failure and len(slurm.jobs) == 1


def test_a_scheduler_that_does_not_answer_loses_nothing(slurm: FakeSlurm, tmp_path: Path) -> None:
    jobs = plan(tmp_path / "runs")
    (slurm.folder / "mute").touch()
    asked = iter(range(100))

    def node(ids: list[str]) -> None:
        if next(asked) > 3:
            slurm.run(ids[0])

    outcome = Sweep(slurm).execute(jobs, node)
    assert by_run(outcome.records) == alone(jobs) and len(slurm.jobs) == 2


def test_what_another_runner_trains_is_busy(slurm: FakeSlurm, tmp_path: Path) -> None:
    jobs = plan(tmp_path / "runs")
    with locked(jobs[0].seed_folders):
        outcome = Sweep(slurm).execute(jobs)
    assert outcome.busy == jobs[:1] and len(outcome.records) == 2 and not outcome.failures


# ---- leaving and coming back ----


def test_ctrl_c_leaves_the_jobs_and_the_same_command_collects_them(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    jobs = plan(tmp_path / "runs", seeds=6)
    first = Sweep(slurm, stacks_per_job=1)
    stopped = first.execute(jobs, stop=lambda: len(slurm.waiting) == 1)
    assert stopped.interrupted and len(stopped.records) == 4
    assert [left.job for left in stopped.left] == jobs[2:]
    [array] = slurm.scripts
    assert f"scancel {array}" in first.said[-1] and "go on without this process" in first.said[-1]
    second = Sweep(slurm, stacks_per_job=1)
    collected = second.execute(jobs[2:])
    assert len(slurm.scripts) == 1  # submitted once
    assert "of an earlier command" in second.said[0]
    assert by_run([*stopped.records, *collected.records]) == alone(jobs)


def test_a_time_limit_leaves_the_jobs_too(slurm: FakeSlurm, tmp_path: Path) -> None:
    over = TimeLimit(10.0, clock=lambda: float(10**9 if slurm.jobs else 0), began=0.0)
    jobs = plan(tmp_path / "runs")
    outcome = Sweep(slurm).execute(jobs, lambda ids: None, limit=over)
    assert [left.job for left in outcome.left] == jobs and not outcome.interrupted


def test_results_of_jobs_that_ended_unwatched_are_taken(slurm: FakeSlurm, tmp_path: Path) -> None:
    jobs = plan(tmp_path / "runs")
    Sweep(slurm, wait=False).execute(jobs, lambda ids: None)
    for job in slurm.waiting:
        slurm.run(job)
    outcome = Sweep(slurm).execute(jobs)
    assert len(slurm.scripts) == 1 and by_run(outcome.records) == alone(jobs)


def test_the_command_line_submits_leaves_and_collects(
    slurm: FakeSlurm, tmp_path: Path, call: Call, write_task: Call
) -> None:
    words = ["run", "--task", write_task(), "--method", "none", "--out", tmp_path / "runs"]
    words += ["--device", "cpu", "--no-tensorboard", "--executor", "slurm"]
    words += ["--slurm", "time=1:00:00", "wait=no"]
    first = call(*words)
    assert first.code == 0 and "Not waited for: 4 of 4 runs are left" in first.out
    assert "--slurm time=1:00:00 wait=no" in first.out and "scancel" in first.error
    for job in slurm.waiting:
        slurm.run(job)
    second = call(*words)
    assert second.code == 0 and "4 results under" in second.out and len(slurm.scripts) == 1


def test_a_damaged_note_is_left_out(slurm: FakeSlurm, tmp_path: Path) -> None:
    folder = tmp_path / "runs/.slurm/1"
    folder.mkdir(parents=True)
    texts = ('{"job": 1', "[]", '{"job": "1", "stacks": 3, "steps_file": "x", "attempt": 0}', "\0")
    for place, text in enumerate(texts):
        (folder / f"{place}.json").write_text(text, encoding="utf-8")
    assert list(notes(folder.parent)) == []
    assert len(Sweep(slurm).execute(plan(tmp_path / "runs")).records) == 4
