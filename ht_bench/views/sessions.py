"""A comparison as TensorBoard's HPARAMS table: a session per method, its scores as metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tensorboard.plugins.hparams.api_pb2 import (
    DATA_TYPE_FLOAT64,
    DATA_TYPE_STRING,
    Experiment,
    HParamInfo,
    MetricInfo,
    MetricName,
)

from ht_bench.ranking.comparison import Comparison, Row
from ht_bench.ranking.entries import Entry, Groups, Setting
from ht_bench.views.events import Cell

BETWEEN = " | "
"""Stands between a hyperparameter's values on a method's tasks, in the order of the `tasks`."""
GAP = "0: no better than going on (none), 1: as good as starting over (full-reset)"


@dataclass(frozen=True)
class Session:
    """One method in one setting: its TensorBoard run, entries by task, cells and scores.

    hyperparameters: the table's cells by column. scores: by metric's tag, finite.
    """

    run: str
    entries: Mapping[str, Entry]
    hyperparameters: Mapping[str, Cell]
    scores: Mapping[str, float]


@dataclass(frozen=True)
class _Score:
    """A cell of a metric's column: gap closed of one table, say."""

    column: str
    of: str
    value: float | None
    description: str

    @property
    def name(self) -> str:
        return ": ".join(filter(None, (self.column, self.of)))

    @property
    def tag(self) -> str:
        return f"score/{self.name}"


def make_sessions(comparison: Comparison, groups: Groups) -> tuple[list[Session], Experiment]:
    """Return a session for each label of each setting, and the columns of their table.

    A run is named by its label; the setting stands before it where there are several. A
    hyperparameter has one column: its value, or, where a method's differ by task, all of them
    (BETWEEN). A score that is not finite is left out, and a column without any score too.
    """
    several = len(groups) > 1
    members = [
        (setting, label, {task: found[label] for task, found in tasks.items() if label in found})
        for setting, tasks in groups.items()
        for label in sorted({label for entries in tasks.values() for label in entries})
    ]
    cells = _alike([_cells(s if several else None, entries) for s, _, entries in members])
    scores = [_scores(comparison, setting, label) for setting, label, _ in members]
    sessions = [
        Session(
            f"{_place(setting)}/{label}" if several else label,
            entries,
            own_cells,
            {score.tag: score.value for score in own if score.value is not None},
        )
        for (setting, label, entries), own_cells, own in zip(members, cells, scores, strict=True)
    ]
    return sessions, Experiment(hparam_infos=_hyperparameters(cells), metric_infos=_metrics(scores))


def _place(setting: Setting) -> str:
    return "-".join(asdict(setting).values())


def _cells(setting: Setting | None, entries: Mapping[str, Entry]) -> dict[str, Cell]:
    """Return one row of hyperparameters; `setting` is told where there are several."""
    tables = [entry.hyperparameters for entry in entries.values()]
    cells: dict[str, Cell] = {"method": next(iter(entries.values())).method}
    if setting is not None:
        cells |= asdict(setting)
    cells["tasks"] = BETWEEN.join(entries)
    for key in sorted({key for table in tables for key in table}):
        values = [table.get(key) for table in tables]
        same = all(value == values[0] for value in values)
        cells[key] = _plain(values[0]) if same else BETWEEN.join(map(str, values))
    return cells


def _plain(value: Any) -> Cell:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else str(value)


def _alike(rows: Sequence[Mapping[str, Cell]]) -> list[dict[str, Cell]]:
    """Write a column in which any cell is text as text: TensorBoard wants one type."""
    texts = {key for row in rows for key, value in row.items() if isinstance(value, str)}
    return [{k: str(v) if k in texts else v for k, v in row.items()} for row in rows]


def _scores(comparison: Comparison, setting: Setting, label: str) -> list[_Score]:
    tables = [table for table in comparison.tables if table.setting == setting]
    found = [(t, row) for t in tables for row in t.rows if row.label == label]
    tasks = [(table, row) for table, row in found if not table.is_suite]
    return [
        *(_Score("gap closed", table.name, _gap(row), GAP) for table, row in found),
        *(_Score("metric", table.name, row.metric, table.metric) for table, row in tasks),
        _Score("seeds", "", min(row.n for _, row in tasks), "the fewest of all tasks"),
        _Score("diverged runs", "", sum(row.diverged for _, row in tasks) or None, "of all tasks"),
    ]


def _gap(row: Row) -> float | None:
    gap = row.gap_closed
    return gap.value if gap is not None and math.isfinite(gap.value) else None


def _hyperparameters(rows: Iterable[Mapping[str, Cell]]) -> Iterator[HParamInfo]:
    columns: dict[str, list[Cell]] = {}
    for row in rows:
        for key, value in row.items():
            columns.setdefault(key, []).append(value)
    for key, values in columns.items():
        numbers = [value for value in values if not isinstance(value, str)]
        kind = DATA_TYPE_FLOAT64 if numbers else DATA_TYPE_STRING
        info = HParamInfo(name=key, type=kind, differs=len(set(values)) > 1)
        if numbers:
            info.domain_interval.min_value = min(numbers)
            info.domain_interval.max_value = max(numbers)
        else:
            info.domain_discrete.extend(sorted(set(map(str, values))))
        yield info


def _metrics(rows: Iterable[Iterable[_Score]]) -> list[MetricInfo]:
    """Return the columns in which some session has a score, those of one kind side by side."""
    known = {score.tag: score for row in rows for score in row if score.value is not None}
    kinds = list(dict.fromkeys(score.column for row in rows for score in row))
    return [
        MetricInfo(
            name=MetricName(tag=score.tag),
            display_name=score.name,
            description=score.description,
        )
        for score in sorted(known.values(), key=lambda score: kinds.index(score.column))
    ]
