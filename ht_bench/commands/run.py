"""ht-bench run: train methods on tasks, resumable, in a pool of processes."""

from __future__ import annotations

import inspect
import itertools
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ht_bench.commands.naming import find_methods, find_tasks
from ht_bench.commands.settings import METAVAR, Settings, read_settings
from ht_bench.errors import UsageError
from ht_bench.loading import imported_sources

if TYPE_CHECKING:
    from ht_bench.running.evaluate import Finished
    from ht_bench.running.executor import ExecutorRequest
    from ht_bench.running.plan import Plan, Request
    from ht_bench.running.time_limit import TimeLimit


def run(
    task: str = "",
    suite: str = "",
    method: str = "",
    seeds: str = "",
    split: Literal["test", "validation"] = "test",
    tuned: Literal["whole", "first"] = "whole",
    settings: Annotated[Settings, tyro.conf.arg(name="set", metavar=METAVAR)] = (),
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto",
    threads: int = 1,
    jobs: int = 0,
    executor: Literal["local", "ray", "slurm"] = "local",
    address: str = "",
    gpus_per_run: float | None = None,
    slurm: Annotated[Settings, tyro.conf.arg(metavar=METAVAR)] = (),
    retries: int = 1,
    time_limit: Annotated[str, tyro.conf.arg(name="for", metavar="TIME")] = "",
    out: Path = Path("runs"),
    tensorboard: bool = True,
    checkpoint_seconds: float = 120.0,
    diagnostics: Literal["basic", "all"] = "basic",
    diagnoses_per_phase: int = 1,
    dry_run: bool = False,
    until_decided: bool = False,
) -> int:
    """Train methods on tasks, once per seed; run the same command again to go on.

    Example: ht-bench run --task warm-start-digits-v1 --method none,full-reset,hare-tortoise

    Example, with your own files: ht-bench run --task my_task.toml --method my_file.py:MyMethod,none
    --seeds 100-104 --set decay=0.99

    Example, a whole suite: ht-bench run --suite suite-core-v1 --method all --jobs 2

    Example, on a Ray cluster, four stacks to a GPU: ht-bench run --suite suite-images-v1 --method
    all --executor ray --address auto --device cuda --gpus-per-run 0.25

    Example, what a lease of 15 minutes allows: ht-bench run --suite suite-core-v1 --method all
    --for 14m

    Args:
        task: names, TOML files or file.py:function of tasks, separated by commas.
        suite: suites, by name or TOML file: all of their tasks.
        method: names, file.py:Class or TOML files of recipes, separated by commas; "all" is every
            method with a recipe, and every one of a plug-in.
        seeds: seeds such as 100-119 or 0,3,7; the task's evaluation seeds if left out.
        split: test, or validation to choose hyperparameters by.
        tuned: take the hyperparameters that a search on the whole stream chose, or on its first
            share (`ht-bench tune --regime first`); NAME@first does the same for one method, and is
            its name in results.
        settings: hyperparameters that override the recipe's, e.g. --set decay=0.9 reset_every=400.
        device: where to train; auto takes a CUDA device for tasks that gain from one.
        precision: fp32, tf32 (CUDA alone), or bf16 by autocast; auto is each task's own.
        threads: CPU threads of each process.
        jobs: processes; 0 takes one per core that the process may use, on CUDA as many as a short
            trial finds to fill the card. On a cluster: stacks at once, 0 for as many as it takes.
        executor: who trains: processes of this machine, a Ray cluster, or Slurm; docs/scaling.md.
        address: of the Ray cluster: auto for the one that runs here, or HOST:PORT.
        gpus_per_run: of each stack on a cluster, e.g. 0.25 to share one; left out, a whole one for
            what trains with --device cuda.
        slurm: settings of its jobs, e.g. --slurm partition=gpu time=120 mem_gb=16.
        retries: how often a stack is trained on whose worker died.
        time_limit: stop in time, e.g. after 12m, 90s or 2h: one stack of seeds of every task and
            method first, then the second; what is not finished is saved, and the same command
            goes on, on another machine too if the folder is copied there.
        out: the folder for results, checkpoints and TensorBoard runs.
        tensorboard: write TensorBoard runs beside the results.
        checkpoint_seconds: the longest stretch of work that a kill can cost, where saving takes no
            more than a fiftieth of it.
        diagnostics: basic, or all: curvature and a trainability probe too, which take time but
            change nothing that is trained; docs/results.md lists them.
        diagnoses_per_phase: how often; the last time is the phase's end (for agents the only one).
        dry_run: train nothing; say what is left to train, how long it takes and how much disk.
        until_decided: train the methods and both anchors on a part of the seeds, look, and add
            seeds until each method is surely above or below none, full-reset and the leader of what
            the folder holds, at 5 % for any error in all looks and pairs; never beyond the task's
            seeds. Several tasks are decided by their common score.

    """
    given = dict(locals())
    from ht_bench.running.time_limit import NO_LIMIT, TimeLimit, parse_duration

    limit = TimeLimit(parse_duration(time_limit, "--for")) if time_limit else NO_LIMIT
    tasks = find_tasks(task, suite)
    methods = [name if tuned == "whole" else f"{name}@{tuned}" for name in find_methods(method)]
    overrides = read_settings(settings)

    from ht_bench.running.compute import ComputeRequest
    from ht_bench.running.evaluate import run_plan
    from ht_bench.running.executor import ExecutorRequest
    from ht_bench.running.plan import Request, make_plan
    from ht_bench.streams.seeds import parse_seeds
    from ht_bench.training.diagnosing import Schedule

    where = ExecutorRequest(
        executor,
        jobs,
        address,
        cpus=threads,
        gpus=gpus_per_run,
        retries=retries,
        options=read_settings(slurm, "--slurm"),
    )
    request = Request(
        tasks=tuple(tasks),
        methods=tuple(methods),
        seeds=parse_seeds(seeds) if seeds else None,
        split=split,
        compute=ComputeRequest(device, precision, threads, where.is_elsewhere, where.has_gpu),
        out=out,
        overrides=overrides,
        tensorboard=tensorboard,
        checkpoint_seconds=checkpoint_seconds,
        skip_unsuitable="all" in method.split(","),
        diagnostics=Schedule(diagnostics, diagnoses_per_phase),
    )
    if until_decided:
        if dry_run:
            raise UsageError("--until-decided cannot be foreseen; leave --dry-run out.")
        return _until_decided(request, where, limit, given)
    plan = make_plan(request)
    announce(plan, len(tasks), len(methods), jobs, where.is_elsewhere)
    if dry_run:
        from ht_bench.running.forecast import forecast

        print(forecast(plan))
        return 0
    done = run_plan(plan, where, limit=limit, brief=True)
    code = report(done.records, done.failures, out)
    if done.left:
        why = "The time is up" if time_limit else "Not waited for"
        print(what_is_left(plan, done, _command(given), why))
    return code


