"""Tasks by name or path: the TOML files of `tasks/`, entry points, and a user's own file."""

from __future__ import annotations

import functools
from pathlib import Path

from ht_bench import registry
from ht_bench.errors import UsageError
from ht_bench.files import folder
from ht_bench.streams.lock import check_lock, read_lock
from ht_bench.streams.spec import Spec
from ht_bench.streams.task import AnyTask, load_task


def task_files() -> dict[str, Path]:
    """Return the shipped task files by task name."""
    place = folder("tasks")
    return dict(_task_files(place, place.stat().st_mtime_ns))


registry.tasks.provide(task_files)


@functools.lru_cache(maxsize=8)
def _task_files(place: Path, changed: int) -> dict[str, Path]:
    # Listed anew when the folder changes: a large leaderboard asks thousands of times.
    files = sorted(place.glob("*.toml"))
    return {f.stem: f for f in files if not f.stem.startswith("suite-") and f.stem != "LOCK"}


def task_names() -> list[str]:
    """Return all task names: shipped, then registered or found by entry point."""
    return registry.tasks.names()


def get_task(name: str | Path | AnyTask) -> AnyTask:
    """Return a task by its name, its file's path, "file.py:function", or itself.

    An entry point or a registered task is a Task, a path to a TOML file, or a function that
    returns one. Raises UsageError for an unknown name, with the nearest known one.
    """
    if isinstance(name, Spec):
        return name
    if isinstance(name, Path):
        return _own(name)
    if not isinstance(name, str):
        raise UsageError(f"{name!r} is no task; give a name, the path of a TOML file or a Task.")
    if name in task_files():
        return _shipped(name)
    return get_task(registry.made(registry.tasks, name))


def _own(path: Path) -> AnyTask:
    """Load a task's file; raises UsageError for a released task's name with other content."""
    task = load_task(path)
    released = read_lock(folder("tasks")).get(task.name, task.sha256)
    if released != task.sha256:
        raise UsageError(
            f"{path}: '{task.name}' is the name of a released task, whose content is another; give "
            "this one a name of its own."
        )
    return task


def adopt_task(reference: str | Path | AnyTask) -> AnyTask:
    """Make a user's task known by its own name in this process; returns it.

    For whoever then goes by names: suites, submissions. Raises UsageError where another task has
    the name.
    """
    task = get_task(reference)
    if task.name not in task_names():
        registry.tasks.register(task.name)(task)
    elif get_task(task.name).sha256 != task.sha256:
        raise UsageError(
            f"{reference}: the name '{task.name}' is that of another task; give this one its own."
        )
    return task


@functools.cache
def _shipped(name: str) -> AnyTask:
    path = task_files()[name]
    task = load_task(path)
    if task.name != name:
        raise UsageError(f"{path}: its name is '{task.name}'; file and name must agree.")
    check_lock(task, path)
    return task
