"""A submission boiled down to what the board shows: finals per seed, mean curves, costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ht_bench.leaderboard.known import KnownTask, find_known
from ht_bench.leaderboard.reading import Submission
from ht_bench.records import metrics
from ht_bench.records.metrics import Record

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """The mean over a method's finished runs, [points], with a 95 % interval of the mean.

    low, high: mean ∓ 1.96 standard errors over seeds. ends: the index of each phase's last point.
    """

    step: NDArray[np.int64]
    ends: NDArray[np.intp]
    mean: Array
    low: Array
    high: Array
    n: int


@dataclass(frozen=True, eq=False)
class TaskSummary:
    """One entry on one task. final: the metric per evaluation seed, [seeds], ascending seeds.

    seconds, memory: means over seeds. none_seconds, none_memory: of `none` on the same machine,
    None where it was not run. table: the submission's own words (hyperparameters, software, …).
    """

    known: KnownTask
    seeds: tuple[int, ...]
    final: Array
    diverged: int
    area: float
    last: float
    retention: float | None
    curve: Curve | None
    seconds: float
    memory: float
    none_seconds: float | None
    none_memory: float | None
    extra_parameters: int
    table: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Entry:
    """One submission. about: its content without the tasks. level: how far it was verified."""

    name: str
    about: Mapping[str, Any]
    sha256: str
    level: str
    reruns: Mapping[str, Any]
    tasks: Mapping[str, TaskSummary]

    @property
    def needs_boundaries(self) -> bool:
        """Whether the method must be told when the data change."""
        return bool(self.about["method"]["needs_boundaries"])


def summarize(submission: Submission, level: str, reruns: Mapping[str, Any]) -> Entry:
    """Boil a valid submission down; its curves can be forgotten then."""
    tasks = {}
    for name in submission.tasks:
        known = find_known(name)
        assert isinstance(known, KnownTask), name
        tasks[name] = _task(submission, known)
    about = {key: value for key, value in submission.content.items() if key != "tasks"}
    return Entry(submission.name, about, submission.sha256, level, reruns, tasks)


def _task(submission: Submission, known: KnownTask) -> TaskSummary:
    name, family, classes = known.task.name, known.task.family, known.classes
    table = submission.tasks[name]
    seeds = submission.seeds(name)
    records = [submission.record(name, seed, known.random) for seed in seeds]
    runs = [table["seeds"][str(seed)] for seed in seeds]

    def over_seeds(measure: Callable[[Record, str, int], float]) -> Array:
        return np.array([measure(record, family, classes) for record in records])

    kept = [metrics.retention(record, classes) for record in records]
    none = table["none_cost"] or {}
    return TaskSummary(
        known=known,
        seeds=seeds,
        final=over_seeds(metrics.final_metric),
        diverged=sum(map(metrics.is_diverged, records)),
        area=float(over_seeds(metrics.area_last_phase).mean()),
        last=float(over_seeds(metrics.last_phase_accuracy).mean()),
        retention=_mean_if_all(kept, any(run["retention"] for run in runs)),
        curve=_curve(records, family),
        seconds=float(np.mean([run["seconds"] for run in runs])),
        memory=float(np.mean([run["peak_memory_bytes"] for run in runs])),
        none_seconds=none.get("seconds") or None,
        none_memory=none.get("peak_memory_bytes") or None,
        extra_parameters=int(table["extra_parameters"]),
        table={key: value for key, value in table.items() if key not in ("seeds", "grid")},
    )


def _mean_if_all(values: list[float | None], tested: bool) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if tested and len(known) == len(values) else None


def _curve(records: Sequence[Record], family: str) -> Curve | None:
    finished = [record for record in records if not metrics.is_diverged(record)]
    if not finished:
        return None
    values = np.array([metrics.curve(r, metrics.metric_key(family)) for r in finished])
    n = len(finished)
    mean = values.mean(axis=0)
    error = values.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else np.zeros_like(mean)
    return Curve(
        np.asarray(finished[0]["curve"]["step"], dtype=np.int64),
        metrics.phase_end_points(finished[0]),
        mean,
        mean - 1.96 * error,
        mean + 1.96 * error,
        n,
    )
