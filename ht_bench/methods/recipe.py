"""Recipes: the hyperparameters of a method per task, from `baselines/<method>.toml`. No torch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ht_bench import registry
from ht_bench.errors import UsageError, shown
from ht_bench.files import folder
from ht_bench.loading import absolute
from ht_bench.streams.seeds import parse_seeds
from ht_bench.streams.tables import check_kind, read_table, read_toml

LARGEST_SEARCH = 12
"""Configurations a search may try for one task: the same budget for every method."""


@dataclass(frozen=True)
class Recipe:
    """One baseline: its source, its hyperparameters, the search that chose them.

    implementation: the class, "package.module:Class", by which the registry knows the method.
    default: hyperparameters where nothing more special is said. agents: replaces it where
    reinforcement-learning agents are trained. tasks: per task name. grid: the
    values a search tries, by hyperparameter; `grids` replaces it for a task. search: per task,
    what the search found. needs_boundaries: whether its rule needs to be told when the data
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
    search: dict[str, Any] = field(default_factory=dict)
    needs_boundaries: bool | None = None
    inert: dict[str, Any] | None = None
    active: dict[str, Any] = field(default_factory=dict)

    def hyperparameters(self, task: str, agent: bool = False) -> dict[str, Any]:
        """Return the hyperparameters for a task; "" is not a task and gives the default."""
        general = {**self.default, **self.agents} if agent else self.default
        return {**general, **self.tasks.get(task, {})}

    def configurations(self, task: str) -> list[dict[str, Any]]:
        """Return every combination of the task's grid; one empty one if there is no grid.

        Raises UsageError for more than `LARGEST_SEARCH`.
        """
        grid: Mapping[str, list[Any]] = self.grids.get(task, self.grid)
        configurations = [
            dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
        ]
        if len(configurations) > LARGEST_SEARCH:
            raise UsageError(
                f"baselines/{self.method}.toml: the grid for {task} has {len(configurations)} "
                f"configurations; at most {LARGEST_SEARCH} are allowed, for all methods alike."
            )
        return configurations

    def searched(self, tasks: Sequence[str] = ()) -> tuple[str, int]:
        """Say how the hyperparameters were chosen, and with how many training runs.

        tasks: only these count; none named means every task with a search.
        """
        searches = {t: s for t, s in self.search.items() if not tasks or t in tasks}
        runs = sum(len(s["tried"]) * len(parse_seeds(s["seeds"])) for s in searches.values())
        if not searches:
            return f"values of {self.source}; no search", 0
        largest = max(len(s["tried"]) for s in searches.values())
        seeds = " or ".join(sorted({str(s["seeds"]) for s in searches.values()}))
        return (
            f"grid search per task, at most {largest} configuration(s), tuning seeds {seeds}, "
            f"validation split (baselines/{self.method}.toml)",
            runs,
        )


def recipe_files() -> dict[str, Path]:
    """Return the shipped recipes' files by method name."""
    return {path.stem: path for path in sorted(folder("baselines").glob("*.toml"))}


registry.recipes.provide(recipe_files)


def recipe_names() -> list[str]:
    """Return the methods that have a recipe: shipped, registered, or found by entry point."""
    return registry.recipes.names()


def get_recipe(method: str) -> Recipe | None:
    """Return a method's recipe, or None if it has none; raises UsageError for a malformed one.

    method: its name, or the path of a recipe's TOML file.
    """
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
        return replace(recipe, implementation=absolute(recipe.implementation, found))
    if not isinstance(found, Recipe):
        raise UsageError(f"{name} is {shown(found)}, no recipe; name its TOML file.")
    return found
