"""ht-bench compare: rank the methods of a runs folder."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ht_bench.files import make_folder

if TYPE_CHECKING:
    from ht_bench.ranking.comparison import Comparison
    from ht_bench.ranking.entries import Groups, TaskInfo


def compare(
    runs: Annotated[Path, tyro.conf.Positional] = Path("runs"),
    suite: str = "",
    format: Literal["table", "markdown", "json", "csv"] = "table",
    details: bool = False,
    figures: Path | None = None,
) -> int:
    """Rank the methods of a runs folder: gap closed and metric with intervals, time.

    Example: ht-bench compare runs --figures figures.

    Args:
        runs: the folder that `ht-bench run --out` filled.
        suite: score this suite only, by its name or TOML file.
        format: table (terminal), markdown, json or csv; the last two hold all numbers.
        details: also probabilities of improvement, other statistics, area, memory.
        figures: also draw learning curves and the ranking, PNG and SVG, in this folder.

    """
    from ht_bench.ranking.comparison import compare_folder
    from ht_bench.views import text

    comparison, groups, infos = compare_folder(runs, suite, scored=True)
    if format in ("json", "csv"):
        shown = text.to_json(comparison) if format == "json" else text.to_csv(comparison)
    else:
        render = text.to_text if format == "table" else text.to_markdown
        shown = render(comparison, details=details)
    print(shown, end="")
    if figures is not None:
        written = draw(comparison, groups, infos, make_folder(figures))
        print(f"Figures: {', '.join(map(str, written))}", file=sys.stderr)
    return 0


def draw(
    comparison: Comparison, groups: Groups, infos: Mapping[str, TaskInfo], folder: Path
) -> list[Path]:
    """Draw the ranking of every table and the learning curves of every task; returns the PNGs."""
    from ht_bench.records.metrics import metric_key
    from ht_bench.views.figures import curves_figure, ranking_figure

    written = []
    for table in comparison.tables:
        name = table.name.replace(" ", "-").replace(",", "")
        if len(groups) > 1:
            name += f"-{table.setting.split}-{table.setting.precision}-{table.setting.device}"
        if any(row.gap_closed and math.isfinite(row.gap_closed.value) for row in table.rows):
            path = folder / f"ranking-{name}"
            written.append(ranking_figure(comparison, path, table)[0])
        if not table.is_suite:
            entries = groups[table.setting][table.name]
            curves = {label: list(entry.records.values()) for label, entry in entries.items()}
            key = metric_key(infos[table.name].family)
            path = folder / f"curves-{name}"
            written.append(curves_figure(curves, table.name, key, path)[0])
    return written
