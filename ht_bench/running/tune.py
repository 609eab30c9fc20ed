"""Choosing hyperparameters: the same small search for every method, on tuning seeds only."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ht_bench.errors import UsageError
from ht_bench.files import folder, write_atomically
from ht_bench.methods.recipe import Recipe, get_recipe
from ht_bench.methods.resolve import find_class, resolve
from ht_bench.records.metrics import final_metric
from ht_bench.records.record import Record
from ht_bench.running.evaluate import run_plan
from ht_bench.running.plan import Plan, Request, make_plan
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.seeds import format_seeds
from ht_bench.streams.task import AnyTask

TUNING_SEEDS = range(0, 100)
MARKER = "# ---- Below: written by `ht-bench tune --write`. ----\n"


@dataclass(frozen=True)
class Trial:
    """One configuration of a search: its mean final metric and standard error over seeds."""

    hyperparameters: Mapping[str, Any]
    mean: float
    standard_error: float


@dataclass(frozen=True)
class Search:
    """All trials of one method on one task, in the order of its grid."""

    method: str
    task: AnyTask
    seeds: tuple[int, ...]
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial:
        """The trial with the highest mean; of equal ones the first."""
        return max(self.trials, key=lambda trial: trial.mean)


def search(
    methods: Sequence[str],
    request: Request,
    workers: int = 1,
    announce: Callable[[Plan, int, int, int], None] | None = None,
) -> list[Search]:
    """Try every configuration of each method's grid on `request`'s one task.

    Runs on the validation split. Raises UsageError for a method without a recipe, for seeds
    outside 0 … 99, and for the first stack that fails.
    """
    task, seeds = request.tasks[0], request.seeds or ()
    if not seeds or not set(seeds) <= set(TUNING_SEEDS):
        raise UsageError(f"--seeds {format_seeds(seeds)}: tuning uses seeds 0 to 99 only.")
    configurations = {name: _recipe(name).configurations(task.name) for name in methods}
    plans = [
        make_plan(replace(request, methods=(name,), overrides=tried, split="validation"))
        for name, grid in configurations.items()
        for tried in grid
    ]
    plan = merge(plans)
    if announce is not None:
        announce(plan, 1, len(methods), workers)
    done = run_plan(plan, workers, announce is not None)
    if done.failures:
        raise UsageError(str(done.failures[0])) from done.failures[0].cause
    records = [record for record in done.records if record["seed"] in seeds]
    return [
        Search(name, task, seeds, tuple(_trial(name, task, t, records) for t in grid))
        for name, grid in configurations.items()
    ]


def merge(plans: Sequence[Plan]) -> Plan:
    """Return one plan that does what all of `plans` do."""
    return Plan(
        tuple(job for plan in plans for job in plan.jobs),
        tuple(path for plan in plans for path in plan.finished),
        sum(plan.requested for plan in plans),
        sum(plan.steps for plan in plans),
        tuple(dict.fromkeys(note for plan in plans for note in plan.notes)),
        tuple(dict.fromkeys(remark for plan in plans for remark in plan.remarks)),
    )


def _recipe(method: str) -> Recipe:
    recipe = get_recipe(method)
    if recipe is None:
        find_class(method)  # an unknown name gets its own sentence
        raise UsageError(f"There is no baselines/{method}.toml with a [grid] to search.")
    return recipe


def _trial(
    method: str, task: AnyTask, tried: Mapping[str, Any], records: Sequence[Record]
) -> Trial:
    agent = isinstance(task, ReinforcementTask)
    wanted = dict(resolve(method, task.name, tried, agent=agent).hyperparameters)
    finals = [
        final_metric(record, task.family, record["classes"])
        for record in records
        if record["method"] == method and record["hyperparameters"] == wanted
    ]
    error = float(np.std(finals, ddof=1) / len(finals) ** 0.5) if len(finals) > 1 else 0.0
    return Trial(tried, float(np.mean(finals)), error)


def write_recipe(found: Search, versions: Mapping[str, str]) -> str:
    """Record a search and its choice in baselines/<method>.toml; returns the file's path.

    Raises UsageError where the task's hyperparameters were written there by hand.
    """
    path = folder("baselines") / f"{found.method}.toml"
    head = path.read_text(encoding="utf-8").partition(MARKER)[0].rstrip() + "\n\n"
    recipe = _recipe(found.method)
    by_hand = tomllib.loads(head).get("tasks", {})
    if found.task.name in by_hand:
        raise UsageError(
            f"{path}: [tasks.{found.task.name}] was written by hand; delete it to record a search."
        )
    tasks = {name: table for name, table in recipe.tasks.items() if name not in by_hand}
    tasks = {**tasks, found.task.name: dict(found.best.hyperparameters)}
    entry = {
        "task_sha256": found.task.sha256,
        "seeds": format_seeds(found.seeds),
        "split": "validation",
        **versions,
        "tried": [_row(trial) for trial in found.trials],
    }
    searches = {**recipe.search, found.task.name: entry}
    blocks = [f"[tasks.{name}]\n{_lines(tasks[name])}" for name in sorted(tasks)]
    blocks += [f"[search.{name}]\n{_lines(searches[name])}" for name in sorted(searches)]
    write_atomically(path, head + MARKER + "\n" + "\n".join(blocks))
    return str(path)


def _row(trial: Trial) -> dict[str, Any]:
    numbers = {"mean": round(trial.mean, 5), "standard_error": round(trial.standard_error, 5)}
    return {**trial.hyperparameters, **numbers}


def _lines(table: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in table.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{key} = {_value(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        if not value:
            return "[]"
        return "[\n" + "".join(f"    {_value(item)},\n" for item in value) + "]"
    return json.dumps(value)
