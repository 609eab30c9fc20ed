"""ht-bench compare: rank the methods of a runs folder, or the entries of a leaderboard."""

from __future__ import annotations

import math
import sys
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ht_bench.errors import UsageError
from ht_bench.files import make_folder

if TYPE_CHECKING:
    from ht_bench.ranking.comparison import Comparison, Curves, CurvesOf, Table


def compare(
    runs: Annotated[Path, tyro.conf.Positional] = Path("runs"),
    board: Annotated[Path | None, tyro.conf.Positional] = None,
    suite: str = "",
    format: Literal["table", "markdown", "json", "csv"] = "table",
    details: bool = False,
    figures: Path | None = None,
) -> int:
    """Rank the methods of a runs folder: gap closed and metric with intervals, time.

    Example: ht-bench compare runs --figures figures

    Example, a leaderboard's entries, without any runs: ht-bench compare leaderboard --suite
    suite-noisy-start-v1

    Example, your own runs among these entries: ht-bench compare runs leaderboard

    Args:
        runs: the folder that `ht-bench run --out` filled, or one of submissions.
        board: a folder of submissions, such as leaderboard, whose entries stand beside the runs.
        suite: score this suite only, by its name or TOML file.
        format: table (terminal), markdown, json or csv; the last two hold all numbers.
        details: also probabilities of improvement, other statistics, area, memory.
        figures: also draw learning curves and rankings, PNG and SVG, in this folder.

    """
    from ht_bench.leaderboard.compared import compare_entries, submissions_in
    from ht_bench.views import text

    submissions = submissions_in(runs)
    if board is not None:
        comparison, curves_of = _compare_beside(runs, board, suite)
    elif submissions:
        comparison, curves_of = compare_entries(submissions, suite)
    else:
        comparison, curves_of = _compare_runs(runs, suite)
    if format in ("json", "csv"):
        shown = text.to_json(comparison) if format == "json" else text.to_csv(comparison)
    else:
        render = text.to_text if format == "table" else text.to_markdown
        shown = render(comparison, details=details)
    print(shown, end="")
    if figures is not None:
        written = draw(comparison, curves_of, make_folder(figures))
        print(f"Figures: {', '.join(map(str, written))}", file=sys.stderr)
    return 0


def _compare_beside(runs: Path, board: Path, suite: str) -> tuple[Comparison, CurvesOf]:
    from ht_bench.leaderboard.compared import compare_entries, submissions_in

    if submissions_in(runs) is not None and submissions_in(board) is None:
        runs, board = board, runs  # in either order
    submissions = submissions_in(board)
    if submissions is None:
        what = f"{board} holds no submissions" if board.is_dir() else f"There is no folder {board}"
        raise UsageError(
            f"{what}; name a folder of runs and one of entries, as in `ht-bench compare runs "
            "leaderboard`."
        )
    return compare_entries(submissions, suite, runs)


def _compare_runs(runs: Path, suite: str) -> tuple[Comparison, CurvesOf]:
    from ht_bench.ranking.comparison import compare_folder
    from ht_bench.records.metrics import metric_key

    comparison, groups, infos = compare_folder(runs, suite, scored=True)

    def curves_of(table: Table) -> Curves:
        entries = groups[table.setting][table.name]
        runs_by_label = {label: [*entry.records.values()] for label, entry in entries.items()}
        return runs_by_label, metric_key(infos[table.name].family)

    return comparison, curves_of


def draw(comparison: Comparison, curves_of: CurvesOf, folder: Path) -> list[Path]:
    """Draw what `compare --figures` draws; returns the PNGs.

    Several suites side by side, the ranking of every table, the learning curves of every task.
    """
    from ht_bench.views.figures import curves_figure
    from ht_bench.views.rankings import ranking_figure, suites_figure

    written = []
    settings = list(dict.fromkeys(table.setting for table in comparison.tables))
    for setting in settings:
        tables = [table for table in comparison.tables if table.setting == setting]
        scored = [table for table in tables if has_gap(table)]
        ending = "-".join(["", *astuple(setting)]) if len(settings) > 1 else ""
        suites = [table for table in scored if table.is_suite]
        if len(suites) > 1:
            written.append(suites_figure(suites, folder / f"ranking-suites{ending}")[0])
        for table in tables:
            name = table.name.replace(" ", "-").replace(",", "") + ending
            if table in scored:
                written.append(ranking_figure(comparison, folder / f"ranking-{name}", table)[0])
            if not table.is_suite:
                curves, key = curves_of(table)
                path = folder / f"curves-{name}"
                written.append(curves_figure(curves, table.name, key, path)[0])
    return written


def has_gap(table: Table) -> bool:
    """Say whether any row of a table has a gap closed to draw."""
    return any(row.gap_closed and math.isfinite(row.gap_closed.value) for row in table.rows)
