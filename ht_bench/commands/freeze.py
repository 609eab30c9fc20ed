"""ht-bench freeze: release a suite (for maintainers)."""

from __future__ import annotations

from pathlib import Path

from ht_bench.commands.naming import words
from ht_bench.errors import UsageError
from ht_bench.files import folder, is_shipped


def freeze(
    suite: str, task: str, title: str, runs: Path = Path("runs"), out: Path | None = None
) -> int:
    """Release a suite: write its tasks and the anchors' results per seed to a file, once.

    A suite of your own may hold tasks of your own: name their files.

    Every task must pass the admission rule on all of its evaluation seeds.
    Example: ht-bench freeze --suite suite-core-v2 --title "…" --task a-v1,b-v1 --runs runs.

    Args:
        suite: the new suite's name, suite-…-vN.
        task: its tasks, by name or TOML file, separated by commas.
        title: what it scores, in a few words.
        runs: the folder with `none` and `full-reset` on every task.
        out: the folder for the file; the present one, or tasks/ where that is this repository's.

    """
    from ht_bench.running.freeze import freeze as write

    names = words(task)
    if not suite.startswith("suite-"):
        raise UsageError(f"--suite {suite}: a suite's name begins with 'suite-'.")
    if not title.strip():
        raise UsageError('Say what the suite scores: --title "…".')
    if not names:
        raise UsageError("Name the suite's tasks: --task a-v1,b-v1.")
    shipped = folder("tasks")
    in_checkout = Path("tasks").resolve() == shipped and not is_shipped(shipped)
    place = out or (Path("tasks") if in_checkout else Path())
    if is_shipped(place):
        raise UsageError(f"--out {place} is an installed package's; name a folder of your own.")
    path = write(runs, suite, title, names, place)
    named = suite if path.parent.resolve() == shipped else path
    print(f"Wrote {path}; next: ht-bench run --suite {named} --method all")
    return 0
