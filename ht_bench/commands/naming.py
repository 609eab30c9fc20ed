"""What a command line names: tasks, suites and methods, by name, file or reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ht_bench.errors import UsageError

if TYPE_CHECKING:
    from ht_bench.streams.suite import Suite
    from ht_bench.streams.task import AnyTask


def words(text: str) -> tuple[str, ...]:
    """Return what stands between the commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def find_tasks(task: str, suite: str) -> list[AnyTask]:
    """Return the tasks named by --task and --suite; raises UsageError when there is none."""
    from ht_bench.streams.catalog import get_task
    from ht_bench.streams.suite import get_suite

    names = [*words(task), *(name for each in words(suite) for name in get_suite(each).tasks)]
    if not names:
        raise UsageError(
            "Name a task or a suite: --task warm-start-digits-v1 or --suite suite-core-v1."
        )
    return [get_task(name) for name in dict.fromkeys(names)]


def find_methods(method: str) -> list[str]:
    """Return the methods named by --method; "all" stands for every recipe, and every plug-in's."""
    from ht_bench import registry
    from ht_bench.methods.recipe import recipe_names

    names = words(method)
    if not names:
        raise UsageError("Name a method: --method none,full-reset,hare-tortoise, or --method all.")
    every = [*recipe_names(), *registry.methods.names()]
    found = [each for name in names for each in (every if name == "all" else [name])]
    return list(dict.fromkeys(found))


def own_suites(task: str, suite: str) -> list[Suite]:
    """Make the tasks of --task and --suite known by name; returns the suites."""
    from ht_bench.streams.catalog import adopt_task
    from ht_bench.streams.suite import get_suite

    for name in words(task):
        adopt_task(name)
    return [get_suite(name) for name in words(suite)]
