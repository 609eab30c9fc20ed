"""ht-bench list: what there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import tyro

from ht_bench import registry
from ht_bench.errors import UsageError
from ht_bench.registry import BUILT_IN, Registry

Kind = Literal[
    "all",
    "tasks",
    "methods",
    "recipes",
    "suites",
    "data",
    "networks",
    "activations",
    "norms",
    "environments",
]
Describe = Callable[[str], Sequence[str]]


def list_things(kind: Annotated[Kind, tyro.conf.Positional] = "all") -> int:
    """Show tasks, methods, suites, datasets, networks and their parts by name.

    What is not built in comes with its package or file. Of what cannot be loaded the reason stands
    in its place; all else is shown.

    Example: ht-bench list tasks

    Args:
        kind: what to show.

    """
    shown = {
        "tasks": _tasks,
        "methods": _methods,
        "recipes": _recipes,
        "suites": _suites,
        "data": _data,
        "networks": _plain("Networks", registry.networks),
        "activations": _plain("Activations", registry.activations),
        "norms": _plain("Normalisations", registry.norms),
        "environments": _plain("Environments", registry.environments),
    }
    for name, show in shown.items():
        if kind in ("all", name):
            show()
    return 0


def _print(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, min_width=len(title))
    for index, column in enumerate(columns):
        table.add_column(column, no_wrap=index == 0)
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console()
    console.print(table)
    console.print()


def _show(
    title: str,
    columns: Sequence[str],
    things: Registry,
    describe: Describe,
    names: Sequence[str] | None = None,
) -> None:
    """Print a row for each name: what `describe` says, or why it cannot; where it is from."""
    found: dict[str, list[str]] = {}
    for name in things.names() if names is None else names:
        try:
            found[name] = list(describe(name))
        except UsageError as error:
            found[name] = [f"not to be had: {error}"]
            columns = columns if len(columns) > 1 else [*columns, "what is wrong"]
    if not found:
        return print(f"{title}: none is registered; Gymnasium's own are known by their id.\n")
    origins = {name: things.origin(name) for name in found}
    foreign = any(origin != BUILT_IN for origin in origins.values())
    rows = []
    for name, cells in found.items():
        padding = [""] * (len(columns) - 1 - len(cells))
        origin = "" if origins[name] == BUILT_IN else origins[name]
        rows.append([name, *cells, *padding, *([origin] if foreign else [])])
    _print(title, [*columns, "from"] if foreign else columns, rows)


def _tasks() -> None:
    from ht_bench.streams.catalog import get_task, task_names

    def describe(name: str) -> list[str]:
        task = get_task(name)
        mark = " [draft]" if task.status == "draft" else ""
        if task.superseded_by:
            mark = f" [superseded by {task.superseded_by}]"
        return [f"{task.title} ({task.learner}){mark}"]

    columns = ["name", "what it is (network or agent)"]
    _show("Tasks", columns, registry.tasks, describe, task_names())


def _methods() -> None:
    from ht_bench.methods.recipe import get_recipe, recipe_names

    def describe(name: str) -> list[str]:
        if registry.methods.is_from_outside(name) and name in registry.methods.names():
            registry.methods.get(name)
        recipe = get_recipe(name)
        return [recipe.summary, recipe.source] if recipe else [""]

    names = list(dict.fromkeys((*registry.methods.names(), *recipe_names())))
    _show("Methods", ["name", "rule", "source"], registry.methods, describe, names)


def _recipes() -> None:
    from ht_bench.methods.recipe import get_recipe, recipe_names

    def describe(name: str) -> list[str]:
        recipe = get_recipe(name)
        return [", ".join(recipe.tasks), ", ".join(recipe.first)] if recipe else ["", ""]

    columns = ["method", "tasks that it has hyperparameters for", "as METHOD@first too"]
    _show("Recipes", columns, registry.recipes, describe, recipe_names())


def _suites() -> None:
    from ht_bench.streams.suite import get_suite, suite_names

    def describe(name: str) -> list[str]:
        suite = get_suite(name)
        return [suite.title, ", ".join(suite.tasks)]

    columns = ["name", "what it scores", "tasks"]
    _show("Suites", columns, registry.suites, describe, suite_names())


def _data() -> None:
    from ht_bench.streams.data import known

    rows = [[entry.name, entry.description, "yes" if entry.cached else "no"] for entry in known()]
    _print("Data", ["name", "what it is", "here"], rows)


def _plain(title: str, things: Registry) -> Callable[[], None]:
    """Return what shows things that have a name and no more; one from outside is loaded."""

    def describe(name: str) -> list[str]:
        if things.is_from_outside(name):
            things.get(name)
        return []

    return lambda: _show(title, ["name"], things, describe)
