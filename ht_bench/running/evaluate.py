"""The main job: task × method × seeds → results."""

from __future__ import annotations

import logging
import signal
import sys
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ht_bench.errors import UsageError
from ht_bench.methods.resolve import Named
from ht_bench.records.record import Record, outline, read_record
from ht_bench.records.runs import is_claimed
from ht_bench.running.compute import ComputeRequest
from ht_bench.running.executor import (
    Announce,
    Executor,
    ExecutorRequest,
    Outcome,
    Progress,
    Stop,
    make_executor,
    signals_stop,
)
from ht_bench.running.expected import Left, Times, by_information
from ht_bench.running.failure import Failure
from ht_bench.running.job import StackJob
from ht_bench.running.plan import Plan, Request, make_plan
from ht_bench.running.result import Result
from ht_bench.running.time_limit import NO_LIMIT, TimeLimit
from ht_bench.streams.catalog import get_task
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.seeds import parse_seeds
from ht_bench.streams.stream import Split
from ht_bench.streams.task import AnyTask
from ht_bench.training.diagnosing import Schedule

BETWEEN_LOOKS = 1.0
"""Seconds between two looks at stacks that another runner trains."""


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM: the checkpoints are saved, and the sentence says how to go on.

    As any KeyboardInterrupt it is no Exception, so that a program's `except Exception` around
    many runs does not go on with the next. signal: the number of what stopped it.
    """

    signal: int = signal.SIGINT


@dataclass(frozen=True)
class Finished:
    """All records of a plan, old and new, and a sentence for each stack that failed.

    left: stacks for which the time did not suffice. seconds_left: what they take, of one process;
    None where that is not known.
    """

    records: list[Record]
    failures: list[Failure]
    left: list[Left] = field(default_factory=list)
    seconds_left: float | None = 0.0


def evaluate(
    method: Named,
    task: str | Path | AnyTask,
    seeds: Iterable[int] | str | int | None = None,
    *,
    split: Split = "test",
    device: str = "auto",
    precision: str | None = None,
    jobs: int = 1,
    out: str | Path | None = None,
    progress: bool = True,
    diagnostics: str = "basic",
    executor: str | ExecutorRequest = "local",
    **hyperparameters: Any,
) -> Result:
    """Train `method` on `task` once per seed and return the Result.

    method: a name ("hare-tortoise"), a "file.py:Class", a recipe's TOML file, a Method class or an
    instance. A name takes its recipe for the task; `hyperparameters` override it. task: a name, a
    TOML file, or a Task. seeds: any integers; None means the task's evaluation seeds. split:
    "test", or "validation" to choose hyperparameters by. device: "auto" takes a CUDA device where
    the task gains from one. precision: "fp32", "tf32" (CUDA alone) or "bf16"; None is the task's
    own. jobs: worker processes; more than 1 needs an importable method. executor: "local", "ray"
    (the cluster that RAY_ADDRESS names, else one of this machine), "slurm", or an
    `ExecutorRequest`, whose workers then take the place of jobs. out: a folder for results,
    checkpoints and TensorBoard runs, from which the same call goes on after an interruption; None
    keeps results in memory. diagnostics: "basic", or "all" with curvature and the trainability
    probe; no bit of training depends on it.

    Raises UsageError, one sentence, for whatever cannot be run, with what a method raised as its
    cause; Stopped, a KeyboardInterrupt, after Ctrl-C.
    """
    spec = get_task(task)
    if not isinstance(executor, ExecutorRequest):
        executor = ExecutorRequest(executor, jobs)  # type: ignore[arg-type]
    request = Request(
        tasks=(spec,),
        methods=(method,),
        seeds=None if seeds is None else parse_seeds(seeds, "seeds"),
        split=split,
        compute=ComputeRequest(
            device, precision or "auto", elsewhere=executor.is_elsewhere, gpu=executor.has_gpu
        ),
        out=None if out is None else Path(out).expanduser(),
        overrides=hyperparameters,
        diagnostics=Schedule(diagnostics),
    )
    plan = make_plan(request)
    for note in plan.notes:
        warnings.warn(note, stacklevel=2)
    done = run_plan(plan, executor, progress)
    if done.failures:
        raise UsageError(str(done.failures[0])) from done.failures[0].cause
    by_seed = {record["seed"]: record for record in done.records}
    return Result(spec, [by_seed[seed] for seed in request.seeds or spec.seeds])


def run_plan(
    plan: Plan,
    where: ExecutorRequest | int,
    progress: bool = True,
    limit: TimeLimit = NO_LIMIT,
    announce: Announce | None = None,
    brief: bool = False,
) -> Finished:
    """Train what the plan lacks and return all its records.

    where: the executor, or a number of processes of this machine; 0 takes one per core for a CPU
    and fills a GPU, which is announced. limit: when to stop, stacks that are not finished being
    saved; those that tell most come first then. announce: takes what is said meanwhile; None
    writes it above the bar, or without one as a logged warning. What another runner trains is
    waited for. Raises Stopped after Ctrl-C or SIGTERM. A stack that fails leaves the others
    running; its sentence is in `failures`. brief: outlines of records (`records.record.outline`)
    where they are on disk, so that memory does not grow with the runs.
    """
    announce = announce or (_write if progress else logging.getLogger(__name__).warning)
    old = [outline(read_record(path)) if brief else read_record(path) for path in plan.finished]
    jobs = tuple(replace(job, brief=brief) for job in plan.jobs)
    if limit is not NO_LIMIT:
        jobs = tuple(by_information(jobs, plan.finished, Times(old)))
    if not jobs:
        return Finished(old, [])
    request = ExecutorRequest(workers=where) if isinstance(where, int) else where
    executor = make_executor(request, announce)  # what it lacks is told before any bar
    with (
        signals_stop() as stop,
        tqdm(
            total=plan.steps,
            unit="step",
            unit_scale=True,
            mininterval=0.5 if sys.stderr.isatty() else 30,
            desc=f"{len(jobs)} stacks",
            disable=not progress,
        ) as bar,
    ):
        outcome = _execute(
            executor, jobs, lambda steps: bar.update(steps) and None, limit, stop, announce
        )
    if outcome.interrupted:
        raise _stopped(plan, len(old) + len(outcome.records), stop.signal)
    records = old + outcome.records
    seconds = Times(records, outcome.left).remaining(outcome.left)
    return Finished(records, outcome.failures, outcome.left, seconds)


def _execute(
    executor: Executor,
    jobs: Sequence[StackJob],
    progress: Progress,
    limit: TimeLimit,
    stop: Stop,
    announce: Announce,
) -> Outcome:
    """Have the stacks trained; what another runner trains is looked at until it is free or done."""
    outcome = executor.execute(jobs, progress, limit, stop)
    if outcome.busy and not stop() and not limit.is_over():
        announce(
            f"{len(outcome.busy)} stack(s) are being trained by another runner in this folder: "
            "waiting for their results, or to go on with them where it ends before."
        )
    while outcome.busy and not stop() and not limit.is_over():
        free = [job for job in outcome.busy if not is_claimed(job.seed_folders)]
        outcome.busy = [job for job in outcome.busy if job not in free]
        if free:
            outcome.add(executor.execute(free, progress, limit, stop))
        else:
            time.sleep(BETWEEN_LOOKS)
    outcome.left += map(Left, outcome.busy)
    return replace(outcome, busy=[], interrupted=stop() and bool(outcome.left))


def _write(sentence: str) -> None:
    tqdm.write(sentence, file=sys.stderr)


def _stopped(plan: Plan, count: int, number: int) -> Stopped:
    stopped = Stopped(_how_to_go_on(plan, count))
    stopped.signal = number
    return stopped


def _how_to_go_on(plan: Plan, count: int) -> str:
    on_disk = bool(plan.jobs) and plan.jobs[0].out is not None
    what_next = (
        f"the same command goes on from the last checkpoints{_coarse(plan)}."
        if on_disk
        else "nothing was kept, since no folder was named; name one with out=."
    )
    return f"Stopped with {count} of {plan.requested} runs finished; {what_next}"


def _coarse(plan: Plan) -> str:
    """Say whose checkpoints are of a phase's start, since their environments cannot be saved."""
    tasks = {job.task.name: job.task for job in plan.jobs}
    agents = {n: task for n, task in tasks.items() if isinstance(task, ReinforcementTask)}
    if not agents:
        return ""
    from ht_bench.training.agent_state import is_resumed_inside_phases  # takes a second

    coarse = [name for name, task in agents.items() if not is_resumed_inside_phases(task)]
    whose = f", {', '.join(coarse)} from the start of the phase it was in"
    return whose if coarse else ""


def describe(plan: Plan, workers: int) -> Mapping[str, object]:
    """Return what a plan will do: runs, stacks, finished runs, estimated minutes (or None)."""
    return {
        "runs": plan.requested,
        "finished": len(plan.finished),
        "stacks": len(plan.jobs),
        "minutes": plan.minutes(workers),
    }
