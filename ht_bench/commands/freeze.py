"""ht-bench freeze: release a suite (for maintainers)."""

from __future__ import annotations

from pathlib import Path

from ht_bench.errors import UsageError


def freeze(
    suite: str, task: str, title: str, runs: Path = Path("runs"), out: Path = Path("tasks")
) -> int:
    """Release a suite: write its tasks and the anchors' results per seed to a file, once.

    Every task must pass the admission rule on all of its evaluation seeds.
    Example: ht-bench freeze --suite suite-core-v2 --title "…" --task a-v1,b-v1 --runs runs.

    Args:
        suite: the new suite's name, suite-…-vN.
        task: its tasks, separated by commas.
        title: what it scores, in a few words.
        runs: the folder with `none` and `full-reset` on every task.
        out: the folder for the file.

    """
    from ht_bench.running.freeze import freeze as write

    names = [name.strip() for name in task.split(",") if name.strip()]
    if not suite.startswith("suite-"):
        raise UsageError(f"--suite {suite}: a suite's name begins with 'suite-'.")
    if not names:
        raise UsageError("Name the suite's tasks: --task a-v1,b-v1.")
    path = write(runs, suite, title, names, out)
    print(f"Wrote {path}; next: ht-bench run --suite {suite} --method all")
    return 0
