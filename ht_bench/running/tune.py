"""Choosing hyperparameters: the same budget for every method, on tuning seeds only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ht_bench.errors import Unsuitable, UsageError
from ht_bench.files import make_folder
from ht_bench.methods.composed import parts_in, prefixed
from ht_bench.methods.recipe import LARGEST_SEARCH, Regime, get_recipe
from ht_bench.methods.resolve import MethodSpec, is_composed, resolve
from ht_bench.methods.space import Space
from ht_bench.records.metrics import final_metric
from ht_bench.records.record import Record
from ht_bench.running import studies
from ht_bench.running.compute import choose
from ht_bench.running.evaluate import run_plan
from ht_bench.running.first_share import first_metric, first_share
from ht_bench.running.plan import Plan, Request, make_plan
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.seeds import format_seeds
from ht_bench.streams.task import AnyTask

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

TUNING_SEEDS = range(0, 100)
AGENT_TRIALS = 4
"""Configurations for a task of environments, whose runs are long."""


@dataclass(frozen=True)
class Trial:
    """One configuration of a search: its mean score and standard error over seeds."""

    hyperparameters: Mapping[str, Any]
    mean: float
    standard_error: float


@dataclass(frozen=True)
class Search:
    """All trials of one method on one task, in the order in which they were asked for.

    regime, share: what of the stream it saw. sampler: how configurations were chosen. runs: how
    many it took.
    """

    method: str
    task: AnyTask
    seeds: tuple[int, ...]
    trials: tuple[Trial, ...]
    regime: Regime = "whole"
    share: float = 1.0
    sampler: str = "grid"
    runs: int = 0

    @property
    def best(self) -> Trial:
        """The trial with the highest mean; of equal ones the first."""
        return max(self.trials, key=lambda trial: trial.mean)


@dataclass(frozen=True)
class Budget:
    """What every method of a search is given.

    trials: configurations at most; 0 is 12 for a task of data and 4 for one of environments.
    regime, share: the whole stream (scored by the task's final metric), or its first share of steps
    (`ht_bench.running.first_share`). space: searched in place of the recipe's.
    """

    trials: int = 0
    regime: Regime = "whole"
    share: float = 0.1
    space: Space | None = None

    def of(self, task: AnyTask) -> int:
        """Return the configurations that a method may try on a task."""
        usual = AGENT_TRIALS if isinstance(task, ReinforcementTask) else LARGEST_SEARCH
        return self.trials or usual


@dataclass
class Found:
    """What a call found: searches that are complete, a sentence for each that is not.

    left_out: methods that a task cannot have.
    """

    searches: list[Search] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def search(
    methods: Sequence[str],
    request: Request,
    workers: int = 1,
    announce: Callable[[Plan, int, int, int], None] | None = None,
    budget: Budget | None = None,
) -> Found:
    """Try configurations of each method on each of `request`'s tasks, side by side.

    Runs on the validation split below `request.out`, where tuning.db keeps what was tried: the same
    call goes on from there. A method or a stack that fails leaves the other methods' searches as
    they are.

    Raises UsageError for seeds outside 0 … 99, for no folder, and where nothing can be searched.
    """
    budget = budget or Budget()
    seeds, out = request.seeds or (), request.out
    if not seeds or not set(seeds) <= set(TUNING_SEEDS):
        raise UsageError(f"--seeds {format_seeds(seeds)}: tuning uses seeds 0 to 99 only.")
    if out is None:
        raise UsageError("A search needs a folder for its runs; name one with --out.")
    found = Found()
    with studies.storage(make_folder(out)) as kept:
        begun = list(_begin(methods, request, budget, kept, found))
        if not begun and found.failures:
            raise UsageError(found.failures[0])
        _run_rounds(begun, workers, announce, found)
    found.searches += [each.result() for each in begun if each.is_complete]
    return found


def _begin(
    methods: Sequence[str], request: Request, budget: Budget, kept: BaseStorage, found: Found
) -> Iterator[_Running]:
    for task in request.tasks:
        for method in methods:
            try:
                yield _Running(method, task, request, budget, kept)
            except Unsuitable as error:
                if len(methods) == 1:
                    raise
                found.left_out.append(f"Left out on {task.name}: {error}")
            except UsageError as error:
                found.failures.append(f"{method} on {task.name}: {error}")


def _run_rounds(
    begun: Sequence[_Running],
    workers: int,
    announce: Callable[[Plan, int, int, int], None] | None,
    found: Found,
) -> None:
    """Train what the searches ask for, all of them side by side, until none asks for more."""
    going = list(begun)
    while going:
        plan = merge([part for each in going for part in each.plans()])
        if announce is not None:
            tasks, names = map(set, zip(*map(_cell, going), strict=True))
            announce(plan, len(tasks), len(names), workers)
        done = run_plan(plan, workers, announce is not None)
        found.failures += dict.fromkeys(map(str, done.failures))
        going = [each for each in going if each.take(done.records) and each.has_more]


def _cell(running: _Running) -> tuple[str, str]:
    return running.task.name, running.method


class _Running:
    """One method's search on one task while it goes on."""

    def __init__(
        self, method: str, task: AnyTask, request: Request, budget: Budget, kept: BaseStorage
    ) -> None:
        self.method, self.whole, self.budget = method, task, budget
        self.seeds = request.seeds or ()
        assert request.out is not None
        seen = budget.regime == "first"
        self.task = first_share(task, budget.share) if seen else task
        place = request.out / f"first-{budget.share:g}" if seen else request.out
        self._request = replace(request, tasks=(self.task,), split="validation", out=place)
        self._agent = isinstance(task, ReinforcementTask)
        start = resolve(method, agent=self._agent)
        self._start = dict(start.hyperparameters)
        compute = choose(task, request.compute)
        identity = {
            "method": start.name,
            "source": start.source_sha256,
            "start": self._start,
            "task": self.task.sha256,
            "seeds": format_seeds(self.seeds),
            "regime": budget.regime,
            "share": budget.share if seen else 1.0,
            "setting": f"{compute.precision} on {compute.device}",
        }
        title = f"{start.name} on {task.name}, {budget.regime}"
        space = _space(method, start.name, task, budget)
        self.study = studies.Study(kept, title, identity, space, budget.of(task))
        self.asked = self.study.ask()
        self.trials: dict[int, Trial] = {}
        self._plan = self._planned()

    def plans(self) -> list[Plan]:
        """Return a plan for every configuration asked for."""
        return self._plan

    def _planned(self) -> list[Plan]:
        return [
            make_plan(replace(self._request, methods=(self.method,), overrides=self._values(each)))
            for each in self.asked
        ]

    def _values(self, asked: studies.Asked) -> dict[str, Any]:
        """All hyperparameters of a trial: what an earlier search chose for the task is no part."""
        return {**self._start, **asked.hyperparameters}

    def take(self, records: Sequence[Record]) -> bool:
        """Score the trials by their records; returns whether all of them have one per seed."""
        for asked in self.asked:
            spec = resolve(self.method, self.task.name, self._values(asked), agent=self._agent)
            finals = self._finals(spec, records)
            if len(finals) < len(self.seeds):
                return False
            error = float(np.std(finals, ddof=1) / len(finals) ** 0.5) if len(finals) > 1 else 0.0
            trial = Trial(asked.hyperparameters, float(np.mean(finals)), error)
            self.trials[asked.number] = trial
            facts = {"standard_error": error, "values": finals}
            self.study.tell(asked.number, trial.mean, facts)
        return True

    def _finals(self, spec: MethodSpec, records: Sequence[Record]) -> list[float]:
        wanted = self.task.sha256, spec.name, dict(spec.hyperparameters)
        by_seed = {
            record["seed"]: self._score(record)
            for record in records
            if (record["task_sha256"], record["method"], record["hyperparameters"]) == wanted
        }
        return [by_seed[seed] for seed in self.seeds if seed in by_seed]

    def _score(self, record: Record) -> float:
        if self.budget.regime == "first":
            return first_metric(record, self.task, self.whole)
        return final_metric(record, self.task.family, record["classes"])

    @property
    def has_more(self) -> bool:
        """Ask for more; whether there is more."""
        before = len(self.asked)
        self.asked = self.study.ask()
        if len(self.asked) == before:
            return False
        self._plan = self._planned()
        return True

    @property
    def is_complete(self) -> bool:
        """Whether every trial has a score."""
        return len(self.trials) == len(self.asked)

    def result(self) -> Search:
        """Return the search."""
        trials = tuple(self.trials[number] for number in sorted(self.trials))
        return Search(
            self.method,
            self.whole,
            self.seeds,
            trials,
            self.budget.regime,
            self.budget.share if self.budget.regime == "first" else 1.0,
            self.study.sampler,
            len({str(trial.hyperparameters) for trial in trials}) * len(self.seeds),
        )


def _space(method: str, name: str, task: AnyTask, budget: Budget) -> Space:
    """Return the space given, or the recipe's; of "a+b" without its own, those of its parts."""
    if budget.space is not None:
        return budget.space
    recipe = get_recipe(method if method.endswith(".toml") else name)
    own = recipe.search_space(task.name) if recipe is not None else {}
    if not own and is_composed(name):
        parts = [resolve(part).name for part in parts_in(name)]
        return {
            prefixed(part, key): values
            for part in parts
            for key, values in _space(part, part, task, budget).items()
        }
    if recipe is None:
        raise Unsuitable(
            f"'{method}' has no recipe with a [grid] or [space] to search; give one with --space."
        )
    recipe.configurations(task.name)
    return own


def merge(plans: Sequence[Plan]) -> Plan:
    """Return one plan that does what all of `plans` do, each stack once."""
    jobs = {(job.folder, job.seeds): job for plan in plans for job in plan.jobs}
    return Plan(
        tuple(jobs.values()),
        tuple(dict.fromkeys(path for plan in plans for path in plan.finished)),
        sum(plan.requested for plan in plans),
        sum(plan.steps for plan in plans),
        tuple(dict.fromkeys(note for plan in plans for note in plan.notes)),
        tuple(dict.fromkeys(remark for plan in plans for remark in plan.remarks)),
    )
