"""What each page of the site shows, ready for its template."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

from markupsafe import Markup

from ht_bench.leaderboard.board import Board, Submitted
from ht_bench.ranking.comparison import Table
from ht_bench.ranking.curves import MeanCurve
from ht_bench.ranking.estimate import Estimate
from ht_bench.ranking.pairs import FULL_RESET, HARE_TORTOISE, NONE, PairedTask
from ht_bench.ranking.rows import PROFILE_THRESHOLDS, Row
from ht_bench.records.metrics import describe_metric, metric_key
from ht_bench.streams.seeds import format_seeds
from ht_bench.views import charts
from ht_bench.views.charts import Bar, Dot, Line
from ht_bench.views.related import related
from ht_bench.views.text import format_estimate

GENERALIZATION = {
    "suite-core-v1": "suite-trainability-v1",
    "suite-noisy-start-v1": "suite-trainability-v2",
    "suite-clean-start-v1": "suite-trainability-v2",
    "suite-shift-v1": "suite-trainability-v2",
    "suite-images-small-v1": "suite-trainability-v2",
}
"""Suites of generalization, each with the one of trainability that it is drawn against."""
COLOURS = 8
MOST_ENDS = 12
"""Columns of a task's table of curves; of a longer stream the last phases are shown."""


@dataclass(frozen=True)
class Picture:
    """A scatter with its words and the numbers behind it; it is shown with its suite's tab."""

    suite: str
    title: str
    words: str
    axes: tuple[str, str]
    dots: tuple[Dot, ...]
    svg: Markup


@dataclass(frozen=True)
class Glance:
    """Every entry's row in every suite, None where it has none; the first suite's order.

    alike: of each further suite that shares enough methods with the first, its scores' rank
    correlation with the first one's, and the methods' number.
    """

    suites: tuple[Table, ...]
    entries: Mapping[str, tuple[Row | None, ...]]
    alike: tuple[tuple[Table, Estimate, int], ...]


def boundaries(board: Board, name: str) -> str:
    """Return the mark that the filter looks for."""
    return "yes" if board.entries[name].needs_boundaries else "no"


# ---- the index ----


def index_view(board: Board) -> dict[str, Any]:
    """Return what index.html shows."""
    suites = [(table, *_gap_charts(board, table, i)) for i, table in enumerate(board.suites)]
    families = sorted({known.task.family for known in board.known.values()})
    pictures = _pictures(board)
    return {
        "board": board,
        "suites": suites,
        "families": families,
        "pictures": pictures,
        "glance": _glance(board) if len(board.suites) > 1 else None,
    }


def _glance(board: Board) -> Glance:
    rows = [{row.label: row for row in table.rows} for table in board.suites]
    names = dict.fromkeys(name for by_name in rows for name in by_name)
    entries = {name: tuple(by_name.get(name) for by_name in rows) for name in names}
    first, *others = board.suites
    found = [(table, related(board, first, table)) for table in others]
    alike = tuple((table, *each) for table, each in found if each is not None)
    return Glance(board.suites, entries, alike)


def _gap_charts(board: Board, table: Table, index: int) -> tuple[Markup, Markup]:
    """Return the chart for a desk's screen and that for a phone's."""
    bars = [
        Bar(row.label, *ends, boundaries(board, row.label), row.bands)
        for row in table.rows
        if (ends := _ends(row)) is not None
    ]
    title = f"Gap closed on {table.name}"
    return (
        charts.gap_chart(bars, title, f"gap-{index}"),
        charts.gap_chart(bars, title, f"gap-{index}-narrow", narrow=True),
    )


def _ends(row: Row) -> tuple[float, float, float] | None:
    """Return gap closed and its interval, where it is a number."""
    gap = row.gap_closed
    return None if gap is None or math.isnan(gap.value) or math.isinf(gap.value) else astuple(gap)


def _pictures(board: Board) -> list[Picture]:
    tables = {table.name: table for table in board.suites}
    pictures = [_cost(board, table, f"cost-{i}") for i, table in enumerate(board.suites)]
    pictures += [
        _two_scores(board, tables[suite], tables[trainability])
        for suite, trainability in GENERALIZATION.items()
        if suite in tables and trainability in tables
    ]
    return [picture for picture in pictures if picture.dots]


def _cost(board: Board, table: Table, name: str) -> Picture:
    dots = tuple(
        Dot(row.label, row.wall_time, *ends, boundaries(board, row.label))
        for row in table.rows
        if row.wall_time is not None and not row.other_machine and (ends := _ends(row)) is not None
    )
    title = f"Score against cost: {table.name}"
    words = (
        "Gap closed against wall time relative to none. Up and to the left is better. Times are "
        "rough: runs had others beside them."
    )
    if left := sum(row.wall_time is not None and row.other_machine for row in table.rows):
        words += f" Left out: {left} method(s) that were timed on another machine than none."
    axes = ("time relative to none", "gap closed")
    return _picture(table.name, title, words, axes, dots, name)


def _two_scores(board: Board, suite: Table, trainability: Table) -> Picture:
    other = {row.label: ends[0] for row in trainability.rows if (ends := _ends(row)) is not None}
    dots = tuple(
        Dot(row.label, other[row.label], *ends, boundaries(board, row.label))
        for row in suite.rows
        if row.label in other and (ends := _ends(row)) is not None
    )
    words = (
        "Trainability is the accuracy reached on new random labels. Lee et al. (2024) hold that "
        "keeping it does not bring generalization: were the two one thing, the points would lie "
        "on a rising line."
    )
    if found := related(board, suite, trainability):
        words += (
            f" Over {found[1]} methods the rank correlation (Spearman) is "
            f"{format_estimate(found[0])}, methods and seeds resampled."
        )
    axes = (f"{trainability.name}: gap closed", f"{suite.name}: gap closed")
    name = f"two-{suite.name}"
    title = f"Generalization against trainability: {suite.name}"
    return _picture(suite.name, title, words, axes, dots, name)


