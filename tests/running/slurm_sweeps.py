"""Sweeps on a Slurm of scripts, and what they should come to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ht_bench.records.record import Record, without_cost
from ht_bench.running import on_slurm
from ht_bench.running.executor import ExecutorRequest, Outcome
from ht_bench.running.job import StackJob, run_stack
from ht_bench.running.on_slurm import SlurmExecutor
from ht_bench.running.plan import Request, make_plan
from ht_bench.running.time_limit import NO_LIMIT, TimeLimit
from ht_bench.streams.task import Task, parse_task

from .fake_slurm import FakeSlurm

METHODS = '''\
"""Methods that send their own process a signal at step 5, once."""
import os
import pathlib
import signal
import time

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

class Slow(ht_bench.Method):
    def after_step(self):
        time.sleep(0.2)

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


def fake_slurm(folder: Path, patch: pytest.MonkeyPatch) -> FakeSlurm:
    """Return a Slurm that is asked without a pause."""
    fake = FakeSlurm(folder / "slurm")
    fake.install(patch)
    for name in ("BETWEEN_LOOKS", "BETWEEN_QUESTIONS", "GRACE"):
        patch.setattr(on_slurm, name, 0.0)
    return fake


def write_methods(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Write METHODS, and say where they leave their marks."""
    path = folder / "users_methods.py"
    path.write_text(METHODS, encoding="utf-8")
    patch.setenv("MARKS", str(folder))
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
