"""Recipes: the hyperparameters of a method per task, from `baselines/<method>.toml`. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ht_bench import registry
from ht_bench.errors import Unsuitable, UsageError, shown
from ht_bench.files import folder
from ht_bench.loading import absolute
from ht_bench.methods.space import Space, combinations, read_space
from ht_bench.streams.catalog import get_task
from ht_bench.streams.seeds import parse_seeds
from ht_bench.streams.tables import check_kind, read_table, read_toml

LARGEST_SEARCH = 12
"""Configurations a search may try for one task: the same budget for every method."""
Regime = Literal["whole", "first"]
"""What a search sees: the whole stream, or its first share of steps alone (k %-tuning)."""


PER_TASK = ("tasks", "grids", "spaces", "search", "first", "search_first")
"""What a recipe says of tasks one by one."""
LISTS = ("grid", "grids", "space", "spaces")
"""What a recipe lists to be searched."""


@dataclass(frozen=True)
class Recipe:
    """One baseline: its source, its hyperparameters, the search that chose them.

    implementation: the class, "package.module:Class", by which the registry knows the method.
    default: hyperparameters where nothing more special is said. agents: replaces it where
    reinforcement-learning agents are trained. tasks: per task name. grid: the
    values a search tries, by hyperparameter; `grids` replaces it for a task. space, spaces: the
    same with ranges (`ht_bench.methods.space`), in place of the grid. search: per task, what the
    search found. first, search_first: as `tasks` and `search`, for searches that saw only the
    first share of a stream. earlier: per task, how many configurations of earlier grids were tried
    that its search does not list. needs_boundaries: whether its rule needs to be told when the data
    change (None: as its hooks say). inert: hyperparameters with which it trains as `none` does, bit
    for bit (None: there are none); active: with which it acts within a dozen steps. The tests of
    the contract read these two.
    """

    method: str
    summary: str
    source: str
    implementation: str = ""
    default: dict[str, Any] = field(default_factory=dict)
    agents: dict[str, Any] = field(default_factory=dict)
    tasks: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, Any] = field(default_factory=dict)
    grids: dict[str, Any] = field(default_factory=dict)
    space: dict[str, Any] = field(default_factory=dict)
    spaces: dict[str, Any] = field(default_factory=dict)
    search: dict[str, Any] = field(default_factory=dict)
    first: dict[str, Any] = field(default_factory=dict)
    search_first: dict[str, Any] = field(default_factory=dict)
    earlier: dict[str, int] = field(default_factory=dict)
    needs_boundaries: bool | None = None
    inert: dict[str, Any] | None = None
    active: dict[str, Any] = field(default_factory=dict)
    file: Path | None = field(default=None, init=False, compare=False)
    """Where it was read."""

    @property
    def place(self) -> str:
        """What to call its file in public: baselines/… of the package's own, else its name."""
        if self.file is None:
            return f"the recipe of '{self.method}'"
        own = self.file.resolve().parent == folder("baselines").resolve()
        return f"baselines/{self.file.name}" if own else self.file.name

    def hyperparameters(
        self, task: str, agent: bool = False, regime: Regime = "whole"
    ) -> dict[str, Any]:
        """Return the hyperparameters for a task; "" is not a task and gives the default.

        A task without a table of its own takes that of the task it is `tuned_as`. Raises Unsuitable
        where the regime is "first" and no search of that kind is recorded; a method without
        anything to search has nothing to record.
        """
        general = {**self.default, **self.agents} if agent else self.default
        if regime == "whole" or not task:
            return {**general, **self.tasks.get(self.settled_on(task), {})}
        task = self.settled_on(task, regime)
        if task not in self.first and self.search_space(task):
            raise Unsuitable(
                f"The recipe of '{self.method}' has no [first.{task}]; `ht-bench tune --task "
                f"{task} --method {self.method} --regime first --write` searches it."
            )
        return {**general, **self.first.get(task, {})}

    def settled_on(self, task: str, regime: Regime = "whole") -> str:
        """Return the task whose hyperparameters a task takes: its own, or that it is `tuned_as`."""
        tables = self.tasks if regime == "whole" else self.first
        if not task or task in tables:
            return task
        try:
            return get_task(task).tuned_as or task
        except UsageError:  # a name that no task here has
            return task

    def search_space(self, task: str) -> Space:
        """Return what a search on a task tries; empty where there is nothing to choose."""
        for key, table in {
            f"spaces.{task}": self.spaces.get(task, {}),
            "space": self.space,
            f"grids.{task}": self.grids.get(task, {}),
            "grid": self.grid,
        }.items():
            if table:
                where = f"The recipe of '{self.method}' [{key}]"
                check_finite(table, where)
                return read_space(table, where)
        return {}

    def configurations(self, task: str) -> list[dict[str, Any]]:
        """Return every combination of the task's grid; one empty one if there is no grid.

        Raises UsageError for more than `LARGEST_SEARCH`.
        """
        configurations = combinations(self.grids.get(task, self.grid))
        if len(configurations) > LARGEST_SEARCH:
            raise UsageError(
                f"{self.file or self.place}: the grid for {task} has {len(configurations)} "
                f"configurations; at most {LARGEST_SEARCH} are allowed, for all methods alike."
            )
        return configurations

    def searched(self, tasks: Sequence[str] = (), regime: Regime = "whole") -> tuple[str, int]:
        """Say how the hyperparameters were chosen, and with how many training runs.

        tasks: only these count; none named means every task with a search. Where a task has
        another's hyperparameters, the tasks that were searched are named.
        """
        recorded = self.search if regime == "whole" else self.search_first
        settled = [self.settled_on(task, regime) for task in tasks]
        searches = {t: s for t, s in recorded.items() if not tasks or t in settled}
        if not searches:
            return f"values of {self.source}; no search", 0
        before = self.earlier if regime == "whole" else {}
        largest = max(len(s["tried"]) + before.get(task, 0) for task, s in searches.items())
        older = max(before.get(task, 0) for task in searches)
        of_them = f", {older} of them of earlier grids" if older else ""
        seeds = " or ".join(sorted({str(s["seeds"]) for s in searches.values()}))
        shares = sorted({f"{s['share']:.0%}" for s in searches.values() if "share" in s})
        seen = f" of the first {' or '.join(shares)} of the stream" if shares else ""
        samplers = sorted({str(s.get("sampler", "grid")) for s in searches.values()})
        where = "per task" if settled == list(tasks) else f"on {', '.join(sorted(searches))}"
        return (
            f"{' or '.join(samplers)} search {where}, at most {largest} configuration(s){of_them}, "
            f"tuning seeds {seeds}, validation split{seen} ({self.place})",
            sum(runs_of(s, before.get(task, 0)) for task, s in searches.items()),
        )


