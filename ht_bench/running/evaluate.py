"""The main job: task × method × seeds → results."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ht_bench.errors import UsageError
from ht_bench.methods.resolve import Named
from ht_bench.records.record import Record, read_record
from ht_bench.running.compute import ComputeRequest
from ht_bench.running.expected import Left, Times, by_information
from ht_bench.running.failure import Failure
from ht_bench.running.plan import Plan, Request, make_plan
from ht_bench.running.pool import Outcome, execute
from ht_bench.running.result import Result
from ht_bench.running.time_limit import NO_LIMIT, TimeLimit
from ht_bench.running.workers import choose_workers
from ht_bench.streams.catalog import get_task
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.seeds import parse_seeds
from ht_bench.streams.stream import Split
from ht_bench.streams.task import AnyTask
from ht_bench.training.diagnosing import Schedule


class Stopped(KeyboardInterrupt):
    """Ctrl-C: the checkpoints are saved, and the sentence says how to go on.

    As any KeyboardInterrupt it is no Exception, so that a program's `except Exception` around
    many runs does not go on with the next.
    """


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
    **hyperparameters: Any,
) -> Result:
    """Train `method` on `task` once per seed and return the Result.

    method: a name ("hare-tortoise"), a "file.py:Class", a recipe's TOML file, a Method class or an
    instance. A name takes its recipe for the task; `hyperparameters` override it. task: a name, a
    TOML file, or a Task. seeds: any integers; None means the task's evaluation seeds. split:
    "test", or "validation" to choose hyperparameters by. device: "auto" takes a CUDA device where
    the task gains from one. precision: "fp32", "tf32" (CUDA alone) or "bf16"; None is the task's
    own. jobs: worker processes; more than 1 needs an importable method. out: a folder for results,
    checkpoints and TensorBoard runs, from which the same call goes on after an interruption; None
    keeps results in memory. diagnostics: "basic", or "all" with curvature and the trainability
    probe; no bit of training depends on it.

    Raises UsageError, one sentence, for whatever cannot be run, with what a method raised as its
    cause; Stopped, a KeyboardInterrupt, after Ctrl-C.
    """
    spec = get_task(task)
    request = Request(
        tasks=(spec,),
        methods=(method,),
        seeds=None if seeds is None else parse_seeds(seeds, "seeds"),
        split=split,
        compute=ComputeRequest(device, precision or "auto"),
        out=None if out is None else Path(out).expanduser(),
        overrides=hyperparameters,
        diagnostics=Schedule(diagnostics),
    )
    plan = make_plan(request)
    for note in plan.notes:
        warnings.warn(note, stacklevel=2)
    done = run_plan(plan, jobs, progress)
    if done.failures:
        raise UsageError(str(done.failures[0])) from done.failures[0].cause
    by_seed = {record["seed"]: record for record in done.records}
    return Result(spec, [by_seed[seed] for seed in request.seeds or spec.seeds])


def run_plan(
    plan: Plan,
    workers: int,
    progress: bool = True,
    limit: TimeLimit = NO_LIMIT,
    announce: Callable[[str], None] = lambda sentence: None,
) -> Finished:
    """Train what the plan lacks and return all its records.

    workers: processes; 0 takes one per core for a CPU and fills a GPU, which is announced. limit:
    when to stop, stacks that are not finished being saved; those that tell most come first then.
    Raises Stopped after Ctrl-C. A stack that fails leaves the others running; its sentence is in
    `failures`.
    """
    old = [read_record(path) for path in plan.finished]
    jobs = plan.jobs
    if limit is not NO_LIMIT:
        jobs = tuple(by_information(jobs, plan.finished, Times(old)))
    outcome = Outcome()
    with tqdm(
        total=plan.steps,
        unit="step",
        unit_scale=True,
        mininterval=0.5 if sys.stderr.isatty() else 30,
        desc=f"{len(jobs)} stacks",
        disable=not progress or not jobs,
    ) as bar:
        for device in dict.fromkeys(job.compute.device for job in jobs):
            own = [job for job in jobs if job.compute.device == device]
            if outcome.interrupted:
                outcome.left += map(Left, own)
                continue
            count = workers or choose_workers(own, limit, announce)
            outcome.add(execute(own, count, lambda steps: bar.update(steps) and None, limit))
    if outcome.interrupted:
        raise Stopped(_stopped(plan, len(old) + len(outcome.records)))
    records = old + outcome.records
    seconds = Times(records, outcome.left).remaining(outcome.left)
    return Finished(records, outcome.failures, outcome.left, seconds)


def _stopped(plan: Plan, count: int) -> str:
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
