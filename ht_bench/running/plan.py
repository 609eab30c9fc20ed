"""From tasks, methods and seeds to the stacks that still have to be trained."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ht_bench.errors import Unsuitable, UsageError
from ht_bench.files import make_folder
from ht_bench.loading import is_same_definition, place
from ht_bench.methods.base import Method
from ht_bench.methods.composed import Composed, spread
from ht_bench.methods.contract import own_name
from ht_bench.methods.resolve import MethodSpec, Named, find_class, resolve
from ht_bench.records.keys import COSTLY
from ht_bench.records.record import read_record
from ht_bench.records.runs import origin_of, result_file, write_spec
from ht_bench.running import compute as computing
from ht_bench.running.compute import ComputeRequest
from ht_bench.running.failure import in_words
from ht_bench.running.job import StackJob
from ht_bench.running.kinds import check, steps_of
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.seeds import parse_seeds
from ht_bench.streams.stream import Split
from ht_bench.streams.task import AnyTask
from ht_bench.training import checkpoint
from ht_bench.training.device import Compute
from ht_bench.training.diagnosing import Schedule
from ht_bench.version import EPOCH


@dataclass(frozen=True)
class Request:
    """What a user asked for; `seeds` None means each task's evaluation seeds.

    skip_unsuitable: leave out methods that a task cannot train, with a note, instead of refusing.
    diagnostics: what runs measure beside their curves, which changes no bit of them.
    """

    tasks: tuple[AnyTask, ...]
    methods: tuple[Named, ...]
    seeds: tuple[int, ...] | None = None
    split: Split = "test"
    compute: ComputeRequest = field(default_factory=ComputeRequest)
    out: Path | None = None
    overrides: Mapping[str, Any] | None = None
    tensorboard: bool = True
    checkpoint_seconds: float = 120.0
    skip_unsuitable: bool = False
    diagnostics: Schedule = field(default_factory=Schedule)


@dataclass(frozen=True)
class Plan:
    """Stacks to train, the result files of runs that are finished already, what was left out.

    notes: what is not as it was asked for. remarks: what else a user may want to know.
    """

    jobs: tuple[StackJob, ...]
    finished: tuple[Path, ...]
    requested: int
    steps: int
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def minutes(self, workers: int) -> float | None:
        """Return the estimated minutes on `workers` processes, or None without an estimate."""
        each = [job.task.minutes_per_stack for job in self.jobs]
        if not each or any(minutes is None for minutes in each):
            return None
        return sum(minutes for minutes in each if minutes) / max(1, min(workers, len(each)))


def make_plan(request: Request) -> Plan:
    """Resolve every task × method × seed, leaving out what is finished.

    Raises UsageError for anything that cannot run: unknown names, missing data, an unwritable
    folder, settings that the network refuses.
    """
    if request.split not in ("test", "validation"):
        raise UsageError(f"--split {request.split}: choose test or validation.")
    if request.out is not None:
        make_folder(request.out)
    jobs: list[StackJob] = []
    finished: list[Path] = []
    notes: list[str] = []
    remarks: list[str] = []
    requested = 0
    for task in request.tasks:
        if request.out is not None:
            write_spec(request.out, task)
        compute = computing.choose(task, request.compute)
        notes += computing.notes(task, request.compute, compute)
        remarks += computing.remarks(task, request.compute, compute)
        planned: dict[Path, MethodSpec] = {}
        for named in request.methods:
            try:
                template = _template(request, task, named, compute)
            except Unsuitable as error:
                if not request.skip_unsuitable:
                    raise
                notes.append(f"Left out on {task.name}: {error}")
                continue
            if template.folder is not None:
                other = planned.setdefault(template.folder, template.method)
                if other is not template.method:
                    _check_same(other, template.method)
                    continue
            seeds = request.seeds or task.seeds
            requested += len(seeds)
            _drop_spent_checkpoints(template)
            done = [seed for seed in seeds if template.is_done(seed)]
            remarks += _undiagnosed(template, done)
            finished_seeds = set(done)
            pending = [seed for seed in seeds if seed not in finished_seeds]
            notes += _other_code(template, pending)
            notes += _replaced(template, pending)
            stacks = _stacks(template, pending)
            again = {seed for job in stacks for seed in job.seeds}  # mates in a begun stack
            if template.folder is not None:
                stay = [seed for seed in done if seed not in again]
                finished += [result_file(template.folder, seed) for seed in stay]
            jobs += stacks
    steps = sum(steps_of(job.task, job.seeds[0], job.split) for job in jobs)
    return Plan(tuple(jobs), tuple(finished), requested, steps, tuple(notes), tuple(remarks))


def _template(request: Request, task: AnyTask, named: Named, compute: Compute) -> StackJob:
    agent = isinstance(task, ReinforcementTask)
    try:
        spec = resolve(named, task.name, request.overrides, agent=agent)
        check(task, spec)
    except Unsuitable:
        raise
    except UsageError as error:
        raise _of_other_methods(request, named, error) from error
    except Exception as error:  # a user's method may raise anything
        raise UsageError(
            f"Method {named} cannot be made for {task.name}: {in_words(error)}; fix it."
        ) from error
    return StackJob(
        task,
        spec,
        (),
        request.split,
        compute,
        request.out,
        request.tensorboard,
        request.checkpoint_seconds,
        diagnostics=request.diagnostics,
    )


def _of_other_methods(request: Request, named: Named, error: UsageError) -> UsageError:
    """Return the error; where it refuses a setting that is not the method's, with what to do."""
    if not request.overrides:
        return error
    cls = type(named) if isinstance(named, Method) else find_class(named)
    fields = [field.name for field in dataclasses.fields(cls) if field.init]
    foreign = [key for key in request.overrides if not {*_spread(cls, key)} <= {*fields}]
    if not foreign:
        return error
    keys = " and ".join(f"'{key}'" for key in foreign)
    # "It has: none." could be read as the method `none`.
    sentence = f"Method '{own_name(cls)}' has no hyperparameter {keys}, nor any other."
    sentence = str(error) if fields else sentence
    if len(request.methods) == 1:
        return error if fields else UsageError(f"{sentence} Leave the setting out.")
    return UsageError(
        f"{sentence} --set is for every method that is named: run the methods that have {keys} in "
        "a command of their own, and the others in a second one, with the same --out."
    )


