"""ht-bench list: what there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import tyro

Kind = Literal["all", "tasks", "methods", "suites", "data"]


def list_things(kind: Annotated[Kind, tyro.conf.Positional] = "all") -> int:
    """Show the tasks, methods, suites and datasets by name.

    Example: ht-bench list tasks

    Args:
        kind: what to show.

    """
    shown = {"tasks": _tasks, "methods": _methods, "suites": _suites, "data": _data}
    for name, show in shown.items():
        if kind in ("all", name):
            show()
    return 0


def _print(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, no_wrap=index == 0)
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console()
    console.print(table)
    console.print()


def _tasks() -> None:
    from ht_bench.streams.catalog import get_task, task_names

    rows = []
    for name in task_names():
        task = get_task(name)
        mark = " [draft]" if task.status == "draft" else ""
        if task.superseded_by:
            mark = f" [superseded by {task.superseded_by}]"
        rows.append([name, f"{task.title} ({task.learner}){mark}"])
    _print("Tasks", ["name", "what it is (network or agent)"], rows)


def _methods() -> None:
    from ht_bench import registry
    from ht_bench.methods.recipe import get_recipe

    rows = []
    for name in registry.methods.names():
        recipe = get_recipe(name)
        rows.append([name, recipe.summary if recipe else "", recipe.source if recipe else ""])
    _print("Methods", ["name", "rule", "source"], rows)


def _suites() -> None:
    from ht_bench.streams.suite import get_suite, suite_files

    suites = [get_suite(name) for name in suite_files()]
    rows = [[suite.name, suite.title, ", ".join(suite.tasks)] for suite in suites]
    _print("Suites", ["name", "what it scores", "tasks"], rows)


def _data() -> None:
    from ht_bench.streams.data import known

    rows = [[entry.name, entry.description, "yes" if entry.cached else "no"] for entry in known()]
    _print("Data", ["name", "what it is", "here"], rows)
