"""Stacks in Slurm jobs: scripts, signals, deaths and what is left, on a Slurm of scripts.

Jobs run in this process, by submitit's own entry point, when the driver asks whether to stop; at
the end submitit's local executor runs them as processes.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import ht_bench
from ht_bench.errors import UsageError
from ht_bench.records.record import Record, without_cost
from ht_bench.records.runs import locked
from ht_bench.running import on_slurm
from ht_bench.running.executor import ExecutorRequest, Outcome
from ht_bench.running.job import StackJob, run_stack
from ht_bench.running.on_slurm import SlurmExecutor
from ht_bench.running.plan import Request, make_plan
from ht_bench.running.slurm_batch import group
from ht_bench.running.slurm_jobs import notes
from ht_bench.running.slurm_settings import SlurmSettings
from ht_bench.running.time_limit import NO_LIMIT, TimeLimit
from ht_bench.streams.task import Task, parse_task

from .fake_slurm import FakeSlurm, directives

METHODS = '''\
"""Methods that send their own process a signal at step 5, once."""
import os
import pathlib
import signal

import ht_bench

class Signalled(ht_bench.Method):
    number = 0
    def setup(self):
        self.steps = 0

    def after_step(self):
        self.steps += 1
        mark = pathlib.Path(os.environ["MARKS"]) / type(self).__name__
        if self.steps == 5 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), self.number)

class Preempted(Signalled):
    number = signal.SIGUSR2

class Terminated(Signalled):
    number = signal.SIGTERM

class Killed(Signalled):
    number = signal.SIGKILL

class Raises(ht_bench.Method):
    def after_step(self):
        raise ZeroDivisionError("the sky fell")
'''
Records = dict[tuple[str, int], Record]


def tiny() -> Task:
    table = {
        "name": "tiny",
        "family": "warm-start",
        "data": {"name": "digits", "train": 60},
        "net": {"name": "mlp", "hidden": [4]},
        "optimizer": {"lr": 1e-2},
        "training": {"batch": 16, "points": 2, "stack": 2},
        "phases": [{"new": 0.5, "wrong": w, "updates": 12} for w in (0.5, 0.0)],
    }
    return parse_task(table, "tiny.toml")


def plan(out: Path | None, methods: Sequence[str] = ("none",), seeds: int = 4) -> list[StackJob]:
    request = Request((tiny(),), tuple(methods), tuple(range(seeds)), out=out, tensorboard=False)
    return list(make_plan(request).jobs)


def by_run(records: Sequence[Record]) -> Records:
    return {(each["method"], each["seed"]): without_cost(each) for each in records}


def alone(jobs: Sequence[StackJob]) -> Records:
    """What this process makes of the stacks."""
    found = [run_stack(dataclasses.replace(job, out=None)) for job in jobs]
    return by_run([record for records in found for record in records])


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path / "slurm")
    fake.install(monkeypatch)
    monkeypatch.setattr(on_slurm, "BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(on_slurm, "BETWEEN_QUESTIONS", 0.0)
    monkeypatch.setattr(on_slurm, "GRACE", 0.0)
    return fake


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "users_methods.py"
    path.write_text(METHODS, encoding="utf-8")
    monkeypatch.setenv("MARKS", str(tmp_path))
    return path


class Sweep:
    """A driver, and a node that plays its part each time the driver asks whether to stop."""

    def __init__(self, slurm: FakeSlurm, **request: Any) -> None:
        self.slurm, self.said, self.steps = slurm, list[str](), 0
        self.executor = SlurmExecutor(self.request(**request), self.said.append)

    @staticmethod
    def request(
        retries: int = 1, gpus: float | None = None, workers: int = 0, **options: Any
    ) -> Any:
        return ExecutorRequest(
            "slurm", workers=workers, gpus=gpus, retries=retries, options={"time": 60, **options}
        )

    def execute(
        self,
        jobs: Sequence[StackJob],
        node: Callable[[list[str]], Any] | None = None,
        stop: Callable[[], bool] = lambda: False,
        limit: TimeLimit = NO_LIMIT,
    ) -> Outcome:
        """node: is given the jobs that wait; runs the first of them if left out."""

        def asked() -> bool:
            if stop():
                return True
            self.slurm.update()
            if waiting := self.slurm.waiting:
                (node or (lambda ids: self.slurm.run(ids[0])))(waiting)
            return False

        def progress(steps: int) -> None:
            self.steps += steps

        return self.executor.execute(jobs, progress, limit, asked)


# ---- the script ----


def test_the_script_asks_for_what_was_said(slurm: FakeSlurm, tmp_path: Path) -> None:
    options = {"partition": "gpu", "mem_gb": 16, "setup": "module load cuda", "qos": "low"}
    sweep = Sweep(slurm, workers=3, wait="no", stacks_per_job=1, **options)
    jobs = plan(tmp_path / "runs", seeds=10)
    compute = dataclasses.replace(jobs[0].compute, device="cuda", threads=2)
    jobs = [dataclasses.replace(job, compute=compute) for job in jobs]
    outcome = sweep.execute(jobs)
    assert [left.job for left in outcome.left] == jobs and not outcome.interrupted
    [(job_id, script)] = slurm.scripts.items()
    said = directives(script)
    assert said["array"] == "0-4%3"
    assert said["time"] == "60" and said["mem"] == "16GB" and said["partition"] == "gpu"
    assert said["gpus-per-node"] == "1" and said["cpus-per-task"] == "2" and said["qos"] == "low"
    assert said["signal"] == "USR2@90" and said["requeue"] == "" and said["open-mode"] == "append"
    assert said["job-name"] == "ht-bench" and said["nodes"] == "1"
    logs = slurm.logs(job_id)
    assert logs.parent == tmp_path / "runs/.slurm" and said["output"] == f"{logs}/%A_%a_0_log.out"
    lines = script.splitlines()
    [run] = [line for line in lines if line.startswith("srun")]
    assert lines.index("module load cuda") < lines.index(run)
    assert "--cpus-per-task 2" in run and f" {sys.executable} " in run
    assert f"scancel {job_id}" in sweep.said[-1] and str(logs) in sweep.said[0]


def test_short_stacks_share_jobs() -> None:
    jobs = [
        dataclasses.replace(job, task=dataclasses.replace(job.task, minutes_per_stack=minutes))
        for job, minutes in zip(plan(None, seeds=16), [4, 4, 4, 4, 30, 1, None, 9], strict=True)
    ]

    def sizes(**settings: Any) -> list[int]:
        return [len(batch) for batch in group(jobs, SlurmSettings(**settings))]

    assert sizes() == [3, 2, 2, 1]
    assert sizes(minutes_per_job=1000.0) == [7, 1]
    assert sizes(stacks_per_job=3) == [3, 3, 2]
    assert sizes(at_once=4, minutes_per_job=1.0) == [4, 4]
    many = jobs[:1] * 5000
    assert max(map(len, group(many, SlurmSettings(stacks_per_job=1)))) == 5
    assert len(group(many, SlurmSettings(minutes_per_job=0.1))) == 1000


# ---- training ----


def test_jobs_of_an_array_equal_this_process_bit_for_bit(slurm: FakeSlurm, tmp_path: Path) -> None:
    jobs = plan(tmp_path / "runs", ("none", "hare-tortoise"))
    sweep = Sweep(slurm, stacks_per_job=1)
    outcome = sweep.execute(jobs)
    assert by_run(outcome.records) == alone(jobs) and len(outcome.records) == 8
    assert not (outcome.failures or outcome.left or outcome.busy or outcome.interrupted)
    assert len(slurm.jobs) == 4 and len(slurm.scripts) == 1
    assert sweep.steps == 4 * 24
    assert not [*(tmp_path / "runs/.slurm").rglob("*.pkl"), *notes(tmp_path / "runs/.slurm")]


def test_a_job_whose_time_is_up_saves_and_is_queued_again(
    slurm: FakeSlurm, file: Path, tmp_path: Path
) -> None:
    jobs = plan(tmp_path / "runs", (f"{file}:Preempted",), seeds=2)
    ends = []

    def node(ids: list[str]) -> None:
        ends.append(slurm.run(ids[0]))
        ends.append(any(jobs[0].folder.glob("stack-*.pt")))  # type: ignore[union-attr]

    sweep = Sweep(slurm)
    outcome = sweep.execute(jobs, node)
    assert ends == [False, True, True, False]  # queued again with a checkpoint; ended without
    assert slurm.requeued() == [f"requeue {slurm.jobs[0]}"]
    assert by_run(outcome.records) == alone(jobs) and sweep.steps == 24


def test_sigterm_saves_and_the_stack_is_trained_on(
    slurm: FakeSlurm, file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    jobs = plan(tmp_path / "runs", (f"{file}:Terminated",), seeds=2)
    outcome = Sweep(slurm).execute(jobs)
    assert by_run(outcome.records) == alone(jobs)
    assert "Saved on SIGTERM" in capfd.readouterr().err and not slurm.requeued()


def test_a_failing_method_leaves_its_mates_running(
    slurm: FakeSlurm, file: Path, tmp_path: Path
) -> None:
    jobs = plan(tmp_path / "runs", (f"{file}:Raises", "none"), seeds=2)
    outcome = Sweep(slurm, stacks_per_job=2).execute(jobs)
    [failure] = outcome.failures
    assert "ZeroDivisionError: the sky fell" in failure and len(slurm.jobs) == 1
    assert set(by_run(outcome.records)) == {("none", 0), ("none", 1)}


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


def test_a_damaged_note_is_left_out(slurm: FakeSlurm, tmp_path: Path) -> None:
    folder = tmp_path / "runs/.slurm/1"
    folder.mkdir(parents=True)
    texts = ('{"job": 1', "[]", '{"job": "1", "stacks": 3, "steps_file": "x", "attempt": 0}', "\0")
    for place, text in enumerate(texts):
        (folder / f"{place}.json").write_text(text, encoding="utf-8")
    assert list(notes(folder.parent)) == []
    assert len(Sweep(slurm).execute(plan(tmp_path / "runs")).records) == 4


# ---- refusals ----


def test_what_slurm_refuses_is_told_in_its_words(slurm: FakeSlurm, tmp_path: Path) -> None:
    (slurm.folder / "refuses").write_text("sbatch: error: invalid partition specified: gpu\n")
    with pytest.raises(UsageError, match="takes no jobs: .*invalid partition specified: gpu"):
        Sweep(slurm, partition="gpu").execute(plan(tmp_path / "runs"))


def test_results_need_a_shared_folder(slurm: FakeSlurm) -> None:
    with pytest.raises(UsageError, match="a folder that all nodes share; name one with out="):
        Sweep(slurm).execute(plan(None))


def test_without_slurm_or_submitit_there_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="there is no sbatch here.*cluster=local"):
        SlurmExecutor(Sweep.request(), print)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UsageError, match=r"pip install 'ht-bench\[slurm\]'"):
        SlurmExecutor(Sweep.request(), print)


def test_a_method_that_cannot_be_pickled_is_refused_before_anything_is_submitted(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    class Local(ht_bench.Method):
        pass

    request = Request((tiny(),), (Local,), (0,), out=tmp_path / "runs")
    with pytest.raises(UsageError, match="cannot be handed to worker processes"):
        Sweep(slurm).execute(make_plan(request).jobs)
    assert not slurm.jobs


# ---- processes ----


def test_a_process_of_submitit_preempted_once_equals_this_process(
    file: Path, tmp_path: Path
) -> None:
    """submitit's local executor starts the process again, as Slurm would."""
    jobs = plan(tmp_path / "runs", ("none", f"{file}:Preempted"), seeds=2)
    said: list[str] = []
    request = Sweep.request(cluster="local", workers=2, stacks_per_job=2)
    outcome = SlurmExecutor(request, said.append).execute(
        jobs, lambda steps: None, NO_LIMIT, lambda: False
    )
    assert not outcome.failures and not said and by_run(outcome.records) == alone(jobs)
    logs = [path.read_text("utf-8") for path in (tmp_path / "runs/.slurm").rglob("*_log.*")]
    assert sum(text.count("Calling checkpoint method") for text in logs) == 1