def _until_decided(
    request: Request, where: ExecutorRequest, limit: TimeLimit, given: Mapping[str, Any]
) -> int:
    from ht_bench.running.decided import in_words, until_decided
    from ht_bench.running.evaluate import run_plan

    def train(plan: Plan) -> Finished:
        methods = plan.requested // sum(len(t.seeds) for t in request.tasks) or 1
        announce(plan, len(request.tasks), methods, where.workers, where.is_elsewhere)
        return run_plan(plan, where, limit=limit, brief=True)

    code = 0
    for stage in until_decided(request, train):
        assert request.out is not None
        code = report(stage.done.records, stage.done.failures, request.out)
        if stage.done.left:
            print(what_is_left(stage.plan, stage.done, _command(given), "The time is up"))
        for decision in stage.decisions:
            print(in_words(decision))
        if stage.decisions and all(decision.stands for decision in stage.decisions):
            print("Decided.")
    return code


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def announce(plan: Plan, tasks: int, methods: int, jobs: int, on_cluster: bool = False) -> None:
    """Say what is about to be done: runs, stacks of seeds, where, estimated time.

    jobs: processes, or 0 where they are chosen: one per core on a CPU. on_cluster: other machines
    train, nobody knows yet how many at once.
    """
    from ht_bench.running.cores import available_cores

    for note in (*plan.notes, *plan.remarks):
        _say(note)
    on_gpu = any(job.compute.device == "cuda" for job in plan.jobs)
    workers = jobs or (1 if on_gpu or on_cluster else available_cores())
    minutes = plan.minutes(workers)
    if not plan.jobs:
        estimate = "nothing is left to train"
    elif minutes is None:
        estimate = "the time is not known in advance"
    else:
        estimate = f"about {max(minutes, 0.1):.1f} min with {workers} process(es)"
    where = dict.fromkeys(f"{j.compute.precision} on {j.compute.device}" for j in plan.jobs)
    _say(
        f"{tasks} task(s) × {methods} method(s): {plan.requested} runs, {len(plan.finished)} "
        f"finished already, {len(plan.jobs)} stack(s) of seeds to train"
        f"{', ' if where else ''}{' and '.join(where)}; {estimate}."
    )


def what_is_left(plan: Plan, done: Finished, command: str, why: str) -> str:
    """Say how many runs are left over and why, what they take, and the command that goes on."""
    seconds = done.seconds_left
    time = "time not known" if seconds is None else f"about {max(seconds / 60, 0.1):.1f} min"
    missing = plan.requested - len(done.records)
    return (
        f"{why}: {missing} of {plan.requested} runs are left, in {len(done.left)} "
        f"stack(s) ({time} of one process). Go on, here or where a copy of the folder is, with:\n"
        f"{command}"
    )


def _command(given: Mapping[str, Any]) -> str:
    """Return the command line with these arguments of `run`, as a shell reads it."""
    words = ["ht-bench", "run"]
    for name, parameter in inspect.signature(run).parameters.items():
        value = given[name]
        flag = {"settings": "set", "time_limit": "for"}.get(name, name.replace("_", "-"))
        if value == parameter.default:
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, tuple):  # settings, as often as their option was given
            words += [f"--{flag}", *itertools.chain.from_iterable(value)]
        else:
            words += [f"--{flag}", str(value)]
    if sources := imported_sources():
        words += ["--import", ",".join(sources)]
    return shlex.join(words)


def report(records: list[dict[str, Any]], failures: Sequence[str], out: Path) -> int:
    """Name what was written, what failed, and the next command; returns the exit code.

    Without a result nothing can be compared, and what failed says all.
    """
    diverged = sum(record["status"] == "diverged" for record in records)
    note = f" ({diverged} diverged)" if diverged else ""
    following = f"; next: ht-bench compare {out}" if records else "."
    print(f"{len(records)} results{note} under {out}/{following}")
    for failure in failures:
        print(f"ht-bench: {failure}", file=sys.stderr)
    return 2 if failures else 0