def recipe_files() -> dict[str, Path]:
    """Return the shipped recipes' files by method name."""
    return {path.stem: path for path in sorted(folder("baselines").glob("*.toml"))}


registry.recipes.provide(recipe_files)


def runs_of(search: Mapping[str, Any], earlier: int = 0) -> int:
    """Return the training runs that a recorded search took, and those of `earlier` settings."""
    seeds = len(parse_seeds(search["seeds"]))
    return int(search.get("runs", len(search["tried"]) * seeds)) + earlier * seeds


def split_regime(name: str) -> tuple[str, Regime]:
    """Return a method's name without "@first" or "@whole", and the regime it was tuned by."""
    for regime in get_args(Regime):
        if name.endswith(f"@{regime}"):
            return name.removesuffix(f"@{regime}"), regime
    return name, "whole"


def recipe_names() -> list[str]:
    """Return the methods that have a recipe: shipped, registered, or found by entry point."""
    return registry.recipes.names()


def get_recipe(method: str) -> Recipe | None:
    """Return a method's recipe, or None if it has none; raises UsageError for a malformed one.

    method: its name, with or without "@first", or the path of a recipe's TOML file.
    """
    method, _ = split_regime(method)
    if not method.endswith(".toml") and method not in recipe_names():
        return None
    return _read(registry.made(registry.recipes, method), method)


def _read(found: Any, name: str) -> Recipe:
    if isinstance(found, str):
        found = Path(found)
    if isinstance(found, Path):
        table = read_toml(found)
        check_kind(table, "recipe", str(found))
        recipe = read_table(Recipe, table, str(found))
        _check_tables(recipe, found)
        read = replace(recipe, implementation=absolute(recipe.implementation, found))
        object.__setattr__(read, "file", found)  # no key of the file
        return read
    if not isinstance(found, Recipe):
        raise UsageError(f"{name} is {shown(found)}, no recipe; name its TOML file.")
    return found


def _check_tables(recipe: Recipe, path: Path) -> None:
    """Raise UsageError where what is said of a task is no table."""
    for key in PER_TASK:
        for task, value in getattr(recipe, key).items():
            if not isinstance(value, Mapping):
                place = f"{key}.{task}"
                raise UsageError(
                    f"{path}: '{place}' is {shown(value)}; write [{place}] above its keys."
                )
    for key in LISTS:
        table = getattr(recipe, key)
        places = {f"{key}.{task}": table[task] for task in table} if key in PER_TASK else {}
        for place, listed in (places or {key: table}).items():
            check_finite(listed, f"{path}: [{place}]")


def check_finite(space: Mapping[str, Any], where: str) -> None:
    """Raise UsageError for a listed value, or a part of one, that is no finite number."""
    for key, values in space.items():
        for value in _parts(values) if isinstance(values, list | tuple) else ():
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(
                    f"{where}: '{key}' lists {value}, which is no finite number; take it out."
                )


def _parts(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        yield from _parts(value) if isinstance(value, list | tuple) else (value,)
