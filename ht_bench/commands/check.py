"""ht-bench check: whether a method or a task of one's own keeps the contract."""

from __future__ import annotations

import sys
from collections.abc import Callable

from ht_bench.commands.naming import words
from ht_bench.errors import UsageError


def check(method: str = "", task: str = "") -> int:
    """Check methods and tasks of your own against what the benchmark takes for granted.

    A method is trained for a dozen steps on small networks, on a lone one and on a stack of seeds,
    past a change of the data: hooks, checkpoints, seeds that must not mix, weights that must move.
    A task's data, network, environments and first steps are tried. Takes seconds.

    Example: ht-bench check --method my_method.py:MyMethod --task my_task.toml

    Args:
        method: names, file.py:Class or TOML files of recipes, separated by commas.
        task: names or TOML files of tasks, separated by commas.

    """
    if not (method or task):
        raise UsageError("Name what to check: --method file.py:Class, --task file.toml, or both.")
    from ht_bench.testing import check_method, check_task

    checks: tuple[tuple[str, Callable[[str], None], str], ...] = (
        (method, check_method, "keeps the contract of a method"),
        (task, check_task, "can be run"),
    )
    failed = 0
    for names, checker, kept in checks:
        for name in words(names):
            try:
                checker(name)
            except AssertionError as error:
                print(f"{name}: {error}", file=sys.stderr)
                failed += 1
            else:
                print(f"{name} {kept}.")
    return 1 if failed else 0
