"""ht-bench compare and ht-bench tensorboard: read a runs folder."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ht_bench.errors import UsageError
from ht_bench.files import make_folder

if TYPE_CHECKING:
    from ht_bench.results.entries import Groups, TaskInfo
    from ht_bench.results.table import Comparison


def compare(
    runs: Annotated[Path, tyro.conf.Positional] = Path("runs"),
    suite: str = "",
    format: Literal["table", "markdown", "json", "csv"] = "table",
    figures: Path | None = None,
) -> int:
    """Rank the methods of a runs folder: gap closed with interval, accuracy, cost.

    Example: ht-bench compare runs --figures figures.

    Args:
        runs: the folder that `ht-bench run --out` filled.
        suite: score this suite only.
        format: table (terminal), markdown, json or csv.
        figures: also draw learning curves and the ranking, PNG and SVG, in this folder.

    """
    from ht_bench.results import render
    from ht_bench.results.folder import compare_folder

    comparison, groups, infos = compare_folder(runs, suite)
    renderers = {
        "table": render.to_text,
        "markdown": render.to_markdown,
        "json": render.to_json,
        "csv": render.to_csv,
    }
    print(renderers[format](comparison), end="")
    if figures is not None:
        written = draw(comparison, groups, infos, make_folder(figures))
        print(f"Figures: {', '.join(map(str, written))}", file=sys.stderr)
    return 0


def draw(
    comparison: Comparison, groups: Groups, infos: Mapping[str, TaskInfo], folder: Path
) -> list[Path]:
    """Draw the ranking of every table and the learning curves of every task; returns the PNGs."""
    from ht_bench.results.figures import curves_figure, ranking_figure
    from ht_bench.results.metrics import metric_key

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


def tensorboard(
    runs: Annotated[Path, tyro.conf.Positional] = Path("runs"),
    port: int = 6006,
    serve: bool = True,
) -> int:
    """Write each method's mean and interval over seeds as runs of their own, and open TensorBoard.

    Example: ht-bench tensorboard runs.

    Args:
        runs: the folder that `ht-bench run --out` filled.
        port: where to serve.
        serve: start TensorBoard; --no-serve only writes the aggregates.

    """
    from ht_bench.results.folder import read_groups
    from ht_bench.results.tracking import write_aggregate

    groups, _, _ = read_groups(runs)
    written = []
    for setting, tasks in groups.items():
        name = f"{setting.split}-{setting.precision}-{setting.device}"
        for task, entries in tasks.items():
            for label, entry in entries.items():
                folder = runs / "aggregate" / name / task / label
                write_aggregate(folder, list(entry.records.values()))
                written.append(folder)
    print(f"{len(written)} aggregate runs under {runs}/aggregate (tab CUSTOM SCALARS: margins).")
    if not serve:
        return 0
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(runs), "--port", str(port)]
    try:
        return subprocess.run(command, check=False).returncode
    except OSError as error:
        raise UsageError(f"TensorBoard did not start: {error}; install tensorboard.") from error
