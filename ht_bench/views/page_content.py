"""What each page of the site shows, ready for its template."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from ht_bench.leaderboard.board import Board
from ht_bench.leaderboard.known import KnownTask
from ht_bench.leaderboard.ranker import Standing, Table
from ht_bench.leaderboard.summary import Curve, Entry, TaskSummary
from ht_bench.ranking.pairing import FRESH, OWN, WARM
from ht_bench.records.metrics import describe_metric, metric_key
from ht_bench.streams.seeds import format_seeds
from ht_bench.views import charts
from ht_bench.views.charts import Bar, Dot, Line

CORE, TRAINABILITY = "suite-core-v1", "suite-trainability-v1"
COLOURS = 8
MOST_ENDS = 12
"""Columns of a task's table of curves; of a longer stream the last phases are shown."""


@dataclass(frozen=True)
class Picture:
    """A scatter with its words and the numbers behind it."""

    title: str
    words: str
    axes: tuple[str, str]
    dots: tuple[Dot, ...]
    svg: Markup


def kind_of(tasks: Sequence[KnownTask]) -> str:
    """Return "agents" for tasks of environments, else "supervised"."""
    return "agents" if all(known.is_control for known in tasks) else "supervised"


def decimals(tasks: Sequence[KnownTask]) -> int:
    """Return how many decimals the tasks' metric is worth."""
    return 1 if kind_of(tasks) == "agents" else 3


def boundaries(entry: Entry) -> str:
    """Return the mark that the filter looks for."""
    return "yes" if entry.needs_boundaries else "no"


# ---- the index ----


def index_view(board: Board) -> dict[str, Any]:
    """Return what index.html shows."""
    suites = [(table, _gap_chart(table, index)) for index, table in enumerate(board.suites)]
    families = sorted({table.tasks[0].task.family for table in board.tasks})
    return {
        "board": board,
        "suites": suites,
        "families": families,
        "pictures": _pictures(board),
    }


def _gap_chart(table: Table, index: int) -> Markup:
    bars = [
        Bar(row.entry.name, *_ends(row), boundaries(row.entry))
        for row in table.rows
        if row.gap is not None and math.isfinite(row.gap.value)
    ]
    return charts.gap_chart(bars, f"Gap closed on {table.name}", f"gap-{index}")


def _ends(row: Standing) -> tuple[float, float, float]:
    assert row.gap is not None
    return row.gap.value, row.gap.low, row.gap.high


def _pictures(board: Board) -> list[Picture]:
    tables = {table.name: table for table in board.suites}
    found = []
    for index, table in enumerate(board.suites):
        found.append(_cost(table, f"cost-{index}"))
    if CORE in tables and TRAINABILITY in tables:
        found.append(_two_scores(tables[CORE], tables[TRAINABILITY]))
    return [picture for picture in found if picture.dots]


def _cost(table: Table, name: str) -> Picture:
    dots = tuple(
        Dot(row.entry.name, row.time, *_ends(row), boundaries(row.entry))
        for row in table.rows
        if row.time is not None and row.gap is not None and math.isfinite(row.gap.value)
    )
    title = f"Score against cost: {table.name}"
    words = (
        "Gap closed against wall time relative to none. Up and to the left is better; full-reset "
        "is the price of starting over."
    )
    return _picture(title, words, ("time relative to none", "gap closed"), dots, name)


def _two_scores(core: Table, trainability: Table) -> Picture:
    other = {row.entry.name: row for row in trainability.rows if row.gap is not None}
    dots = []
    for row in core.rows:
        match = other.get(row.entry.name)
        if row.gap is None or match is None or match.gap is None:
            continue
        if math.isfinite(row.gap.value) and math.isfinite(match.gap.value):
            name = row.entry.name
            dots.append(Dot(name, match.gap.value, *_ends(row), boundaries(row.entry)))
    words = (
        "Trainability is the accuracy reached on new random labels. Lee et al. (2024) hold that "
        "keeping it does not bring generalization: were the two one thing, the points would lie "
        f"on a rising line. Over these {len(dots)} methods their rank correlation (Spearman) is "
        f"{_spearman([dot.x for dot in dots], [dot.y for dot in dots]):.2f}."
    )
    axes = ("trainability: gap closed", "generalization: gap closed")
    return _picture("Generalization against trainability", words, axes, tuple(dots), "two")


