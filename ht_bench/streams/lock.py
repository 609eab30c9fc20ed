"""The lock: the hash of every released task, so that none changes unnoticed.

`python -m ht_bench.streams.lock` adds a line for each task that is newly released.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ht_bench.errors import UsageError
from ht_bench.files import folder, write_atomically
from ht_bench.streams.spec import Spec
from ht_bench.streams.tables import read_toml
from ht_bench.streams.task import load_task

LOCK = "LOCK.toml"
_HEAD = (
    "# The hash of each released task. Add lines with: python -m ht_bench.streams.lock\n[tasks]\n"
)


def read_lock(tasks: Path) -> dict[str, str]:
    """Return task name → released hash; raises UsageError for a malformed lock."""
    path = tasks / LOCK
    if not path.is_file():
        return {}
    locked = read_toml(path, "restore the file").get("tasks", {})
    if not isinstance(locked, dict):
        raise UsageError(f"{path}: 'tasks' must be a table of hashes; restore the file.")
    return {str(name): str(sha256) for name, sha256 in locked.items()}


def check_lock(task: Spec, path: Path) -> None:
    """Raise UsageError if a released task differs from its line in the lock beside it, or has none.

    A task whose status is "draft" may change until it has a line.
    """
    released = read_lock(path.parent).get(task.name)
    if released is None and task.status == "draft":
        return
    if released is None:
        raise UsageError(
            f'{path} is not in {LOCK}: give it status = "draft", or release it with '
            "`python -m ht_bench.streams.lock`."
        )
    if released != task.sha256:
        raise UsageError(
            f"{path} differs from its released version (sha256 {task.sha256[:12]}…, released "
            f"{released[:12]}…): restore the file, or release the change under a new name."
        )


def add_lines(tasks: Path) -> list[str]:
    """Lock every released task that has no line yet; returns their names.

    Raises UsageError, changing nothing, if a locked task has changed.
    """
    locked = read_lock(tasks)
    added = []
    for path in sorted(tasks.glob("*.toml")):
        if path.name == LOCK or path.stem.startswith("suite-"):
            continue
        task = load_task(path)
        if task.name in locked:
            check_lock(task, path)
        elif task.status != "draft":
            locked[task.name] = task.sha256
            added.append(task.name)
    lines = [f'{name} = "{locked[name]}"\n' for name in sorted(locked)]
    if added:
        write_atomically(tasks / LOCK, _HEAD + "".join(lines))
    return added


def main() -> int:
    """Add lines for newly released tasks; returns the exit code."""
    try:
        added = add_lines(folder("tasks"))
    except UsageError as error:
        print(f"ht-bench: {error}", file=sys.stderr)
        return 2
    print(f"Locked: {', '.join(added)}." if added else "Every released task is locked already.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
