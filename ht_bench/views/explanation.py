"""What goes with the accuracy after a boundary: as text, JSON, CSV, and as a picture."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

from ht_bench.ranking.estimate import Estimate
from ht_bench.ranking.explaining import Explained, Explanation
from ht_bench.ranking.score import DRAWS
from ht_bench.views import style
from ht_bench.views.style import INK, PLAIN, QUIET
from ht_bench.views.text import WIDTH, finite, folded, format_estimate

HEADS = {
    "overall": "overall",
    "same_boundary": "same boundary",
    "same_method": "same method too",
}
COLUMNS = tuple(HEADS)
LEGEND = (
    f"Spearman's rank correlations [95 % interval from {DRAWS:,} bootstrap draws of methods and "
    "seeds] between a diagnostic at a phase's end and what the next phase reached. Above 0: more "
    "of one goes with more of the other. overall: all runs and boundaries, n of them. same "
    "boundary: between runs at one boundary. same method too: between seeds of one method at one "
    "boundary.",
    "A correlation overall, or at the same boundary, may come from what methods do by other ways; "
    "one that is gone with the same method does not explain why a seed fails. None says what "
    "causes what. Of twenty intervals at 95 % one misses 0 by chance.",
)


def to_text(
    explanations: Sequence[Explanation], notes: Sequence[str] = (), width: int = WIDTH
) -> str:
    """Return one aligned table per task, its notes below it, and the legend at the end."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid

    console = Console(
        file=io.StringIO(), width=width, color_system=None, markup=False, highlight=False,
        emoji=False, legacy_windows=False,
    )  # fmt: skip
    with console.capture() as capture:
        for each in explanations:
            console.print(folded(f"{each.task} ({each.setting}): {each.target}", width))
            grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
            grid.add_column("diagnostic", overflow="fold")
            columns = [c for c in COLUMNS if each.boundaries > 1 or c != "same_boundary"]
            for name in ("n", *(HEADS[column] for column in columns)):
                grid.add_column(name, justify="right", no_wrap=True)
            for row in each.rows:
                cells = [format_estimate(getattr(row, column)) for column in columns]
                grid.add_row(row.key, str(row.n), *cells)
            console.print()
            console.print(grid)
            console.print()
            for line in (_caption(each), *each.notes):
                console.print(folded(line, width), soft_wrap=True)
            console.print()
        for line in (*notes, *LEGEND):
            console.print(folded(line, width), soft_wrap=True)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def to_json(explanations: Sequence[Explanation], notes: Sequence[str] = ()) -> str:
    """Return everything as JSON; null where a number does not exist."""
    content = {"tasks": [dataclasses.asdict(each) for each in explanations], "notes": list(notes)}
    return json.dumps(finite(content), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def to_csv(explanations: Sequence[Explanation]) -> str:
    """Return one line per task and diagnostic; an interval's ends stand in _low and _high."""
    lines = [_line(each, row) for each in explanations for row in each.rows]
    target = io.StringIO()
    writer = csv.DictWriter(target, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return target.getvalue()


def explanation_figure(each: Explanation, path: Path) -> tuple[Path, Path]:
    """Draw each diagnostic's correlations, the strongest on top; returns the PNG and the SVG.

    Filled: overall; open: with the same boundary and method.
    """
    shown = [row for row in each.rows if math.isfinite(row.overall.value)]
    margins = style.Margins(left=style.room([row.key for row in shown]) + 0.35, right=1.6)
    with style.canvas(margins.left + 6.4, 1.56 + 0.33 * len(shown), margins) as figure:
        axes = figure.subplots()
        axes.set_xlim(-1.02, 1.02)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.axvline(0, color=INK, linewidth=1.1, zorder=1)
        for place, row in enumerate(shown):
            for estimate, shift, color, face in (
                (row.overall, -0.13, PLAIN, PLAIN),
                (row.same_method, 0.17, QUIET, "white"),
            ):
                if math.isfinite(estimate.value):
                    height = place + shift
                    axes.plot(
                        (estimate.low, estimate.high), (height, height), color=color, linewidth=2
                    )
                    axes.plot(
                        estimate.value, height, "o", markersize=6, color=color,
                        markerfacecolor=face, markeredgewidth=1.5, zorder=5,
                    )  # fmt: skip
            axes.annotate(
                format_estimate(row.overall).replace("-", "−"), (1, place),
                xycoords=("axes fraction", "data"), xytext=(10, 0), textcoords="offset points",
                va="center_baseline", size=9, color=INK,
            )  # fmt: skip
        axes.set_yticks(range(len(shown)), [row.key for row in shown])
        axes.tick_params(axis="y", length=0, pad=9)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("rank correlation")
        subtitle = f"with {each.target}; filled: overall, open: same boundary and method"
        style.heading(figure, each.task, subtitle)
        return style.save(figure, path)


def _caption(each: Explanation) -> str:
    return (
        f"{len(each.methods)} method(s) ({', '.join(each.methods)}), {each.seeds} seed(s), "
        f"{each.boundaries} {'boundary' if each.boundaries == 1 else 'boundaries'}."
    )


def _line(each: Explanation, row: Explained) -> dict[str, object]:
    line: dict[str, object] = {"task": each.task, **dataclasses.asdict(each.setting)}
    line |= {"target": each.target, "diagnostic": row.key, "n": row.n}
    for column in COLUMNS:
        estimate: Estimate = getattr(row, column)
        for name, value in dataclasses.asdict(estimate).items():
            key = column if name == "value" else f"{column}_{name}"
            line[key] = None if math.isnan(value) else value
    return line
