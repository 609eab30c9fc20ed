"""Tasks by name or path: the TOML files of `tasks/`, entry points, and a user's own file."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ht_bench import registry
from ht_bench.errors import UsageError, did_you_mean, reason
from ht_bench.files import folder
from ht_bench.streams.lock import check_lock
from ht_bench.streams.spec import Spec
from ht_bench.streams.task import AnyTask, load_task


def task_files() -> dict[str, Path]:
    """Return the shipped task files by task name."""
    place = folder("tasks")
    return dict(_task_files(place, place.stat().st_mtime_ns))


@functools.lru_cache(maxsize=8)
def _task_files(place: Path, changed: int) -> dict[str, Path]:
    # Listed anew when the folder changes: a large leaderboard asks thousands of times.
    files = sorted(place.glob("*.toml"))
    return {f.stem: f for f in files if not f.stem.startswith("suite-") and f.stem != "LOCK"}


def task_names() -> list[str]:
    """Return all task names: shipped, then registered or found by entry point."""
    shipped = list(task_files())
    return shipped + [name for name in registry.tasks.names() if name not in shipped]


def get_task(name: str | Path | AnyTask) -> AnyTask:
    """Return a task by its name, its file's path, or itself.

    An entry point or a registered task is a Task, a path to a TOML file, or a function that
    returns one. Raises UsageError for an unknown name, with the nearest known one.
    """
    if isinstance(name, Spec):
        return name
    if not isinstance(name, str | Path):
        raise UsageError(f"{name!r} is no task; give a name, the path of a TOML file or a Task.")
    if isinstance(name, Path) or name.endswith(".toml"):
        return load_task(Path(name))
    if name in task_files():
        return _shipped(name)
    if name in registry.tasks.names():
        registered = registry.tasks.get(name)
        return get_task(_called(name, registered) if callable(registered) else registered)
    raise UsageError(
        f"Unknown task '{name}'.{did_you_mean(name, task_names())} "
        "`ht-bench list tasks` shows all of them."
    )


def _called(name: str, function: Callable[[], Any]) -> Any:
    try:
        made = function()
    except UsageError:
        raise
    except Exception as error:  # whatever another's function does
        raise UsageError(
            f"The function registered for the task '{name}' failed: {type(error).__name__}: "
            f"{reason(error)}."
        ) from error
    if made == name:  # it would be asked again, for ever
        raise UsageError(f"The function registered for '{name}' returns its own name; no task.")
    return made


@functools.cache
def _shipped(name: str) -> AnyTask:
    path = task_files()[name]
    task = load_task(path)
    if task.name != name:
        raise UsageError(f"{path}: its name is '{task.name}'; file and name must agree.")
    check_lock(task, path)
    return task
