"""Paired tasks → rows: one entry's numbers on a task, or their means over a suite's tasks.

A task's table is a suite of one task, so there is one way to make a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ht_bench.ranking import score
from ht_bench.ranking.pairing import FRESH, OWN, WARM, PairedTask
from ht_bench.ranking.score import Array, Estimate
from ht_bench.records import metrics
from ht_bench.records.metrics import Record
from ht_bench.streams.seeds import format_seeds

REFERENCES = (WARM, FRESH, OWN)
PROFILE_THRESHOLDS = tuple(round(0.1 * step - 0.5, 1) for step in range(21))


@dataclass(frozen=True)
class Row:
    """One entry's numbers, means over its table's tasks; None: not measured or not comparable.

    rank: None for an incomplete entry (`missing` says what it lacks) and for a lone seed.
    n: seeds per task behind every number, those that both anchors have too. metric: mean over
    seeds, in 0..1, with its standard error. improvement: probability of improvement over each of
    REFERENCES. wall_time, peak_memory: relative to `none` on the same seeds. profile: share of
    runs whose gap closed lies above each of PROFILE_THRESHOLDS. decimals: that its metric,
    an accuracy or a return, is worth.
    """

    label: str
    method: str
    rank: int | None
    n: int
    missing: tuple[str, ...]
    diverged: int
    gap_closed: Estimate | None
    gap_closed_by_mean: Estimate | None
    gap_closed_by_median: Estimate | None
    denominator_crosses_zero: float | None
    metric: float | None
    standard_error: float | None
    last_phase_accuracy: float | None
    area: float | None
    retention: float | None
    improvement: Mapping[str, Estimate | None]
    wall_time: float | None
    peak_memory: float | None
    extra_parameters: int
    profile: tuple[float, ...] | None
    decimals: int = 3

    @property
    def complete(self) -> bool:
        """Whether the entry has every wanted seed of every task."""
        return not self.missing


def make_rows(tasks: Sequence[PairedTask]) -> tuple[Row, ...]:
    """Return one row per entry, ranked ones first, best first.

    One task: ranked by paired differences of interquartile means of the metric, which need no
    anchors. Several: by paired differences of the mean gap closed.
    """
    labels = dict.fromkeys(label for task in tasks for label in task.entries)
    results = [_Result(label, tasks) for label in labels]
    ranks = score.ranks({one.label: one.draws() for one in results if one.is_ranked})
    return tuple(sorted((one.row(ranks.get(one.label)) for one in results), key=_order))


def _order(row: Row) -> tuple[bool, int, float, str]:
    best = row.gap_closed.value if row.gap_closed else row.metric
    best = -math.inf if best is None or math.isnan(best) else best
    return row.rank is None, row.rank or 0, -best, row.label


class _Result:
    """One entry on all tasks of a table."""

    def __init__(self, label: str, tasks: Sequence[PairedTask]) -> None:
        self.label = label
        self.tasks = [task for task in tasks if label in task.entries]
        self.absent = [task.info.name for task in tasks if label not in task.entries]
        self.values = {t.info.name: t.values(t.entries[label], self._used(t)) for t in self.tasks}
        self.n = min(len(values) for values in self.values.values())
        self.anchors = self._anchors()
        self.score = score.suite_score(self.values, *self.anchors) if self.anchors else None

    def row(self, rank: int | None) -> Row:
        gap = self.score
        records = [record for task in self.tasks for record in self._records(task)]
        return Row(
            label=self.label,
            method=records[0]["method"],
            rank=rank,
            n=self.n,
            missing=self.missing(),
            diverged=sum(metrics.is_diverged(record) for record in records),
            gap_closed=gap.gap_closed if gap else None,
            gap_closed_by_mean=gap.by_mean if gap else None,
            gap_closed_by_median=gap.by_median if gap else None,
            denominator_crosses_zero=gap.denominator_crosses_zero if gap else None,
            metric=self._average(metrics.final_metric),
            standard_error=self._standard_error(),
            last_phase_accuracy=self._average(metrics.last_phase_accuracy),
            area=self._average(metrics.area_last_phase),
            retention=self._over_tasks([self._retention(task) for task in self.tasks]),
            improvement={name: self._improvement(name) for name in REFERENCES},
            wall_time=self._relative("seconds"),
            peak_memory=self._relative("peak_memory_bytes"),
            extra_parameters=max(record["extra_parameters"] for record in records),
            profile=self._profile(),
            decimals=1 if all(t.info.random is not None for t in self.tasks) else 3,
        )

    @property
    def is_ranked(self) -> bool:
        return not self.missing() and self.n > 1

    def draws(self) -> Array:
        if self.score is not None and len(self.tasks) > 1:
            return self.score.draws
        ((task, values),) = self.values.items()
        return score.bootstrap(values, task)

    def missing(self) -> tuple[str, ...]:
        """Say what keeps the entry from being complete."""
        lacking = {task.info.name: task.seeds[self.label].missing for task in self.tasks}
        seeds = [f"{name} seeds {format_seeds(some)}" for name, some in lacking.items() if some]
        return (*(f"{task} (not run)" for task in self.absent), *seeds)

    def _used(self, task: PairedTask) -> tuple[int, ...]:
        return task.seeds[self.label].used

    def _records(self, task: PairedTask) -> list[Record]:
        return [task.entries[self.label].records[seed] for seed in self._used(task)]

    def _reference(self, method: str) -> dict[str, Array] | None:
        """Return a reference's metrics on this entry's seeds, by task; None if it lacks any."""
        found = {}
        for task in self.tasks:
            entry = task.reference(method)
            if entry is None or not set(self._used(task)) <= set(entry.records):
                return None
            found[task.info.name] = task.values(entry, self._used(task))
        return found

    def _anchors(self) -> tuple[dict[str, Array], dict[str, Array]] | None:
        """Return both anchors' metrics on this entry's seeds, by task; None if any is missing."""
        if self.absent or not all(task.seeds[self.label].paired for task in self.tasks):
            return None
        warm, fresh = self._reference(WARM), self._reference(FRESH)
        return None if warm is None or fresh is None else (warm, fresh)

    def _profile(self) -> tuple[float, ...] | None:
        if self.anchors is None:
            return None
        warm, fresh = self.anchors
        seeds = {t: score.seed_scores(x, warm[t], fresh[t]) for t, x in self.values.items()}
        return tuple(float(x) for x in score.performance_profile(seeds, PROFILE_THRESHOLDS))

    def _improvement(self, method: str) -> Estimate | None:
        reference = self._reference(method)
        if self.absent or reference is None or self.label == method:
            return None
        return score.probability_of_improvement(self.values, reference)

    def _over_tasks(self, values: Sequence[float | None]) -> float | None:
        """Return the mean over tasks, or None unless every task of the table has a value."""
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if len(known) == len(values) and not self.absent else None

    def _average(self, measure: Callable[[Record, str, int], float]) -> float | None:
        entry, used = self.label, self._used
        means = [float(t.values(t.entries[entry], used(t), measure).mean()) for t in self.tasks]
        return self._over_tasks(means)

    def _standard_error(self) -> float | None:
        if self.n < 2 or self.absent:
            return None
        squares = [values.var(ddof=1) / values.size for values in self.values.values()]
        return math.sqrt(sum(squares)) / len(squares)

    def _retention(self, task: PairedTask) -> float | None:
        records = self._records(task)
        values = [metrics.retention(record, task.info.classes) for record in records]
        tested = any(r.get("retention") for r in records if not metrics.is_diverged(r))
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if tested and len(known) == len(values) else None

    def _relative(self, cost: str) -> float | None:
        """Return the mean over tasks of a cost over that of `none` on the same seeds."""
        ratios: list[float | None] = []
        for task in self.tasks:
            seeds = set(self._used(task))
            if task.warm is None or not seeds <= set(task.warm.records):
                return None
            own = _mean_cost(self._records(task), cost)
            warm = _mean_cost([task.warm.records[seed] for seed in sorted(seeds)], cost)
            ratios.append(own / warm if own and warm else None)
        return self._over_tasks(ratios)


def _mean_cost(records: Sequence[Mapping[str, Any]], cost: str) -> float | None:
    values = [record["cost"].get(cost) for record in records]
    return float(np.mean(values)) if all(value is not None for value in values) else None