def _spread(cls: type[Method], key: str) -> Iterable[str]:
    return spread(cls, {key: None}) if issubclass(cls, Composed) else (key,)


def _check_same(one: MethodSpec, other: MethodSpec) -> None:
    """Raise UsageError where two methods of one request would share a folder."""
    classes = [find_class(spec.reference) for spec in (one, other)]
    if not is_same_definition(*classes):
        places = " and ".join(map(place, classes))
        raise UsageError(f"{places} are both called '{one.name}'; give one of them another `name`.")


def _other_code(job: StackJob, seeds: Sequence[int]) -> list[str]:
    """Say which results do not count as finished because of the method's code."""
    again = [seed for seed in seeds if job.has_result(seed)]
    if not again:
        return []
    count = f"{len(again)} result(s) of '{job.method.name}' on {job.task.name}"
    if job.method.has_source:
        return [
            f"{count} were made by other code than the method's files hold now: trained again, and "
            "what `ht-bench compare` shows until they are."
        ]
    return [
        f"{count} are trained again, since its class stands in no file (a notebook's, say), which "
        "would tell whether it is as it was; keep it in a module."
    ]


def _replaced(job: StackJob, seeds: Sequence[int]) -> list[str]:
    """Say which results of another epoch, or of another task of this name, runs will replace."""
    if job.folder is None:
        return []
    found = [origin_of(result_file(job.folder, seed)) for seed in seeds]
    others = Counter(
        f"of ht-bench {benchmark}, whose numbers do not compare"
        if benchmark != EPOCH
        else "of a task of this name with other content"
        for benchmark, task in filter(None, found)
        if benchmark != EPOCH or task != job.task.sha256
    )
    return [
        f"{count} result(s) of '{job.method.name}' on {job.task.name} are {whose}: trained again "
        "and replaced; name another --out to keep them."
        for whose, count in sorted(others.items())
    ]


def _undiagnosed(job: StackJob, done: Sequence[int]) -> list[str]:
    """Say which finished results lack the costly diagnostics that are asked for."""
    if job.folder is None or not job.diagnostics.costly:
        return []
    records = [read_record(result_file(job.folder, seed)) for seed in done]
    lacking = sum(not set(COSTLY) & set(record["diagnostics"]) for record in records)
    if not lacking:
        return []
    return [
        f"{lacking} finished result(s) of '{job.method.name}' on {job.task.name} were made without "
        "the costly diagnostics and are not trained again; name another --out to have them."
    ]


def _stacks(template: StackJob, pending: Sequence[int]) -> list[StackJob]:
    """Cut the pending seeds into stacks; stacks with a checkpoint keep their seeds."""
    left = list(pending)
    groups: list[tuple[int, ...]] = []
    for seeds in _interrupted(template):
        taken = {seed for group in groups for seed in group}
        if set(seeds) & set(left) and not set(seeds) & taken:
            groups.append(seeds)
            left = [seed for seed in left if seed not in seeds]
    width = template.task.stack
    groups += [tuple(left[i : i + width]) for i in range(0, len(left), width)]
    return [replace(template, seeds=group) for group in groups]


def _drop_spent_checkpoints(template: StackJob) -> None:
    """Delete those of finished stacks: a kill right after the last result leaves one."""
    for seeds in _interrupted(template):
        file = replace(template, seeds=seeds).checkpoint_file
        if file is not None and all(template.is_done(seed) for seed in seeds):
            checkpoint.remove(file)


def _interrupted(template: StackJob) -> list[tuple[int, ...]]:
    if template.folder is None or not template.folder.is_dir():
        return []
    names = [path.stem.removeprefix("stack-") for path in checkpoint.find(template.folder)]
    stacks = [parse_seeds(name) for name in names if re.fullmatch(r"[-\d,]+", name)]
    return [seeds for seeds in stacks if len(seeds) <= template.task.stack]
