"""A runs folder's comparison as TensorBoard runs: one per method, its curves averaged over seeds.

Tags begin with the task's name, so that the tabs SCALARS and TIME SERIES group by task and lay
the methods over one another. HPARAMS has a row per method, with the comparison's scores.
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tensorboard.plugins.custom_scalar.layout_pb2 import (
    Category,
    Chart,
    Layout,
    MarginChartContent,
)
from tensorboard.plugins.hparams.api_pb2 import (
    DATA_TYPE_FLOAT64,
    DATA_TYPE_STRING,
    Experiment,
    HParamInfo,
    MetricInfo,
    MetricName,
)

from ht_bench.errors import UsageError
from ht_bench.ranking.comparison import Comparison
from ht_bench.ranking.curves import MeanCurve, mean_curve
from ht_bench.ranking.entries import Entry, Groups, Setting, TaskInfo
from ht_bench.records.metrics import metric_key
from ht_bench.views.live import COORDINATES, EVENTS, Cell, EventFile, plain

BETWEEN = " | "
"""Stands between a hyperparameter's values on a method's tasks, in the order of the `tasks`."""
GAP = "0: as none, 1: as full-reset"


@dataclass(frozen=True)
class Session:
    """One method in one setting: its TensorBoard run, entries by task, cells and scores.

    cells: hyperparameters by column. scores: by column, a finite number and its description.
    """

    run: str
    entries: Mapping[str, Entry]
    cells: Mapping[str, Cell]
    scores: Mapping[str, tuple[float, str]]

    def curves(self) -> dict[tuple[str, str], MeanCurve]:
        """Return (task, key) → the mean of every curve and diagnostic over seeds."""
        means = {}
        for task, entry in self.entries.items():
            records = list(entry.records.values())
            for table in ("curve", "diagnostics"):
                for key in dict.fromkeys(key for record in records for key in record[table]):
                    if key not in COORDINATES and (curve := mean_curve(records, key, table)):
                        means[task, key] = curve
        return means


def write_aggregate(
    folder: Path,
    comparison: Comparison,
    groups: Groups,
    infos: Mapping[str, TaskInfo],
    *,
    hparams: bool = True,
) -> list[str]:
    """Write the comparison as TensorBoard runs below `folder`, replacing it; returns their names.

    A curve's tags (`tags_of`) hold its mean over the seeds that did not diverge and the ends of
    that mean's 95 % interval. The first run also holds what there is once for all runs: the layout
    of margin charts and the columns of HPARAMS.
    hparams: False leaves HPARAMS to the runs of single seeds.
    Raises UsageError, deleting nothing, where `folder` holds other files than TensorBoard's.
    """
    sessions = make_sessions(comparison, groups)
    curves = [session.curves() for session in sessions]
    try:
        _remove(folder)
        for index, (session, means) in enumerate(zip(sessions, curves, strict=True)):
            with closing(EventFile(folder / session.run)) as events:
                if not index:
                    events.layout(_layout({place for table in curves for place in table}, infos))
                if hparams and not index:
                    events.experiment(_columns(sessions))
                if hparams:
                    events.session(session.cells, session.run)
                events.scalars(0, {f"score/{k}": value for k, (value, _) in session.scores.items()})
                for step, values in _points(means):
                    events.scalars(step, values)
    except OSError as error:
        raise UsageError(
            f"Could not write {error.filename or folder}: {error.strerror or error}; free some "
            "space, or copy the runs to a folder that you can write to."
        ) from error
    return [session.run for session in sessions]


def tags_of(task: str, key: str) -> tuple[str, str, str]:
    """Return the tags of a key's mean and of its interval's lower and upper end."""
    name = key.replace("/", " ")  # a card's heading keeps only what follows the last slash
    return f"{task}/{name}", f"± {task}/lower {name}", f"± {task}/upper {name}"


def _remove(folder: Path) -> None:
    strange = [file for file in folder.rglob("*") if file.is_file() and not file.match(EVENTS)]
    if strange:
        raise UsageError(
            f"{strange[0]} is no TensorBoard file, and {folder} is written anew; move it away."
        )
    for child in folder.iterdir() if folder.is_dir() else ():  # the folder itself may be a link
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()


def _points(curves: Mapping[tuple[str, str], MeanCurve]) -> list[tuple[int, dict[str, float]]]:
    """Return the curves of all tasks as (step, tag → value), by rising step.

    A phase's end and the next one's start lie on the same step: both are kept, in this order.
    """
    points: dict[tuple[int, int], dict[str, float]] = {}
    for place, curve in curves.items():
        seen: Counter[int] = Counter()
        columns = (x.tolist() for x in (curve.steps, curve.mean, curve.low, curve.high))
        for step, *values in zip(*columns, strict=True):
            if not math.isnan(values[0]):
                tags = points.setdefault((step, seen[step]), {})
                tags.update(zip(tags_of(*place), values, strict=True))
                seen[step] += 1
    return [(step, points[step, index]) for step, index in sorted(points)]


def _layout(places: Iterable[tuple[str, str]], infos: Mapping[str, TaskInfo]) -> Layout:
    """Return an open category of the curves that tasks are scored by, then one per task, closed.

    TensorBoard (2.21) draws the charts of a category in reverse: a task's own is given last.
    """
    keys: dict[str, list[str]] = {}
    for task, key in sorted(places):
        keys.setdefault(task, []).append(key)
    scored = {task: metric_key(infos[task].family) for task in keys}
    first = [_chart(task, key, f"{task} {key}") for task, key in reversed(scored.items())]
    categories = [Category(title="all tasks", chart=first)]
    for task, names in keys.items():
        ordered = sorted(names, key=lambda key: (key != scored[task], key))
        charts = [_chart(task, key, key) for key in reversed(ordered)]
        categories.append(Category(title=task, chart=charts, closed=True))
    return Layout(category=categories)


def _chart(task: str, key: str, title: str) -> Chart:
    mean, lower, upper = tags_of(task, key)
    series = MarginChartContent.Series(value=mean, lower=lower, upper=upper)
    return Chart(title=title, margin=MarginChartContent(series=[series]))


# ---- HPARAMS ----


def make_sessions(comparison: Comparison, groups: Groups) -> list[Session]:
    """Return a session for each label of each setting.

    A run is named by its label; the setting stands before it where there are several. A
    hyperparameter has one column: its value, or, where a method's differ by task, all of them
    (BETWEEN). A score that is not finite is left out.
    """
    several = len(groups) > 1
    members = [
        (setting, label, {task: table[label] for task, table in tasks.items() if label in table})
        for setting, tasks in groups.items()
        for label in sorted({label for entries in tasks.values() for label in entries})
    ]
    cells = [_cells(setting if several else None, entries) for setting, _, entries in members]
    # TensorBoard wants one type in a column: one in which any cell is text is text.
    texts = {key for row in cells for key, value in row.items() if isinstance(value, str)}
    cells = [{k: str(v) if k in texts else v for k, v in row.items()} for row in cells]
    return [
        Session(
            f"{'-'.join(asdict(setting).values())}/{label}" if several else label,
            entries,
            row,
            dict(_scores(comparison, setting, label)),
        )
        for (setting, label, entries), row in zip(members, cells, strict=True)
    ]


def _cells(setting: Setting | None, entries: Mapping[str, Entry]) -> dict[str, Cell]:
    """Return one row of hyperparameters; `setting` is told where there are several."""
    tables = [entry.hyperparameters for entry in entries.values()]
    cells: dict[str, Cell] = {"method": next(iter(entries.values())).method}
    if setting is not None:
        cells |= asdict(setting)
    cells["tasks"] = BETWEEN.join(entries)
    for key in sorted({key for table in tables for key in table}):
        values: list[Any] = [table.get(key) for table in tables]
        same = all(value == values[0] for value in values)
        cells[key] = plain(values[0]) if same else BETWEEN.join(map(str, values))
    return cells


def _scores(
    comparison: Comparison, setting: Setting, label: str
) -> Iterator[tuple[str, tuple[float, str]]]:
    """Yield column → (number, description), columns of one kind side by side."""
    tables = [table for table in comparison.tables if table.setting == setting]
    rows = [(table, row) for table in tables for row in table.rows if row.label == label]
    for table, row in rows:
        if row.gap_closed is not None and math.isfinite(row.gap_closed.value):
            yield f"gap closed: {table.name}", (row.gap_closed.value, GAP)
    tasks = [(table, row) for table, row in rows if not table.is_suite]
    for table, row in tasks:
        if row.metric is not None:
            yield f"metric: {table.name}", (row.metric.value, table.metric)
    yield "seeds", (min(row.n for _, row in tasks), "the fewest of all tasks")
    diverged = sum(row.diverged for _, row in tasks)
    if diverged:
        yield "diverged runs", (diverged, "of all tasks")


def _columns(sessions: Sequence[Session]) -> Experiment:
    """Return the columns of HPARAMS: those in which some session has anything."""
    scores = {name: words for session in sessions for name, (_, words) in session.scores.items()}
    kinds = ("gap closed", "metric", "seeds", "diverged runs")
    metrics = [
        MetricInfo(name=MetricName(tag=f"score/{name}"), display_name=name, description=words)
        for name, words in sorted(scores.items(), key=lambda x: kinds.index(x[0].split(":")[0]))
    ]
    names = dict.fromkeys(key for session in sessions for key in session.cells)
    columns = [(k, [s.cells[k] for s in sessions if k in s.cells]) for k in names]
    return Experiment(hparam_infos=[_column(k, v) for k, v in columns], metric_infos=metrics)


def _column(name: str, values: Sequence[Cell]) -> HParamInfo:
    numbers = [value for value in values if not isinstance(value, str)]
    kind = DATA_TYPE_FLOAT64 if numbers else DATA_TYPE_STRING
    info = HParamInfo(name=name, type=kind, differs=len(set(values)) > 1)
    if numbers:
        info.domain_interval.min_value = min(numbers)
        info.domain_interval.max_value = max(numbers)
    else:
        info.domain_discrete.extend(sorted(set(map(str, values))))
    return info
