"""Pictures of rankings: the entries of one table, and of several suites side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ht_bench.errors import UsageError
from ht_bench.ranking.comparison import Comparison, Table
from ht_bench.ranking.pairs import FULL_RESET, HARE_TORTOISE, NONE
from ht_bench.ranking.rows import Row
from ht_bench.ranking.score import Estimate
from ht_bench.views import style
from ht_bench.views.style import HIGHLIGHT, INK, PLAIN, QUIET
from ht_bench.views.text import format_estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes


Scores = Sequence[tuple[Row, Estimate]]


def ranking_figure(
    comparison: Comparison, path: Path, table: Table | None = None
) -> tuple[Path, Path]:
    """Draw gap closed with its interval for each row of a table, best on top.

    table: one of the comparison's; by default its first (a suite, where there is one). Entries
    that are not ranked have open dots. Returns the paths of the PNG and the SVG; raises UsageError
    if no row has a finite gap closed.
    """
    shown = table or comparison.tables[0]
    scores = _scores(shown)
    if not scores:
        raise UsageError(
            f"There is no gap closed to draw for '{shown.name}': it needs {NONE} and {FULL_RESET}, "
            "the latter surely better."
        )
    names = [_name(row) for row, _ in scores]
    margins = style.Margins(left=style.room(names) + 0.35, right=1.9, above=0.98)
    width = margins.left + margins.right + 4.7
    with style.canvas(width, 1.56 + 0.29 * len(scores), margins) as figure:
        axes = figure.subplots()
        low, high = style.gap_view([(gap.low, gap.value, gap.high) for _, gap in scores])
        axes.set_xlim(low, high)
        axes.set_ylim(len(scores) - 0.4, -0.6)
        _references(axes)
        for place, (row, gap) in enumerate(scores):
            _dot(axes, place, row, gap)
        _row_labels(axes, scores)
        axes.set_xlabel("gap closed")
        style.heading(figure, _ranking_title(shown), _ranking_subtitle(shown))
        return style.save(figure, path)


def suites_figure(tables: Sequence[Table], path: Path) -> tuple[Path, Path]:
    """Draw gap closed on several suites side by side, a row per method and a panel per suite.

    Methods stand in the order of the first suite, those that lack it after the others. Returns the
    paths of the PNG and the SVG; raises UsageError if no suite has a finite gap closed.
    """
    shown = [(table, scores) for table in tables if (scores := _scores(table))]
    if not shown:
        raise UsageError(f"There is no gap closed to draw: it needs {NONE} and {FULL_RESET}.")
    rows = {row.label: row for _, scores in shown for row, _ in scores}
    margins = style.Margins(left=style.room(rows) + 0.2, right=0.2, above=1.25)
    width = margins.left + margins.right + 1.75 * len(shown)
    with style.canvas(width, 1.8 + 0.23 * len(rows), margins) as figure:
        panels = figure.subplots(1, len(shown), squeeze=False, gridspec_kw={"wspace": 0.09})[0]
        for axes, (table, scores) in zip(panels, shown, strict=True):
            _panel(axes, table, scores, list(rows))
        _name_rows(panels[0], [*rows], [*rows.values()])
        figure.supxlabel("gap closed", y=0.12 / figure.get_figheight(), size=9.5, color=INK)
        seeds = style.count([len(s) for table, _ in shown for s in table.seeds.values()])
        subtitle = (
            f"interquartile mean over runs ({seeds} per task), 95 % intervals\n"
            f"dashed: {NONE} (0) and {FULL_RESET} (1); each suite has its own scale"
        )
        style.heading(figure, f"Gap closed on {len(shown)} suites", subtitle)
        return style.save(figure, path)


def _scores(table: Table) -> Scores:
    """Return the rows of a table that have a finite gap closed, the highest first."""
    scores = [(row, row.gap_closed) for row in table.rows if row.gap_closed is not None]
    finite = [(row, gap) for row, gap in scores if math.isfinite(gap.value)]
    return sorted(finite, key=lambda pair: -pair[1].value)


def _panel(axes: Axes, table: Table, scores: Scores, labels: Sequence[str]) -> None:
    axes.set_xlim(style.gap_view([(gap.low, gap.value, gap.high) for _, gap in scores]))
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_yticks(range(len(labels)), [])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    _references(axes, names=False)
    axes.grid(visible=True, axis="y")
    for row, gap in scores:
        _dot(axes, labels.index(row.label), row, gap, size=4.5)
    name = table.name.removeprefix("suite-")
    axes.set_title(f"{name}\n{len(scores)} methods", size=9, color=INK)


def _references(axes: Axes, names: bool = True) -> None:
    axes.grid(visible=False, axis="y")
    for place, color, text in (
        (0, QUIET, NONE),
        (1, INK, FULL_RESET),
    ):
        axes.axvline(place, color=color, linewidth=1.2, linestyle=(0, (4, 2)), zorder=1)
        if not names:
            continue
        axes.annotate(
            text, (place, 1), xycoords=("data", "axes fraction"), xytext=(0, 4),
            textcoords="offset points", ha="center", va="bottom", size=8.5, color=color,
        )  # fmt: skip


def _dot(axes: Axes, place: int, row: Row, gap: Estimate, size: float = 7) -> None:
    color = _color(row)
    low, high = axes.get_xlim()
    ends = max(gap.low, low), min(gap.high, high)
    axes.plot(ends, (place, place), color=color, linewidth=2.2, solid_capstyle="butt", zorder=3)
    for end, edge, marker in ((gap.low, low, "<"), (gap.high, high, ">")):
        if not low <= end <= high:
            axes.plot(
                edge, place, marker, color=color, markersize=size - 1, clip_on=False, zorder=4
            )
    face = color if row.rank is not None else "white"
    axes.plot(
        gap.value, place, "o", markersize=size, color=color, markerfacecolor=face,
        markeredgewidth=1.6, zorder=5,
    )  # fmt: skip


def _name(row: Row) -> str:
    return f"{row.label} ({row.diverged} div.)" if row.diverged else row.label


def _color(row: Row) -> str:
    return {NONE: QUIET, FULL_RESET: INK, HARE_TORTOISE: HIGHLIGHT}.get(row.method, PLAIN)


def _row_labels(axes: Axes, scores: Scores) -> None:
    rows = [row for row, _ in scores]
    _name_rows(axes, [_name(row) for row in rows], rows)
    for place, (row, gap) in enumerate(scores):
        axes.annotate(
            format_estimate(gap).replace("-", "−"), (1, place), xycoords=("axes fraction", "data"),
            xytext=(10, 0), textcoords="offset points", va="center_baseline", size=9,
            color=_color(row),
        )  # fmt: skip


def _name_rows(axes: Axes, names: Sequence[str], rows: Sequence[Row]) -> None:
    axes.set_yticks(range(len(rows)), names)
    axes.tick_params(axis="y", length=0, pad=9)
    axes.spines["left"].set_visible(False)
    for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_color(_color(row))
        tick.set_fontweight("bold" if row.method == HARE_TORTOISE else "normal")


def _ranking_title(table: Table) -> str:
    several = len(table.tasks) > 1
    return f"{table.name}: the runs of {len(table.tasks)} tasks" if several else table.name


def _ranking_subtitle(table: Table) -> str:
    seeds = style.count([len(seeds) for seeds in table.seeds.values()])
    per_task = " per task" if table.is_suite else ""
    text = f"gap closed, interquartile mean over runs ({seeds}{per_task}), 95 % intervals"
    if any(row.rank is None for row in table.rows):
        text += "; open: not ranked"
    if table.admission is not None and not table.admission.passes:
        text += f"\n{FULL_RESET} over {NONE}: {table.admission.verdict}, so the ratio is rough"
    return text
