"""ht-bench tune: choose hyperparameters on tuning seeds and the validation split."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ht_bench.commands.naming import find_methods, find_tasks
from ht_bench.commands.run import announce
from ht_bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ht_bench.methods.space import Space
    from ht_bench.running.plan import Request
    from ht_bench.running.tune import Search


def tune(
    task: str = "",
    suite: str = "",
    method: str = "",
    seeds: str = "0-4",
    trials: int = 0,
    regime: Literal["whole", "first"] = "whole",
    share: float = 0.1,
    space: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto",
    jobs: int = 0,
    out: Path = Path("runs-tuning"),
    write: bool = False,
) -> int:
    """Search each method's hyperparameters on tuning seeds (0 to 99) and the validation split.

    Every method gets the same budget: as many configurations at most, on the same seeds. What was
    tried is kept in an Optuna storage, OUT/tuning.db; the same command goes on from it.

    Example: ht-bench tune --task warm-start-digits-v1 --method hare-tortoise,l2 --write.

    Example, on the first tenth of the stream alone: ht-bench tune --task continual-digits-v1
    --method all --regime first --share 0.1 --write.

    Args:
        task: names or TOML files of tasks, separated by commas.
        suite: a suite's name: all of its tasks.
        method: methods with a recipe, separated by commas, or "all"; any method with --space.
        seeds: tuning seeds.
        trials: configurations that each method may try; 0 is 12 on data and 4 on environments.
        regime: whole scores a run by the task's final metric; first trains on the first share of
            the stream's steps alone, and scores by the metric at the ends of the phases seen there.
        share: the share of the stream's steps that the regime "first" sees.
        space: a TOML file whose [space] is searched in place of the recipe's: lists of values, or
            ranges such as strength = { low = 1e-5, high = 1e-2, log = true }.
        device: where to train; auto takes a CUDA device if the task gains from one.
        precision: fp32, tf32 (CUDA alone), or bf16 by autocast; auto is the task's own.
        jobs: processes; 0 takes one per core that the process may use, on CUDA as many as a short
            trial finds to fill the card.
        out: the folder for the runs and the search.
        write: record the searches and their choices: in baselines/<method>.toml of a checkout, in
            the recipe file that was named, else in OUT/recipes/<method>.toml.

    """
    tasks = find_tasks(task, suite)
    methods = find_methods(method)

    from ht_bench.running.compute import ComputeRequest
    from ht_bench.running.plan import Request
    from ht_bench.running.tune import Budget, search
    from ht_bench.streams.seeds import parse_seeds

    if jobs < 0:
        raise UsageError(f"--jobs {jobs}: give 1 or more, or 0 to have it chosen.")
    if trials < 0:
        raise UsageError(f"--trials {trials}: give 1 or more, or 0 for the usual budget.")
    request = Request(
        tasks=tuple(tasks),
        methods=(),
        seeds=parse_seeds(seeds),
        compute=ComputeRequest(device, precision),
        out=out,
        tensorboard=False,
    )
    budget = Budget(trials, regime, share, _read_space(space, methods))
    found = search(methods, request, jobs, announce, budget)
    for each in found.searches:
        _print(each)
        if write:
            _write(each, request, out)
    if len(found.searches) > 1:
        _print_choices(found.searches)
    for sentence in (*found.left_out, *found.failures):
        print(f"ht-bench: {sentence}", file=sys.stderr)
    return 2 if found.failures else 0


def _read_space(path: Path | None, methods: list[str]) -> Space | None:
    if path is None:
        return None
    from ht_bench.methods.recipe import check_finite
    from ht_bench.methods.space import read_space
    from ht_bench.streams.tables import read_toml

    if len(methods) != 1:
        raise UsageError(f"--space {path} is one method's: name one with --method.")
    table = read_toml(path)
    if set(table) != {"space"} or not isinstance(table["space"], dict):
        raise UsageError(f"{path}: write one table, [space], with the hyperparameters to search.")
    check_finite(table["space"], f"{path} [space]")
    return read_space(table["space"], f"{path} [space]")


def _write(found: Search, request: Request, out: Path) -> None:
    from ht_bench.running import studies
    from ht_bench.running.compute import choose
    from ht_bench.running.recipe_file import write_recipe
    from ht_bench.training.device import software

    versions = software(choose(found.task, request.compute))
    kept = {"optuna": studies.version(), **{k: versions[k] for k in ("torch", "numpy")}}
    print(f"Recorded in {write_recipe(found, kept, out)}.")


def _print(found: Search) -> None:
    seen = "" if found.regime == "whole" else f", first {found.share:.0%} of the stream"
    print(f"{found.method} on {found.task.name}{seen}:")
    for trial in found.trials:
        mark = "*" if trial is found.best else " "
        settings = _settings(trial.hyperparameters)
        print(f" {mark} {trial.mean:.4f} ± {trial.standard_error:.4f}  {settings}")
    for sentence in remarks(found):
        print(f"   {sentence}")


FEWEST_VALUES = 3
"""Of a hyperparameter, for the choice of its first or last to say anything."""


def remarks(found: Search) -> list[str]:
    """Say where a choice is not sure: others are as good, or it lies at the edge of a grid."""
    chosen = found.best.hyperparameters
    best = [
        trial.hyperparameters
        for trial in found.trials
        if math.isclose(trial.mean, found.best.mean, rel_tol=1e-9)
    ]
    others = [values for values in best if values != chosen]
    said = []
    if others:
        which = f"{len(others)} others have" if len(others) > 1 else f"{_settings(others[0])} has"
        said.append(f"{which} the same mean.")
    for key, value in chosen.items() if "grid" in found.sampler else ():
        values = [trial.hyperparameters[key] for trial in found.trials]
        settled = all(each[key] == value for each in best)
        if not settled or not all(map(_is_number, values)) or len(set(values)) < FEWEST_VALUES:
            continue
        if value == max(values):
            said.append(f"{key} = {value} is the largest tried; a larger one may be better.")
        elif value == min(values) and value != 0:  # where most hyperparameters end
            said.append(f"{key} = {value} is the smallest tried; a smaller one may be better.")
    return said


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in values.items()) or "(none)"


def _print_choices(searches: list[Search]) -> None:
    """Print the best of every search, the best methods of a task first."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="The best of each search", title_justify="left", box=None, pad_edge=False)
    for column in ("task", "method", "mean ± standard error", "tried", "runs", "choice"):
        table.add_column(column, no_wrap=column in ("method", "mean ± standard error"))
    for found in sorted(searches, key=lambda each: (each.task.name, -each.best.mean)):
        best = found.best
        score = f"{best.mean:.4f} ± {best.standard_error:.4f}"
        counts = (str(len(found.trials)), str(found.runs))
        choice = escape(_settings(best.hyperparameters))
        table.add_row(found.task.name, escape(found.method), score, *counts, choice)
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width
        console = Console(width=140)
    console.print(table)
