"""`ht_bench.compare`: the rows of `ht-bench compare`, in a program or a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ht_bench.errors import UsageError, shown
from ht_bench.ranking import comparison as ranking
from ht_bench.ranking.entries import TaskInfo
from ht_bench.streams.suite import Suite, get_suite
from ht_bench.views import text

if TYPE_CHECKING:
    from ht_bench.running.result import Result


class Compared(Sequence[dict[str, Any]]):
    """The rows of a comparison, best first within each table; `print` shows the tables.

    A row is a dict with the columns of `ht-bench compare --format csv`: `table` (a suite or a
    task), `split`, `precision`, `device`, `benchmark`, `label`, `method`, `rank` (None: not
    ranked), `n` (seeds), `missing`, `diverged`, `gap_closed` and `metric` with the ends of their
    95 % intervals in `…_low` and `…_high`, `area`, `retention`, `wall_time` and `peak_memory`
    (relative to `none`), and more. None is what is not known. `pandas.DataFrame(list(rows))` makes
    a table of them.

    tables: the tables with their rows as objects. notes: what was left out, and why.
    """

    def __init__(self, comparison: ranking.Comparison) -> None:
        self._comparison = comparison
        self.tables, self.notes = comparison.tables, comparison.notes
        self._rows = text.flat_rows(comparison)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        """Return a row, or a list of some."""
        return self._rows[index]

    def __len__(self) -> int:
        """Return how many rows there are in all tables."""
        return len(self._rows)

    def __str__(self) -> str:
        """Return what `ht-bench compare` prints."""
        return text.to_text(self._comparison)

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return text.to_markdown(self._comparison)

    def to_csv(self) -> str:
        """Return the rows as CSV."""
        return text.to_csv(self._comparison)

    def to_json(self) -> str:
        """Return everything as JSON."""
        return text.to_json(self._comparison)


def compare(
    runs: str | Path | Result | Iterable[Result] = "runs", *, suite: str | Path | Suite = ""
) -> Compared:
    """Rank methods: gap closed and metric with intervals, time.

    Args:
        runs: a folder that `ht-bench run --out` or `evaluate(…, out=)` filled, or results of
            `evaluate`, of any tasks.
        suite: score this suite only: its name, TOML file or Suite. Of a folder every known suite is
            scored that has all of its runs.

    Returns:
        The rows of all tables; `str()` shows the tables.

    Raises:
        UsageError: where there are no runs, and for runs that do not compare.

    """
    if isinstance(runs, str | Path):
        return Compared(ranking.compare_folder(Path(runs).expanduser(), suite, scored=True)[0])
    results: list[Any] = [runs] if hasattr(runs, "records") else list(runs)
    for each in results:
        if not hasattr(each, "records"):
            raise UsageError(f"{shown(each)} is no result of `ht_bench.evaluate`, and no folder.")
    found = get_suite(suite) if suite else None
    suites = {found.name: found.tasks} if found else None
    records = [record for each in results for record in each.records]
    infos = {each.task.name: _info(each) for each in results}
    return Compared(ranking.compare(records, infos, suites=suites))


def _info(result: Result) -> TaskInfo:
    task, first = result.task, result.records[0]
    random = first["reference"]["random"] if "reference" in first else None
    return TaskInfo(task.name, task.family, first["classes"], task.seeds, task.sha256, random)