@pytest.mark.evidence
def test_a_killed_process_of_submitit_has_its_stack_trained_on(file: Path, tmp_path: Path) -> None:
    """In a batch of three, one kills the job; three jobs train on what is left."""
    jobs = plan(tmp_path / "runs", ("none", f"{file}:Killed", "hare-tortoise"), seeds=2)
    said: list[str] = []
    request = Sweep.request(cluster="local", workers=2, stacks_per_job=3)
    outcome = SlurmExecutor(request, said.append).execute(
        jobs, lambda steps: None, NO_LIMIT, lambda: False
    )
    assert not outcome.failures and by_run(outcome.records) == alone(jobs)
    assert "and 1 more was finished; each is trained on in a job of its own" in said[0]


@pytest.mark.evidence
def test_stacks_that_share_a_job_survive_its_signal(file: Path, tmp_path: Path) -> None:
    """Slurm sends it to all processes of a job: the pool's workers must not die of it."""
    import psutil

    jobs = plan(tmp_path / "runs", ("none", f"{file}:Preempted", "hare-tortoise"), seeds=4)
    request = Sweep.request(cluster="local", workers=1, stacks_per_job=6, stacks_at_once=2)
    signalled: list[int] = []

    def progress(steps: int) -> None:
        begun = list((tmp_path / "runs").rglob(".lock"))
        for child in psutil.Process().children(recursive=True) if begun and not signalled else []:
            if "submitit.core._submit" in child.cmdline() or "spawn_main" in str(child.cmdline()):
                os.kill(child.pid, signal.SIGUSR2)
                signalled.append(child.pid)

    said: list[str] = []
    outcome = SlurmExecutor(request, said.append).execute(jobs, progress, NO_LIMIT, lambda: False)
    assert len(signalled) >= 2 and not outcome.failures and not said
    assert by_run(outcome.records) == alone(jobs)