def _spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the rank correlation; nan for fewer than three points or equal values."""
    if len(x) < 3 or len(set(x)) < 2 or len(set(y)) < 2:
        return math.nan
    first, second = (np.argsort(np.argsort(values)) for values in (x, y))
    return float(np.corrcoef(first, second)[0, 1])


def _picture(
    title: str, words: str, axes: tuple[str, str], dots: tuple[Dot, ...], name: str
) -> Picture:
    drawn = [_within(dot) for dot in dots]
    svg = charts.scatter(drawn, title, axes, name, (0.0, 1.0)) if dots else Markup("")
    return Picture(title, words, axes, dots, svg)


def _within(dot: Dot) -> Dot:
    """Return the dot with an interval that is drawn only where it is finite."""
    low, high = dot.low, dot.high
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return Dot(dot.label, dot.x, dot.y, None, None, dot.boundaries)
    return dot


# ---- a method ----


def method_view(board: Board, entry: Entry) -> dict[str, Any]:
    """Return what a method's page shows."""
    tables = [*board.suites, *board.tasks]
    rows = [(t, row) for t in tables for row in t.rows if row.entry is entry]
    references = {one.name: one for one in board.entries if one.name in (WARM, FRESH)}
    parts = [
        _part(table, entry, entry.tasks[table.name], references, index)
        for index, table in enumerate(board.tasks)
        if table.name in entry.tasks
    ]
    return {"entry": entry, "standings": rows, "parts": parts}


def _part(
    table: Table,
    entry: Entry,
    summary: TaskSummary,
    references: Mapping[str, Entry],
    index: int,
) -> dict[str, Any]:
    task = summary.known.task
    own = summary.curve
    others = {}
    for name, reference in references.items():
        theirs = reference.tasks.get(table.name)
        if reference is not entry and theirs is not None and theirs.curve is not None:
            others[name] = theirs.curve
    svg = None
    if own is not None:
        lines = [Line(entry.name, own, "own", band=True)]
        lines += [Line(name, curve, name) for name, curve in others.items()]
        title = f"{entry.name} on {table.name}"
        svg = charts.curves(lines, title, metric_key(task.family), f"curve-{index}")
    return {
        "name": table.name,
        "title": task.title,
        "table": table,
        "svg": svg,
        "others": list(others),
        "n": own.n if own else 0,
        "ends": _ends_of_phases(own) if own else [],
        "seeds": summary.seeds,
        "final": summary.final.tolist(),
        "words": summary.table,
        "seconds": summary.seconds,
        "memory": summary.memory,
        "diverged": summary.diverged,
    }


def _ends_of_phases(curve: Curve) -> list[tuple[int, float, float, float]]:
    columns = (curve.step, curve.mean, curve.low, curve.high)
    return list(zip(*(column[curve.ends].tolist() for column in columns), strict=True))


# ---- a task ----


def task_view(board: Board, table: Table) -> dict[str, Any]:
    """Return what a task's page shows."""
    task = table.tasks[0].task
    lines = _lines(table)
    svg = None
    if lines:
        axis = metric_key(task.family)
        drawn = sorted(lines, key=lambda line: line.style != "quiet")
        svg = charts.curves(drawn, f"All methods on {table.name}", axis, "curves")
    ends: list[int] = lines[0].curve.ends[-MOST_ENDS:].tolist() if lines else []
    return {
        "table": table,
        "task": task,
        "anchors": board.anchors.get(table.name),
        "metric_words": describe_metric(task.family),
        "seeds": format_seeds(task.seeds),
        "spec": _spec(task.canonical()),
        "lines": lines,
        "svg": svg,
        "ends_cut": bool(lines) and len(lines[0].curve.ends) > MOST_ENDS,
        "end_steps": lines[0].curve.step[ends].tolist() if lines else [],
        "end_rows": [(line.label, line.curve.mean[ends].tolist()) for line in lines],
    }


def _lines(table: Table) -> list[Line]:
    """Return every method's curve; anchors, Hare & Tortoise and the leaders stand out."""
    found = []
    free = iter(f"c{index}" for index in range(3, COLOURS))
    for row in table.rows:
        curve = row.entry.tasks[table.name].curve
        if curve is None:
            continue
        name = row.entry.name
        style = {WARM: WARM, FRESH: FRESH, OWN: "own"}.get(name) or next(free, "quiet")
        found.append(Line(name, curve, style))
    return found


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
