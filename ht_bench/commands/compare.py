"""ht-bench compare: rank the methods of a runs folder, or the entries of a leaderboard."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ht_bench.files import make_folder

if TYPE_CHECKING:
    from ht_bench.ranking.comparison import Comparison, Curves, CurvesOf, Table


def compare(
    runs: Annotated[Path, tyro.conf.Positional] = Path("runs"),
    suite: str = "",
    format: Literal["table", "markdown", "json", "csv"] = "table",
    details: bool = False,
    figures: Path | None = None,
) -> int:
    """Rank the methods of a runs folder: gap closed and metric with intervals, time.

    Example: ht-bench compare runs --figures figures

    Example, a leaderboard's entries, without any runs: ht-bench compare leaderboard --suite
    suite-noisy-start-v1

    Args:
        runs: the folder that `ht-bench run --out` filled, or one of submissions.
        suite: score this suite only, by its name or TOML file.
        format: table (terminal), markdown, json or csv; the last two hold all numbers.
        details: also probabilities of improvement, other statistics, area, memory.
        figures: also draw learning curves and the ranking, PNG and SVG, in this folder.

    """
    from ht_bench.leaderboard.compared import compare_entries, submissions_in
    from ht_bench.views import text

    submissions = submissions_in(runs)
    comparison, curves_of = (
        compare_entries(submissions, suite) if submissions else _compare_runs(runs, suite)
    )
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
    """Draw the ranking of every table and the learning curves of every task; returns the PNGs."""
    from ht_bench.views.figures import curves_figure, ranking_figure

    written = []
    several = len({table.setting for table in comparison.tables}) > 1
    for table in comparison.tables:
        name = table.name.replace(" ", "-").replace(",", "")
        if several:
            name += f"-{table.setting.split}-{table.setting.precision}-{table.setting.device}"
        if any(row.gap_closed and math.isfinite(row.gap_closed.value) for row in table.rows):
            path = folder / f"ranking-{name}"
            written.append(ranking_figure(comparison, path, table)[0])
        if not table.is_suite:
            path = folder / f"curves-{name}"
            curves, key = curves_of(table)
            written.append(curves_figure(curves, table.name, key, path)[0])
    return written
