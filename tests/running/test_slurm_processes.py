"""Slurm's jobs as processes, by submitit's local executor, which sends them the same signals."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ht_bench.running.on_slurm import SlurmExecutor
from ht_bench.running.time_limit import NO_LIMIT

from .slurm_sweeps import Sweep, alone, by_run, plan, write_methods


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_methods(tmp_path, monkeypatch)


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


@pytest.mark.evidence
def test_ctrl_c_ends_the_processes_of_a_trial(file: Path, tmp_path: Path) -> None:
    """Slurm's jobs would go on; these would outlive their terminal."""
    import psutil

    jobs = plan(tmp_path / "runs", (f"{file}:Slow",), seeds=4)
    request = Sweep.request(cluster="local", workers=1, stacks_per_job=1)
    outcome = SlurmExecutor(request, print).execute(
        jobs, lambda steps: None, NO_LIMIT, lambda: any((tmp_path / "runs").rglob(".lock"))
    )
    assert outcome.interrupted and [left.job for left in outcome.left] == jobs
    assert not [
        child for child in psutil.Process().children() if "submitit" in str(child.cmdline())
    ]