def _picture(
    suite: str, title: str, words: str, axes: tuple[str, str], dots: tuple[Dot, ...], name: str
) -> Picture:
    drawn = [_within(dot) for dot in dots]
    svg = charts.scatter(drawn, title, axes, name, (0.0, 1.0)) if dots else Markup("")
    return Picture(suite, title, words, axes, dots, svg)


def _within(dot: Dot) -> Dot:
    """Return the dot with an interval that is drawn only where it is finite."""
    low, high = dot.low, dot.high
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return Dot(dot.label, dot.x, dot.y, None, None, dot.boundaries)
    return dot


# ---- a method ----


def method_view(board: Board, entry: Submitted) -> dict[str, Any]:
    """Return what a method's page shows."""
    tables = [*board.suites, *board.tasks]
    standings = [
        {"table": table, "row": row, "above": _above(row)}
        for table in tables
        for row in table.rows
        if row.label == entry.name
    ]
    parts = [
        _part(board, table, entry, index)
        for index, table in enumerate(board.tasks)
        if table.name in entry.tasks
    ]
    return {"entry": entry, "standings": standings, "parts": parts}


def _above(row: Row) -> tuple[float, ...] | None:
    """Return the shares of runs above `none` and above `full-reset`."""
    profile = row.profile
    return profile and tuple(profile[PROFILE_THRESHOLDS.index(x)] for x in (0.0, 1.0))


def _part(board: Board, table: Table, entry: Submitted, index: int) -> dict[str, Any]:
    own = entry.tasks[table.name]
    runs, curve, key = own.runs, own.curve, metric_key(own.known.task.family)
    others = {
        name: other.curve
        for name in (NONE, FULL_RESET)
        if name != entry.name
        and name in board.entries
        and (other := board.entries[name].tasks.get(table.name)) is not None
        and other.curve is not None
    }
    svg = None
    if curve is not None:
        lines = [Line(entry.name, curve, "own", band=True)]
        lines += [Line(name, other, name) for name, other in others.items()]
        svg = charts.curves(lines, f"{entry.name} on {table.name}", key, f"curve-{index}")
    return {
        "name": table.name,
        "title": board.titles[table.name],
        "table": table,
        "svg": svg,
        "others": list(others),
        "n": curve.n if curve else 0,
        "ends": _ends_of_phases(curve) if curve else [],
        "seeds": runs.seeds,
        "final": runs.final.tolist(),
        "words": own.words,
        "seconds": runs.seconds.mean(),
        "memory": runs.memory.mean(),
        "diverged": int(runs.diverged.sum()),
    }


def _ends_of_phases(curve: MeanCurve) -> list[tuple[int, float, float, float]]:
    columns = (curve.steps, curve.mean, curve.low, curve.high)
    return list(zip(*(column[curve.ends].tolist() for column in columns), strict=True))


# ---- a task ----


def task_view(board: Board, table: Table) -> dict[str, Any]:
    """Return what a task's page shows."""
    known, pair = board.known[table.name], board.pairs[table.name]
    task = known.task
    lines = _lines(board, table)
    svg = None
    if lines:
        drawn = sorted(lines, key=lambda line: line.style != "quiet")
        title = f"All methods on {table.name}"
        svg = charts.curves(drawn, title, metric_key(task.family), "curves")
    ends: list[int] = lines[0].curve.ends[-MOST_ENDS:].tolist() if lines else []
    return {
        "board": board,
        "table": table,
        "task": task,
        "anchors": _anchors(pair),
        "frozen": table.name in board.frozen,
        "metric_words": describe_metric(task.family),
        "seeds": format_seeds(task.seeds),
        "spec": _spec(task.canonical()),
        "lines": lines,
        "svg": svg,
        "ends_cut": bool(lines) and len(lines[0].curve.ends) > MOST_ENDS,
        "end_steps": lines[0].curve.steps[ends].tolist() if lines else [],
        "end_rows": [(line.label, line.curve.mean[ends].tolist()) for line in lines],
    }


def _anchors(pair: PairedTask) -> dict[str, list[float]] | None:
    if not pair.anchored:
        return None
    return {
        method: [pair.anchors[method][seed] for seed in pair.seeds] for method in (NONE, FULL_RESET)
    }


def _lines(board: Board, table: Table) -> list[Line]:
    """Return every method's curve; anchors, Hare & Tortoise and the leaders stand out."""
    lines = []
    free = iter(f"c{index}" for index in range(3, COLOURS))
    for row in table.rows:
        curve = board.entries[row.label].tasks[table.name].curve
        if curve is not None:
            style = {NONE: NONE, FULL_RESET: FULL_RESET, HARE_TORTOISE: "own"}.get(
                row.label
            ) or next(free, "quiet")
            lines.append(Line(row.label, curve, style))
    return lines


def _spec(canonical: Mapping[str, Any]) -> str:
    """Write a task's spec, a line per key and per phase; equal phases in a row are counted."""
    lines = []
    for key, value in canonical.items():
        if key != "phases":
            lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")
    texts = [json.dumps(phase, ensure_ascii=False) for phase in canonical["phases"]]
    lines.append("phases:")
    for text, equal in itertools.groupby(texts):
        count = len(list(equal))
        lines.append(f"  {count} × {text}" if count > 1 else f"  {text}")
    return "\n".join(lines)
