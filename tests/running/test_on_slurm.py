"""Stacks in Slurm jobs: the scripts, the signals, the bits, on a Slurm of scripts.

Jobs run in this process, by submitit's own entry point, when the driver asks whether to stop.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

import ht_bench
from ht_bench.errors import UsageError
from ht_bench.running.on_slurm import SlurmExecutor
from ht_bench.running.plan import Request, make_plan
from ht_bench.running.slurm_batch import group
from ht_bench.running.slurm_jobs import notes
from ht_bench.running.slurm_settings import SlurmSettings

from .fake_slurm import FakeSlurm, directives
from .slurm_sweeps import Sweep, alone, by_run, fake_slurm, plan, tiny, write_methods


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return fake_slurm(tmp_path, monkeypatch)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_methods(tmp_path, monkeypatch)


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
