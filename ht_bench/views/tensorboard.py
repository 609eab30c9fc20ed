"""A runs folder's comparison as TensorBoard runs: one per method, its curves averaged over seeds.

Tags begin with the task's name, so that the tabs SCALARS and TIME SERIES group by task and lay
the methods over one another. JSON is the source of truth; these files are a view.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tensorboard.plugins.custom_scalar.layout_pb2 import (
    Category,
    Chart,
    Layout,
    MarginChartContent,
)

from ht_bench.errors import UsageError
from ht_bench.ranking.comparison import Comparison
from ht_bench.ranking.entries import Groups, TaskInfo
from ht_bench.records.metrics import Record, is_diverged, metric_key
from ht_bench.views.events import EventFile
from ht_bench.views.live import EVENTS, columns
from ht_bench.views.sessions import Session, make_sessions

_Curves = dict[tuple[str, str], dict[int, tuple[float, float, float]]]
"""(task, key) → step → mean, lower end, upper end."""

_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""The 97.5 % quantile of Student's t for 1, 2, … degrees of freedom."""


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
    its 95 % interval (`mean_interval`). The first run also holds what there is once for all runs:
    the layout of margin charts and the columns of HPARAMS.
    hparams: False leaves HPARAMS to the runs of single seeds.
    Raises UsageError, deleting nothing, where `folder` holds other files than TensorBoard's.
    """
    sessions, experiment = make_sessions(comparison, groups)
    curves = [_curves(session) for session in sessions]
    layout = _layout({place for found in curves for place in found}, infos)
    try:
        _remove(folder)
        for session, found in zip(sessions, curves, strict=True):
            with EventFile(folder / session.run) as events:
                is_first = session is sessions[0]
                if is_first:
                    events.layout(layout)
                if is_first and hparams:
                    events.experiment(experiment)
                if hparams:
                    events.session(session.hyperparameters, session.run)
                events.scalars(0, session.scores)
                for step, values in _points(found).items():
                    events.scalars(step, values)
    except OSError as error:
        raise UsageError(
            f"Could not write {error.filename or folder}: {error.strerror or error}; free some "
            "space, or copy the runs to a folder that you can write to."
        ) from error
    return [session.run for session in sessions]


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of values over seeds and the ends of its 95 % interval.

    The interval is Student's, mean ± t · standard error; a lone seed's has no width.
    """
    n = len(values)
    mean = float(np.mean(values))
    if n < 2:
        return mean, mean, mean
    t = _T[n - 2] if n - 2 < len(_T) else 1.96 + 2.4 / (n - 1)
    width = t * float(np.std(values, ddof=1)) / n**0.5
    return mean, mean - width, mean + width


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
    if folder.exists():
        shutil.rmtree(folder)


def _curves(session: Session) -> _Curves:
    curves: _Curves = {}
    for task, entry in session.entries.items():
        finished = [record for record in entry.records.values() if not is_diverged(record)]
        for (key, step), values in _values(finished).items():
            curves.setdefault((task, key), {})[step] = mean_interval(values)
    return curves


def _values(records: Iterable[Record]) -> dict[tuple[str, int], list[float]]:
    """Return what the records measured, by key and step."""
    values: dict[tuple[str, int], list[float]] = {}
    for record in records:
        for table in (record["curve"], record["diagnostics"]):
            for key, step, value in columns(table):
                values.setdefault((key, step), []).append(value)
    return values


def _points(curves: _Curves) -> dict[int, dict[str, float]]:
    """Return the curves of all tasks as step → tag → value, by rising step."""
    points: dict[int, dict[str, float]] = {}
    for place, curve in curves.items():
        tags = tags_of(*place)
        for step, values in curve.items():
            points.setdefault(step, {}).update(zip(tags, values, strict=True))
    return dict(sorted(points.items()))


def _layout(known: Iterable[tuple[str, str]], infos: Mapping[str, TaskInfo]) -> Layout:
    """Return an open category of the curves that tasks are judged by, then one per task, closed.

    TensorBoard (2.21) draws the charts of a category in reverse: a task's own is given last.
    """
    keys: dict[str, list[str]] = {}
    for task, key in sorted(known):
        keys.setdefault(task, []).append(key)
    judged = {task: metric_key(infos[task].family) for task in keys}
    first = [_chart(task, key, f"{task} {key}") for task, key in reversed(judged.items())]
    categories = [Category(title="all tasks", chart=first)]
    for task, found in keys.items():
        ordered = sorted(found, key=lambda key: (key != judged[task], key))
        charts = [_chart(task, key, key) for key in reversed(ordered)]
        categories.append(Category(title=task, chart=charts, closed=True))
    return Layout(category=categories)


def _chart(task: str, key: str, title: str) -> Chart:
    mean, lower, upper = tags_of(task, key)
    series = MarginChartContent.Series(value=mean, lower=lower, upper=upper)
    return Chart(title=title, margin=MarginChartContent(series=[series]))
